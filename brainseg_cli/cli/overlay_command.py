"""brainseg overlay."""

from pathlib import Path
from typing import Annotated

import typer

from brainseg_cli.cli.console import Console, emit, emit_json
from brainseg_cli.cli.options import AsJson, Overwrite, Quiet
from brainseg_cli.errors import EXIT_FAILED, EXIT_PARTIAL

FIGURES_FOLDER = Path("figures")


def overlay_command(
    inputs: Annotated[
        list[str], typer.Argument(help="Images: files, folders (searched through), globs.", metavar="INPUT")
    ],
    masks: Annotated[Path, typer.Option(help="The folder of predicted masks.", show_default=False)],
    out: Annotated[Path, typer.Option("-o", "--out", help="The folder for the figures.")] = FIGURES_FOLDER,
    reference: Annotated[
        Path | None, typer.Option(help="A folder of reference masks, drawn too; x_mask beside x is found.")
    ] = None,
    channel: Annotated[
        int | None, typer.Option(min=0, help="Show one channel in grey, counted from 0.", show_default="RGB")
    ] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Draw the outline of predicted masks, and of reference masks, on their images; a PNG each.

    Prints the figures' paths. An image without its mask is named and the rest is drawn (exit code 3).
    """
    console = Console(quiet=quiet)
    from brainseg_cli.overlay import overlay

    with console.progress() as progress:
        result = overlay(
            inputs, masks, out, reference=reference, channel=channel, overwrite=overwrite, progress=progress
        )
    for path, reason in result.failures:
        console.fail(reason if str(path) in reason else f"{path}: {reason}")
    if as_json:
        emit_json(
            {
                "figures": [str(path) for path in result.written],
                "failures": [{"image": str(path), "error": reason} for path, reason in result.failures],
            }
        )
    else:
        for path in result.written:
            emit(str(path))
    console.say(f"{len(result.written)} figures in {out}")
    if result.failures:
        raise typer.Exit(EXIT_PARTIAL if result.written else EXIT_FAILED)
