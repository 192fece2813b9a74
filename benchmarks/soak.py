"""Train, predict, eval and overlay over and over in one process: what it holds must not grow.

Flat is: over the last two thirds of at least 6 rounds, the line fitted to the memory in use rises by less than 2 % of
its mean, and those fitted to open descriptors, threads and child processes by less than one.
"""

import gc
import io
import itertools
import os
import tempfile
import time
from contextlib import closing, suppress
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.timing import write_results
from brainseg_cli import prepare
from brainseg_cli.config import load_config
from brainseg_cli.data.manifest import load_dataset
from brainseg_cli.errors import Interrupted
from brainseg_cli.evaluate import conclude, measure_run, write_report
from brainseg_cli.io.images import write_image, write_mask
from brainseg_cli.io.sources import Request, open_inputs
from brainseg_cli.models.ensemble import open_ensemble
from brainseg_cli.models.runtimes import Choice
from brainseg_cli.overlay import Look, Places, Sources, overlay
from brainseg_cli.predict import plan as planning
from brainseg_cli.predict.run import run as segment
from brainseg_cli.predict.settings import Settings
from brainseg_cli.train import draw_run_figures, resume, train

SETTINGS = {
    "preprocess.size": 64,
    "model.encoder": "tu-test_resnet",
    "model.decoder_channels": (16, 8, 8),
    "train.epochs": 2,
    "train.batch_size": 8,
    "optimizer.lr": 1e-2,
}
PATIENTS, SLICES = 2, 10
"""Of each split, and at most of each patient: a round is to take seconds."""
MOST_MEMORY, MOST_COUNT = 0.02, 1.0
LEAST_ROUNDS = 6
COUNTS = ("descriptors", "threads", "children")


class Stopping:
    """An observer that leaves the training in its second epoch, as an interrupt does."""

    def on_step(self, epoch: int, step: int, steps: int, images_per_s: float) -> None:
        if epoch == 2:
            raise KeyboardInterrupt

    def on_epoch(self, row: dict[str, float], *, best: bool, epochs: int) -> None: ...

    def on_message(self, text: str) -> None: ...


class Going(Stopping):
    """One that does not."""

    def on_step(self, epoch: int, step: int, steps: int, images_per_s: float) -> None: ...


def run(data: Path, minutes: float) -> None:
    """Print a line a round, then the verdict; write all of it. Linux only: /proc tells what a process holds."""
    rounds, started = [], time.monotonic()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        split = _write_source(data, folder / "slices")
        for number in itertools.count(1):
            begun = time.monotonic()
            _do_round(folder, split, number)
            gc.collect()
            rounds.append({"round": number, "seconds": round(time.monotonic() - begun, 2), **_look()})
            print(*(f"{name} {value}" for name, value in rounds[-1].items()), sep="  ", flush=True)  # noqa: T201
            if time.monotonic() - started >= 60 * minutes:
                break
    table = pd.DataFrame(rounds)
    for name, (grown, most) in judge(table).items():
        print(f"{name}: {grown:+.2f}, flat is less than {most:.2f}")  # noqa: T201
    print("flat" if is_flat(table) else "NOT FLAT")  # noqa: T201
    versions = {name: version(name) for name in ("brainseg", "torch", "openvino")}
    print(write_results("soak", table.assign(flat=is_flat(table)), versions))  # noqa: T201


def judge(table: pd.DataFrame) -> dict[str, tuple[float, float]]:
    """What each column grew by over the last two thirds of the rounds, by a fitted line, and what it must be below."""
    last = table.iloc[len(table) // 3 :]
    growth = {}
    for name in ("rss_mb", *COUNTS):
        values = last[name].to_numpy(np.float64)
        slope = float(np.polyfit(np.arange(len(values)), values, 1)[0]) if len(values) > 1 else 0.0
        most = MOST_MEMORY * float(values.mean()) if name == "rss_mb" else MOST_COUNT
        growth[name] = (slope * (len(values) - 1), most)
    return growth


def is_flat(table: pd.DataFrame) -> bool:
    """Whether `judge` finds nothing that grew; False where there are too few rounds to tell."""
    return len(table) >= LEAST_ROUNDS and all(grown < most for grown, most in judge(table).values())


def _do_round(folder: Path, split: Path, number: int) -> None:
    """What a user does with new slices, each command in the place of what the one before it made."""
    source, dataset, trained, masks = (folder / name for name in ("slices", "dataset", "run", "masks"))
    with prepare.new_dataset(dataset, overwrite=True) as aside:
        prepare.complete_dataset(prepare.check(source, split=str(split), into=aside), aside)
    config = load_config("fast", overrides=SETTINGS | {"train.seed": number})
    with suppress(Interrupted):
        train(dataset, trained, config, Stopping(), device_name="cpu", overwrite=True)
    resume(trained, Going(), device_name="cpu")
    write_report(conclude(measure_run(trained)), trained / "report", overwrite=True)
    draw_run_figures(trained, device_name="cpu")
    images = sorted(path for path in source.rglob("*.tif") if not path.stem.endswith("_mask"))
    _predict(Request((str(source),)), b"", trained, masks)
    listed = b"\0".join(map(os.fsencode, images))
    _predict(Request(files0_from="-", relative_to=str(source)), listed, trained, masks)
    sources = Sources(Request((str(source),)), masks, reference=source)
    for places in (Places(folder / "figures", overwrite=True), Places(folder / "figures", "sheet", overwrite=True)):
        with closing(overlay(sources, places, Look(), io.BytesIO()).run()) as drawn:
            failures = [failure for outcome in drawn for failure in outcome.failures]
        if failures:
            raise RuntimeError(str(failures[0]))


def _predict(request: Request, stdin: bytes, trained: Path, masks: Path) -> None:
    places = planning.Places(masks, overwrite=True)
    plan = planning.make_plan(open_inputs(request, io.BytesIO(stdin)), [trained], places, Settings())
    with closing(segment(plan, open_ensemble(plan.bundles, Choice("auto", "cpu", "auto")))) as outcomes:
        for outcome in outcomes:
            if outcome.record["status"] != "ok":
                raise RuntimeError(outcome.record["error"])


def _write_source(data: Path, folder: Path) -> Path:
    """A few patients of each split as a folder of slices, and the table that deals them as they were."""
    dataset = load_dataset(data).with_fold(None)
    lines = ["patient_id,split"]
    for split in ("train", "val", "test"):
        patients = dataset.slices[dataset.slices["split"] == split].groupby("patient_id", sort=False)
        most = patients["tumour_px"].sum().sort_values(ascending=False).index[:PATIENTS]
        for patient_id in most:
            lines.append(f"{patient_id},{split}")
            rows = patients.get_group(patient_id).nlargest(SLICES, "tumour_px").index
            for row in rows:
                stem = folder / patient_id / f"{patient_id}_{dataset.slices['slice_index'][row]}"
                write_image(stem.with_name(f"{stem.name}.tif"), dataset.image(row))
                write_mask(stem.with_name(f"{stem.name}_mask.tif"), dataset.mask(row))
    table = folder.with_name("split.csv")
    table.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return table


def _look() -> dict[str, float]:
    """Memory in use in MB, and how many descriptors, threads and child processes there are."""
    own = Path("/proc/self")
    pages = int((own / "statm").read_text().split()[1])
    tasks = list((own / "task").iterdir())
    return {
        "rss_mb": round(pages * os.sysconf("SC_PAGE_SIZE") / 1e6, 1),
        "descriptors": len(list((own / "fd").iterdir())) - 1,  # the one that lists them
        "threads": len(tasks),
        "children": sum(len((task / "children").read_text().split()) for task in tasks),
    }
