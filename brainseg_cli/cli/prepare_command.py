"""brainseg prepare."""

import os
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from brainseg_cli.cli.console import Console, emit, emit_json
from brainseg_cli.cli.demo import DEMO_FOLDER, write_demo
from brainseg_cli.cli.options import AsJson, Out, Overwrite, PatientRegex, Quiet, Verbose, Workers
from brainseg_cli.errors import EXIT_FAILED, EXIT_PARTIAL, InputError, UsageError, count
from brainseg_cli.types import Layout, ZipBounds

if TYPE_CHECKING:
    from brainseg_cli.prepare import Preparation

BOUNDS = ZipBounds()
ZIP = "What a zip may hold"


def prepare_command(
    source: Annotated[Path | None, typer.Argument(help="A folder of slices and masks, or a zip of one.")] = None,
    out: Out = None,
    layout: Annotated[
        Layout, typer.Option(help="lgg: x.tif beside x_mask.tif; folders: images/ and masks/; auto: by looking.")
    ] = "auto",
    patient_regex: PatientRegex = None,
    split: Annotated[
        str,
        typer.Option(help="70/15/15 (train/val/test), kfold:5, lgg10, a CSV of patient_id and split, slice-random."),
    ] = "70/15/15",
    seed: Annotated[int, typer.Option(min=0, help="Of the split.", envvar="BRAINSEG_SEED")] = 0,
    allow_leakage: Annotated[
        bool, typer.Option("--allow-leakage", help="Accept slice-random; all made from it is marked leaky.")
    ] = False,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave out unreadable and unpaired files instead of stopping; exit 3.")
    ] = False,
    check: Annotated[bool, typer.Option("--check", help="Look for problems only; write nothing.")] = False,
    max_zip_entries: Annotated[
        int, typer.Option(min=1, help="Most entries of a zip.", metavar="N", rich_help_panel=ZIP)
    ] = BOUNDS.entries,
    max_zip_gb: Annotated[
        float, typer.Option(min=0, help="Most gigabytes that its images may unpack to.", rich_help_panel=ZIP)
    ] = BOUNDS.unpacked_bytes / 1e9,
    max_zip_ratio: Annotated[
        float, typer.Option(min=1, help="And how many times its own size at most.", rich_help_panel=ZIP)
    ] = BOUNDS.ratio,
    demo: Annotated[bool, typer.Option("--demo", help="Make the phantom data set and prepare that.")] = False,
    workers: Workers = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Check a folder or zip of slices with masks, split it by patient, and write a dataset.

    Prints the dataset's path. By default it is data/NAME, NAME being the source's.
    """
    console = Console(quiet=quiet, verbose=verbose)
    if (source is None) != demo:
        raise UsageError(
            "give a SOURCE, or --demo" if source is None else "--demo makes its own source: give one of the two"
        )
    from brainseg_cli import prepare as use_case

    if demo:
        out = out or DEMO_FOLDER / "dataset"
    target = out or Path("data") / Path(os.path.realpath(source or "")).name.removesuffix(".zip")
    real = os.path.realpath(source or "")
    if not check and source is not None and Path(real).is_relative_to(os.path.realpath(target)):
        raise UsageError(f"{target} would replace its own source", hint="give another -o")
    with nullcontext() if check else use_case.new_dataset(target, overwrite=overwrite) as folder:
        with console.progress() as progress:
            chosen = write_demo(DEMO_FOLDER, progress=progress) if source is None else source
            preparation = use_case.check(
                chosen,
                layout=layout,
                patient_regex=patient_regex,
                split=split,
                seed=seed,
                allow_leakage=allow_leakage,
                skip_bad=skip_bad,
                bounds=ZipBounds(max_zip_entries, int(max_zip_gb * 1e9), max_zip_ratio),
                into=folder,
                workers=workers,
                progress=progress,
            )
        _tell(console, preparation)
        info = preparation.info
        if folder is not None:
            if preparation.errors:
                raise InputError(
                    f"{count(len(preparation.errors), 'problem')}, named above; nothing was written",
                    where=chosen,
                    hint="mend them; --skip-bad leaves unreadable and unpaired files out",
                )
            with console.progress() as progress:
                info = use_case.complete_dataset(preparation, folder, workers=workers, progress=progress)
    if as_json:
        emit_json(
            {
                **info.model_dump(mode="json"),
                "dataset": None if check else str(target),
                "errors": preparation.errors,
            }
        )
    elif not check:
        emit(str(target))
    if preparation.errors:
        raise typer.Exit(EXIT_FAILED)
    if preparation.skipped:
        console.warn(f"{count(preparation.skipped, 'file')} left out")
        raise typer.Exit(EXIT_PARTIAL)


def _tell(console: Console, preparation: "Preparation") -> None:
    """Every warning and every problem, and who is in which split."""
    from brainseg_cli.prepare import summarise_splits

    info = preparation.info
    for warning in info.warnings:
        console.warn(warning)
    for line in preparation.errors:
        console.fail(line)
    table = summarise_splits(preparation.slices)
    console.table(
        f"{info.patients} patients, {info.slices} slices, "
        f"{info.tumour_slices} with tumour ({info.layout} layout, split {info.split}"
        + (", LEAKY)" if info.leaky else ")"),
        [column.replace("_", " ") for column in table.columns],
        table.to_numpy(dtype=object).tolist(),
        note="median tumour px: of a patient with tumour, over all of its slices",
    )
    for name, stats in zip(info.channel_names, info.intensity, strict=False):
        console.detail(f"channel {name}: {stats}")
