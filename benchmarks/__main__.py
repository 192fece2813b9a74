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


@app.command("predict")
def benchmark_predict(
    data: Data,
    repeats: Repeats = 3,
    model: Annotated[
        Path | None, typer.Option("-m", "--model", help="A run or a model; none is an untrained network of --preset.")
    ] = None,
    preset: Annotated[str, typer.Option(help="Where no --model is given.")] = "default",
    slices: Annotated[int, typer.Option(min=1, help="How many, as TIFF files.")] = 400,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda.")] = "auto",
    runtime: Annotated[str, typer.Option(help="As that of `brainseg predict`.")] = "auto",
    precision: Annotated[str, typer.Option(help="As that of `brainseg predict`.")] = "auto",
    workers: Annotated[int, typer.Option(min=0, help="Of the other sides' loaders.")] = 2,
) -> None:
    """Files to masks, against the bare network, a plain PyTorch loop and MONAI."""
    from benchmarks.predict import run
    from brainseg_cli.models.runtimes import Choice

    choice = Choice(runtime, device, precision)  # type: ignore[arg-type]
    run(data, repeats, model=model, preset=preset, slices=slices, choice=choice, workers=workers)


@app.command("precision")
def benchmark_precision(
    data: Data,
    model: Annotated[Path, typer.Option("-m", "--model", help="A run, a model, or a built-in model's name.")],
    slices: Annotated[int, typer.Option(min=1, help="How many, evenly over the dataset.")] = 300,
) -> None:
    """fp32, mixed and bf16 on a CPU against PyTorch in fp32: time, and how far masks and probabilities are."""
    from benchmarks.precision import run

    run(data, model, slices=slices)


@app.command("train")
def benchmark_train(
    data: Data,
    repeats: Repeats = 3,
    preset: Annotated[str, typer.Option(help="Of the network and of all that is drawn at random.")] = "default",
    image_size: Annotated[int | None, typer.Option(help="The preset's unless told.")] = None,
    encoder: Annotated[str | None, typer.Option(help="The preset's unless told.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="8 on a CPU, else the preset's.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Of one repeat: 12 on a CPU, 100 on a GPU.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda.")] = "auto",
    workers: Annotated[int | None, typer.Option(min=0, help="Of the loaders: as many as cores, at most 8.")] = None,
) -> None:
    """Slices to weights, against the bare step, a plain PyTorch loop and MONAI."""
    from benchmarks.train import run

    run(
        data,
        repeats,
        preset=preset,
        image_size=image_size,
        encoder=encoder,
        batch_size=batch_size,
        steps=steps,
        device_name=device,
        workers=workers,
    )


@app.command("prepare")
def benchmark_prepare(
    data: Annotated[
        Path | None, typer.Option(help="A folder as LGG has it; none is the phantom that `--demo` makes.")
    ] = None,
    repeats: Repeats = 5,
) -> None:
    """A source to a dataset, against the least that must be done and a plain single-threaded script."""
    from benchmarks.prepare import run

    run(data, repeats)


@app.command("soak")
def benchmark_soak(
    data: Data, minutes: Annotated[float, typer.Option(min=0, help="At least; the round that is begun ends.")] = 30
) -> None:
    """The whole path over and over in one process: whether memory, descriptors, threads and children stay flat."""
    from benchmarks.soak import run

    run(data, minutes)


@app.command("memory")
def benchmark_memory(
    data: Data,
    model: Annotated[str, typer.Option("-m", "--model", help="A run, a model, or a built-in model's name.")],
    few: Annotated[int, typer.Option(min=1, help="Inputs of the process that is the measure.")] = 1000,
    many: Annotated[int, typer.Option(min=1, help="Inputs of the one that is held against it.")] = 100_000,
    precision: Annotated[str, typer.Option(help="As that of `brainseg predict`.")] = "auto",
) -> None:
    """The most memory that `brainseg predict` takes over few links to real slices, and over many."""
    from benchmarks.memory import run

    run(data, model, few=few, many=many, precision=precision)


@app.command("startup")
def benchmark_startup(
    model: Annotated[
        Path | None,
        typer.Option("-m", "--model", help="A run or a model to segment one slice with; none leaves it out."),
    ] = None,
    repeats: Repeats = 9,
) -> None:
    """Help, version and one slice, each in a new process, against Python itself and `import torch`."""
    from benchmarks.startup import run

    run(model, repeats)


if __name__ == "__main__":
    app()
