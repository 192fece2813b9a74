"""brainseg predict."""

import os
import shlex
import time
from collections import Counter
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from brainseg_cli.cli.console import Console, emit_bytes, emit_json
from brainseg_cli.cli.options import (
    AsJson,
    Device,
    DryRun,
    Exclude,
    FailFast,
    Files0From,
    FilesFrom,
    Images,
    Include,
    Name,
    NoVerify,
    Overwrite,
    Quiet,
    RelativeTo,
    RuntimeOption,
    ShardOption,
    Spacing,
    Threshold,
    Verbose,
    Workers,
    open_stdin,
    parse_spacing,
    request_inputs,
)
from brainseg_cli.errors import EXIT_FAILED, EXIT_PARTIAL, Interrupted, UsageError, count
from brainseg_cli.models.built_in import DEFAULT_MODEL, FOLDER
from brainseg_cli.types import Json, MaskFormat, PredictPrecision, ProbsFormat, Tta

if TYPE_CHECKING:
    from brainseg_cli.models.runtimes import Choice
    from brainseg_cli.predict.plan import Plan
    from brainseg_cli.predict.run import Outcome

MASKS_FOLDER = Path("masks")
STDOUT = Path("-")
_MASKS, _OUTPUTS = "Better masks", "Where results go"


def predict_command(
    context: typer.Context,
    images: Images = None,
    model: Annotated[
        list[Path] | None,
        typer.Option(
            "-m",
            "--model",
            help="A run, its model/ folder, a k-fold, an exported file or a built-in model. Several are averaged.",
            envvar="BRAINSEG_MODEL",
            show_default=DEFAULT_MODEL,
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option("-o", "--out", help="The folder for the masks; - writes the one mask to stdout.")
    ] = MASKS_FOLDER,
    files_from: FilesFrom = None,
    files0_from: Files0From = None,
    include: Include = None,
    exclude: Exclude = None,
    relative_to: RelativeTo = None,
    shard: ShardOption = None,
    threshold: Threshold = None,
    tta: Annotated[
        Tta,
        typer.Option(help="Average over mirrored (4) or mirrored and turned (8) views.", rich_help_panel=_MASKS),
    ] = "none",
    largest_component: Annotated[
        bool, typer.Option("--largest-component", help="Keep the largest piece of tumour.", rich_help_panel=_MASKS)
    ] = False,
    min_size: Annotated[
        int,
        typer.Option(
            min=0, help="Drop pieces of fewer pixels (with --volume voxels).", metavar="N", rich_help_panel=_MASKS
        ),
    ] = 0,
    fill_holes: Annotated[
        bool, typer.Option("--fill-holes", help="Fill what tumour encloses.", rich_help_panel=_MASKS)
    ] = False,
    volume: Annotated[
        bool,
        typer.Option(
            "--volume",
            help="Do these three in 3-D, on the slices of a patient (a folder) together.",
            rich_help_panel=_MASKS,
        ),
    ] = False,
    mask_format: Annotated[
        MaskFormat, typer.Option("--format", help="Of the masks.", rich_help_panel=_OUTPUTS)
    ] = "png",
    name: Name = "{stem}",
    probabilities: Annotated[
        Path | None,
        typer.Option(
            help="A folder for maps of probabilities too.",
            metavar="FOLDER",
            show_default=False,
            rich_help_panel=_OUTPUTS,
        ),
    ] = None,
    probabilities_format: Annotated[
        ProbsFormat, typer.Option(help="16 bits (65535 is 1), or float32.", rich_help_panel=_OUTPUTS)
    ] = "png",
    spacing: Spacing = None,
    overwrite: Overwrite = False,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Leave a mask alone that was made from the same image content, model and options."
        ),
    ] = False,
    fail_fast: FailFast = False,
    dry_run: DryRun = False,
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, help="Slices at a time.", envvar="BRAINSEG_BATCH_SIZE", show_default="by machine"),
    ] = None,
    device: Device = "auto",
    runtime: RuntimeOption = "auto",
    precision: Annotated[
        PredictPrecision,
        typer.Option(
            help="auto: fp16 with CUDA; with OpenVINO, on a CPU that multiplies bf16, mixed; where they agree with "
            "fp32, else fp32. mixed, of OpenVINO alone: bf16 products on the inner maps. bf16, not of ONNX Runtime: "
            "all of them; faster, and more pixels change. eval computes in fp32. For --resume, another one that is "
            "named makes masks anew.",
            envvar="BRAINSEG_PRECISION",
        ),
    ] = "auto",
    workers: Workers = None,
    no_verify: NoVerify = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Segment images: a mask (0 and 255, at the image's size) for each, the input tree mirrored below -o.

    Writes one JSON line a slice to stdout as it is done (--json: one object at the end), and the same with what the
    mask was made from, without times, into predictions.jsonl beside the masks; each mask carries it too. A slice that
    fails is named, and listed in failures.jsonl, and the rest is done (exit code 3). Masks are no inputs: neither
    `x_mask.*` beside `x.*`, nor masks/ beside images/.
    """
    console = Console(quiet=quiet, verbose=verbose)
    if not model:
        model = [FOLDER / DEFAULT_MODEL]  # whatever else is called so here
        console.say(f"no -m: the built-in {DEFAULT_MODEL}, for non-commercial use (its card: brainseg info --models)")
    if out == STDOUT and as_json:
        raise UsageError("-o - and --json would both go to stdout", hint="give one of them")
    request = request_inputs(
        images,
        files_from=files_from,
        files0_from=files0_from,
        include=include,
        exclude=exclude,
        relative_to=relative_to,
        shard=shard,
        whole_folders=volume,
    )
    from brainseg_cli.io.locks import lock
    from brainseg_cli.io.sources import open_inputs
    from brainseg_cli.models.locate import find_bundles
    from brainseg_cli.models.runtimes import Choice
    from brainseg_cli.postprocess import Postprocess
    from brainseg_cli.predict.plan import Places, make_plan
    from brainseg_cli.predict.settings import Settings

    for path in model if "-" in (files_from, files0_from) else ():
        find_bundles(path)  # one that is not there is told of before a list on stdin is waited for
    if not dry_run:
        places = [place for place in (out, probabilities) if place is not None and place != STDOUT]
        for folder in {os.path.realpath(place) for place in places}:
            context.with_resource(lock(Path(folder), "predict", share=request.shard and request.shard.name))
    plan = make_plan(
        open_inputs(request, open_stdin()),
        model,
        Places(None if out == STDOUT else out, mask_format, name, probabilities, overwrite, resume, request.shard),
        Settings(
            threshold,
            tta,
            Postprocess(largest_component, min_size, fill_holes),
            volume,
            None if probabilities is None else probabilities_format,
            None if spacing is None else parse_spacing(spacing)[:2],
            precision,
        ),
        verify=not no_verify,
    )
    if dry_run:
        _preview(plan)
        return
    tally = _Tally(plan)
    try:
        choice = Choice(runtime, device, precision)
        _warn_of_missing_folds(model, console)
        _run(plan, tally, console, choice, batch_size, workers, fail_fast=fail_fast, lines=not as_json)
    except KeyboardInterrupt:
        if plan.places.folder is None:
            raise  # nothing is kept
        instead = " instead of --overwrite" if overwrite else ""
        raise Interrupted(
            f"interrupted: {tally.done} of {plan.inputs.total or 'the'} masks are in {out}",
            hint=f"the same command with --resume{instead} does the rest",
        ) from None
    if as_json:
        emit_json(tally.summarise(out))
    tally.tell(console, out)
    if tally.failed:
        raise typer.Exit(EXIT_PARTIAL if tally.done else EXIT_FAILED)


def _preview(plan: "Plan") -> None:
    failed = total = 0
    for record in plan.preview():
        total += 1
        failed += record["status"] == "failed"
        emit_json(record)
    if failed:
        raise typer.Exit(EXIT_PARTIAL if failed < total else EXIT_FAILED)


def _run(
    plan: "Plan",
    tally: "_Tally",
    console: Console,
    choice: "Choice",
    batch_size: int | None,
    workers: int | None,
    *,
    fail_fast: bool,
    lines: bool,
) -> None:
    from brainseg_cli.models.ensemble import open_ensemble
    from brainseg_cli.predict.run import run

    ensemble = open_ensemble(plan.bundles, choice, tell=console.say)
    tally.runtime = ensemble.described
    console.detail(f"runtime: {ensemble.described}")
    if ensemble.leaky:
        console.warn("this model comes from a LEAKY split: the figures it was reported with flatter it")
    for bundle in ensemble.bundles:
        console.detail(f"model: {bundle.model_dump_json(indent=2)}")
    with ExitStack() as stack:
        progress = stack.enter_context(console.progress())
        # closed here, whatever comes: that is when the records are put in order
        outcomes = stack.enter_context(
            closing(run(plan, ensemble, batch_size=batch_size, workers=workers, on_left=tally.add))
        )
        for outcome in outcomes:
            tally.add(outcome)
            record = outcome.record
            if outcome.mask is not None:
                emit_bytes(outcome.mask)
            elif lines and plan.places.folder is not None:
                emit_json(_tell_record(outcome))
            if record["status"] != "ok":
                told, where = record["error"], record["image"]
                console.fail(told if where in told else f"{where}: {told}")
                if fail_fast:
                    break
            progress(tally.done + tally.failed, plan.inputs.total or 0, "segmenting")


def _warn_of_missing_folds(models: list[Path], console: Console) -> None:
    """A k-fold that was interrupted is an ensemble of fewer: that is to be known."""
    from brainseg_cli.models.locate import find_bundles, read_info

    for path in models:
        folds = find_bundles(path)
        wanted = read_info(folds[0]).split.partition("kfold:")[2]
        if folds[0].parent.parent == path and wanted.isdecimal() and len(folds) < int(wanted):
            hint = f"brainseg train --resume -o {shlex.quote(str(path))} trains the others"
            console.warn(f"{path} has {len(folds)} of its {wanted} folds ({hint})")


def _tell_record(outcome: "Outcome") -> Json:
    """The line on stdout: without what the mask was made from, with how long it took."""
    record = {name: value for name, value in outcome.record.items() if name not in ("status", "provenance", "error")}
    record |= {"seconds": None if outcome.seconds is None else round(outcome.seconds, 4)}
    record |= {name: outcome.record[name] for name in ("status", "error") if name in outcome.record}
    return record | ({"unchanged": True} if outcome.unchanged else {})


class _Tally:
    """What has been done so far."""

    def __init__(self, plan: "Plan") -> None:
        from brainseg_cli.models.trained_on import find_patient, find_trained_on

        self.plan = plan
        self.done = self.failed = self.unchanged = self.with_tumour = self.area_px = 0
        self.runtime: str | None = None
        self.ood: Counter[str] = Counter()
        self.unlike = 0
        self.trained_on = find_trained_on([bundle.sha256 for bundle in plan.bundles])
        self.find_patient = find_patient
        self.seen: set[tuple[str, str]] = set()
        self.started = time.perf_counter()

    def add(self, outcome: "Outcome") -> None:
        if outcome.record["status"] != "ok":
            self.failed += 1
            return
        self.done += 1
        self.unchanged += outcome.unchanged
        self.with_tumour += outcome.record["tumour"]
        self.area_px += outcome.record["area_px"]
        self.ood.update(outcome.record["ood"])
        self.unlike += bool(outcome.record["ood"])
        called = outcome.record["patient_id"] or Path(outcome.record["image"]).stem
        whose = ((name, self.find_patient(called, patients)) for name, patients in self.trained_on.items())
        self.seen.update((name, who) for name, who in whose if who is not None)

    def summarise(self, out: Path) -> Json:
        plan = self.plan
        seconds = time.perf_counter() - self.started
        return {
            "images": self.done + self.failed,
            "ok": self.done,
            "unchanged": self.unchanged,
            "failed": self.failed,
            "with_tumour": self.with_tumour,
            "area_px": self.area_px,
            "unlike_training": self.unlike,
            "runtime": self.runtime,
            "out": str(out),
            "predictions": None if plan.places.folder is None else str(plan.places.name_lines("predictions")),
            "failures": str(plan.places.name_lines("failures")) if self.failed and plan.places.folder else None,
            "models": [str(bundle.path) for bundle in plan.bundles],
            "threshold": plan.threshold,
            "seconds": round(seconds, 3),
        }

    def tell(self, console: Console, out: Path) -> None:
        unchanged = f", {self.unchanged} unchanged" if self.unchanged else ""
        where = "" if out == STDOUT else f" in {out}"
        console.say(f"{self.done} of {self.done + self.failed} masks{where}{unchanged}")
        if self.unlike:
            told = ", ".join(f"{reason} {number}" for reason, number in self.ood.most_common())
            console.warn(
                f"{count(self.unlike, 'slice')} unlike what the model was trained on: {told} (`ood` says which)"
            )
        for name, number in Counter(name for name, _ in self.seen).items():
            console.warn(f"{name} was trained on {count(number, 'patient')} of these: no mask of theirs measures it")
        if self.plan.inputs.passed_over:
            console.say(f"{self.plan.inputs.passed_over} masks in the list were passed over")
