"""python -m benchmarks NAME: prints a table and writes it to benchmarks/results/."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False, no_args_is_help=True)

Data = Annotated[Path, typer.Option(help="A dataset that `brainseg prepare` made.")]
Repeats = Annotated[int, typer.Option(min=1, help="How often each side is timed, in turns; the median counts.")]


@app.callback()
def describe() -> None:
    """Time brainseg beside what a user would otherwise run, in one run on one machine."""


@app.command("eval")
def benchmark_eval(data: Data, repeats: Repeats = 5) -> None:
    """Every metric on all mask pairs of a dataset, against MONAI computing Dice and HD95 alone."""
    from benchmarks.eval import run

    run(data, repeats)


if __name__ == "__main__":
    app()
