"""brainseg overlay."""

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from brainseg_cli.cli.console import Console, emit, emit_bytes, emit_json
from brainseg_cli.cli.options import (
    AsJson,
    DryRun,
    Exclude,
    FailFast,
    Files0From,
    FilesFrom,
    Images,
    Include,
    Name,
    Overwrite,
    Quiet,
    RelativeTo,
    ShardOption,
    open_stdin,
    request_inputs,
)
from brainseg_cli.errors import EXIT_FAILED, EXIT_PARTIAL, Interrupted, UsageError
from brainseg_cli.types import FigureFormat, Json, Style

if TYPE_CHECKING:
    from brainseg_cli.overlay import Drawing, Outcome

FIGURES_FOLDER, STDOUT = Path("figures"), Path("-")
_INPUTS, _LOOK, _OUTPUTS = "Which images", "What a figure shows", "Where results go"


def overlay_command(
    context: typer.Context,
    images: Images = None,
    masks: Annotated[
        Path | None,
        typer.Option(
            help="The folder of predicted masks; for one image it may be its mask.",
            show_default=False,
            rich_help_panel=_INPUTS,
        ),
    ] = None,
    from_jsonl: Annotated[
        str | None,
        typer.Option(
            help="predict's records instead of INPUT and --masks: what it wrote to stdout, or predictions.jsonl; "
            "- draws them as they come.",
            metavar="FILE",
            show_default=False,
            rich_help_panel=_INPUTS,
        ),
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(
            help="A folder of reference masks, drawn too; x_mask beside x is found.",
            show_default=False,
            rich_help_panel=_INPUTS,
        ),
    ] = None,
    only: Annotated[
        str | None,
        typer.Option(
            help="worst:N, best:N or median:N by the dice of a slice, or tumour: those with any in mask or reference.",
            metavar="WHICH",
            show_default=False,
            rich_help_panel=_INPUTS,
        ),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            help="An eval report that --only goes by.", show_default="the masks themselves", rich_help_panel=_INPUTS
        ),
    ] = None,
    files_from: FilesFrom = None,
    files0_from: Files0From = None,
    include: Include = None,
    exclude: Exclude = None,
    relative_to: RelativeTo = None,
    shard: ShardOption = None,
    style: Annotated[
        Style,
        typer.Option(
            help="Outlines, tinted areas, or hits, misses and false alarms (with --reference).", rich_help_panel=_LOOK
        ),
    ] = "contour",
    alpha: Annotated[
        float, typer.Option(min=0, max=1, help="How strong a tint is, above 0.", rich_help_panel=_LOOK)
    ] = 0.45,
    channel: Annotated[
        int | None,
        typer.Option(
            min=0, help="Show one channel in grey, counted from 0.", show_default="RGB", rich_help_panel=_LOOK
        ),
    ] = None,
    zoom: Annotated[
        bool,
        typer.Option(
            "--zoom-to-lesion",
            help="Cut the slice to its tumour and some margin; with --sheet and --gif to the patient's.",
            rich_help_panel=_LOOK,
        ),
    ] = False,
    label: Annotated[
        bool,
        typer.Option(
            "--label/--no-label",
            help="A title: patient, slice, predicted area, and dice with --reference.",
            rich_help_panel=_LOOK,
        ),
    ] = True,
    out: Annotated[
        Path,
        typer.Option(
            "-o", "--out", help="The folder for the figures; - writes the one to stdout.", rich_help_panel=_OUTPUTS
        ),
    ] = FIGURES_FOLDER,
    sheet: Annotated[
        bool,
        typer.Option(
            "--sheet", help="Instead of a figure a slice, a contact sheet a patient.", rich_help_panel=_OUTPUTS
        ),
    ] = False,
    gif: Annotated[
        bool,
        typer.Option(
            "--gif", help="Instead of a figure a slice, an animation through a patient's.", rich_help_panel=_OUTPUTS
        ),
    ] = False,
    figure_format: Annotated[
        FigureFormat, typer.Option("--format", help="Of figures of a slice.", rich_help_panel=_OUTPUTS)
    ] = "png",
    name: Name = "{stem}",
    overwrite: Overwrite = False,
    fail_fast: FailFast = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Draw predicted masks, and reference masks, on their images: a figure each, the input tree mirrored below -o.

    Prints each figure's path as it is done (--json: one object at the end). A slice without its mask is named and
    the rest is drawn (exit code 3). A patient's slices are those of one folder. Figures go by the images' order,
    those of --only worst:N and best:N from the worst or best on.
    """
    console = Console(quiet=quiet)
    if sheet and gif:
        raise UsageError("--sheet and --gif are two ways to show a patient", hint="one at a time")
    if as_json and out == STDOUT:
        raise UsageError("--json and -o - both write to stdout", hint="name a folder with -o")
    request = request_inputs(
        images,
        files_from=files_from,
        files0_from=files0_from,
        include=include,
        exclude=exclude,
        relative_to=relative_to,
        shard=shard,
        whole_folders=sheet or gif,
    )
    from brainseg_cli.io.locks import lock
    from brainseg_cli.overlay import Look, Places, Sources, overlay
    from brainseg_cli.overlay.choosing import parse_only

    if out != STDOUT and not dry_run:
        context.with_resource(lock(out, "overlay", share=request.shard and request.shard.name))
    drawing = overlay(
        Sources(request, masks, from_jsonl, reference, None if only is None else parse_only(only), report),
        Places(
            None if out == STDOUT else out,
            "sheet" if sheet else "gif" if gif else "figure",
            figure_format,
            name,
            overwrite,
        ),
        Look(style, alpha, channel, zoom, label),
        open_stdin(),
    )
    tally = _Tally(console, lines=not as_json)
    try:
        _draw(drawing, tally, dry_run=dry_run, fail_fast=fail_fast)
    except KeyboardInterrupt:
        of_all = "" if drawing.total is None else f"of {drawing.total} "
        told = f"interrupted: {len(tally.figures)} {of_all}figures are in {out}"
        raise Interrupted(told, hint="the same command with --overwrite draws them all") from None
    if as_json:
        emit_json(tally.summarise())
    for what, count in drawing.passed_over.items():
        if count:
            console.say(f"{count} {what} were passed over")
    if out != STDOUT:
        console.say(f"{len(tally.figures)} figures {'would be ' if dry_run else ''}in {out}")
    if tally.failures:
        raise typer.Exit(EXIT_PARTIAL if tally.figures else EXIT_FAILED)


def _draw(drawing: "Drawing", tally: "_Tally", *, dry_run: bool, fail_fast: bool) -> None:
    with (
        tally.console.progress() as progress,
        closing(drawing.preview() if dry_run else drawing.run()) as outcomes,
    ):
        for done, outcome in enumerate(outcomes, 1):
            tally.add(outcome)
            if fail_fast and tally.failures:
                return
            progress(done, drawing.total or 0, "drawing")


class _Tally:
    """What has been done so far; says each as it is done, with `lines` on stdout."""

    def __init__(self, console: Console, *, lines: bool) -> None:
        self.console, self._lines = console, lines
        self.figures: list[str] = []
        self.failures: list[Json] = []

    def add(self, outcome: "Outcome") -> None:
        for failure in outcome.failures:
            self.failures.append({"image": failure.where, "error": failure.reason})
            self.console.fail(str(failure))
        if outcome.figure is None:
            return
        self.figures.append(str(outcome.figure))
        if outcome.data is not None:
            emit_bytes(outcome.data)
        elif self._lines:
            emit(str(outcome.figure))

    def summarise(self) -> Json:
        return {"figures": self.figures, "failures": self.failures}
