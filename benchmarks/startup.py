"""How long it takes until brainseg does anything, each command in a process of its own."""

import subprocess
import sys
import tempfile
from functools import partial
from importlib.metadata import version
from pathlib import Path

from benchmarks.timing import tabulate, time_in_turns, write_results
from brainseg_cli.data.phantom import write_phantom


def run(model: Path | None, repeats: int) -> None:
    """Print the table and write it. Of `model` one slice of the phantom is segmented, its load and all."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        ours = "brainseg --help"
        sides = {
            "python -c pass": ["-c", "pass"],
            "import typer, typer.rich_utils": ["-c", "import typer, typer.rich_utils"],
            "brainseg --version": ["-m", "brainseg_cli", "--version"],
            ours: ["-m", "brainseg_cli", "--help"],
            "brainseg predict --help": ["-m", "brainseg_cli", "predict", "--help"],
            "brainseg info": ["-m", "brainseg_cli", "info"],
            "import torch": ["-c", "import torch"],
        }
        if model is not None:
            write_phantom(folder / "phantom", patients=1, slices=(9, 9), height=256, width=256)
            image = min((folder / "phantom").glob("*/*_5.tif"))
            predict = ["predict", str(image), "-m", str(model), "-o", str(folder / "masks"), "--overwrite", "-q"]
            sides["brainseg predict, one slice"] = ["-m", "brainseg_cli", *predict]
        calls = {name: partial(_call, arguments) for name, arguments in sides.items()}
        table = tabulate(time_in_turns(calls, repeats), 1, ours=ours)
    print(table.to_string(index=False))  # noqa: T201
    versions = {name: version(name) for name in ("brainseg", "torch", "typer", "rich", "numpy")}
    print(write_results("startup", table, versions))  # noqa: T201


def _call(arguments: list[str]) -> None:
    subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, check=True)
