"""brainseg predict."""

from pathlib import Path
from typing import Annotated

import typer

from brainseg_cli.cli.console import Console, emit_json
from brainseg_cli.cli.options import Device, Overwrite, Quiet, Threshold, Verbose
from brainseg_cli.errors import EXIT_FAILED, EXIT_PARTIAL
from brainseg_cli.types import MaskFormat

MASKS_FOLDER = Path("masks")
RECORDS = "predictions.jsonl"


def predict_command(
    inputs: Annotated[
        list[str], typer.Argument(help="Images: files, folders (searched through), globs.", metavar="INPUT")
    ],
    model: Annotated[
        Path,
        typer.Option(
            "-m", "--model", help="A run, or the model/ folder of one.", envvar="BRAINSEG_MODEL", show_default=False
        ),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="The folder for the masks.")] = MASKS_FOLDER,
    threshold: Threshold = None,
    mask_format: Annotated[MaskFormat, typer.Option("--format", help="Of the masks.")] = "png",
    batch_size: Annotated[int, typer.Option(min=1, help="Slices at a time.", envvar="BRAINSEG_BATCH_SIZE")] = 16,
    device: Device = "auto",
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Segment images: a mask (0 and 255, at the image's size) for each, the input tree mirrored below -o.

    Writes one JSON line a slice to stdout as it is done, and the same into predictions.jsonl beside the
    masks (with --overwrite begun anew). A slice that fails is named and the rest is done (exit code 3).
    Masks are no inputs: neither `x_mask.*` beside `x.*`, nor masks/ beside images/.
    """
    console = Console(quiet=quiet, verbose=verbose)
    from brainseg_cli import predict as use_case
    from brainseg_cli.io.atomic import check_absent
    from brainseg_cli.io.lines import LinesWriter

    prediction = use_case.plan(
        inputs,
        model,
        out,
        threshold=threshold,
        mask_format=mask_format,
        batch_size=batch_size,
        device_name=device,
        overwrite=overwrite,
    )
    if prediction.bundle.leaky:
        console.warn("this model comes from a LEAKY split: the figures it was reported with flatter it")
    console.detail(f"model: {prediction.bundle.model_dump_json(indent=2)}")
    check_absent(out / RECORDS, overwrite=overwrite)
    failed = 0
    total = len(prediction.inputs)
    with console.progress() as progress, LinesWriter(out / RECORDS) as lines:
        for done, record in enumerate(prediction.run(), 1):
            lines.write(record)
            emit_json(record)
            if record["status"] != "ok":
                failed += 1
                console.fail(
                    f"{record['image']}: {record['error']}"
                    if record["image"] not in record["error"]
                    else record["error"]
                )
            progress(done, total, "segmenting")
    console.say(f"{total - failed} of {total} masks in {out}")
    if failed:
        raise typer.Exit(EXIT_PARTIAL if failed < total else EXIT_FAILED)
