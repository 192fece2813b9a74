"""Whether memory grows with the number of inputs: the peak of `brainseg predict` over few links to slices, and many."""

import os
import resource
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from itertools import cycle, islice
from pathlib import Path

import pandas as pd

from benchmarks.predict import write_slices
from benchmarks.timing import write_results
from brainseg_cli.data.manifest import load_dataset

SLICES = 400


def run(data: Path, model: str, *, few: int, many: int, precision: str) -> None:
    """Print a row for each process and write the table: twice over `few`, then over `many`. Linux and macOS.

    A first process, which does not count, exports the model where that was not done yet.
    """
    rows = []
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        images = write_slices(load_dataset(data), folder / "slices", SLICES)
        for count in {few, many}:
            (folder / str(count)).mkdir()
            for number, image in enumerate(islice(cycle(images), count)):
                (folder / str(count) / f"s{number:07d}.tif").symlink_to(image)
        for turn, count in enumerate((few, few, few, many)):
            masks = folder / f"masks{turn}"
            peak_mb, seconds = _watch(
                ["predict", str(folder / str(count)), "-m", model, "-o", str(masks), "--precision", precision]
            )
            assert sum(1 for _ in masks.glob("*.png")) == count
            if turn:
                rows.append({"inputs": count, "peak_mb": round(peak_mb, 1), "seconds": round(seconds, 1)})
                print(*(f"{name} {value}" for name, value in rows[-1].items()), sep="  ", flush=True)  # noqa: T201
    table = pd.DataFrame(rows)
    base = table["peak_mb"][table["inputs"] == few].mean()
    table["times_few"] = (table["peak_mb"] / base).round(3)
    print(table.to_string(index=False))  # noqa: T201
    table.insert(0, "model", Path(model).name)
    table.insert(1, "precision", precision)
    versions = {name: version(name) for name in ("brainseg", "torch", "openvino", "numpy")}
    print(write_results(f"memory-{precision}", table, versions))  # noqa: T201


def _watch(arguments: list[str]) -> tuple[float, float]:
    """The most memory of a `brainseg` process in MB of 10^6 bytes, and its seconds."""
    start = time.perf_counter()
    call = [sys.executable, "-m", "brainseg_cli", *arguments, "-q"]
    with subprocess.Popen(call, stdout=subprocess.DEVNULL) as process:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"brainseg {' '.join(arguments)} ended with {process.returncode}")
    # a process is born with its parent's peak
    assert used.ru_maxrss > resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    unit = 1 if sys.platform == "darwin" else 1024
    return used.ru_maxrss * unit / 1e6, time.perf_counter() - start
