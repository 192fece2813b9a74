"""brainseg eval."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from brainseg_cli.cli.console import Console, emit, emit_json
from brainseg_cli.cli.options import (
    AsJson,
    Device,
    NoVerify,
    Out,
    Overwrite,
    PatientRegex,
    Quiet,
    RuntimeOption,
    Verbose,
    Workers,
    parse_spacing,
)
from brainseg_cli.errors import EXIT_GATE, OutputExistsError, UsageError
from brainseg_cli.types import SplitName

if TYPE_CHECKING:
    from brainseg_cli.evaluate import Evaluation

BATCH_SIZE = 40
HALF = 0.5
FOLDERS, GROUPS, GATES = "Two folders of masks", "Groups and comparison", "Gates"
OF_FOLDERS = (
    "patients", "patient_regex", "reference_suffix", "prediction_suffix", "missing_as_empty", "images",
)  # fmt: skip
OF_ANOTHER_REPORT = ("out", "data", "threshold", "spacing", "tolerance", "compare", "metadata", "by")


def eval_command(
    context: typer.Context,
    run: Annotated[Path | None, typer.Argument(help="What `brainseg train` wrote, a k-fold too.")] = None,
    data: Annotated[Path | None, typer.Option(help="The dataset.", show_default="the run's own")] = None,
    split: Annotated[SplitName | None, typer.Option(help="Whom to measure.", show_default="test, else val")] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Least probability of tumour. With two folders: the predictions are probability maps.",
            show_default="the model's",
        ),
    ] = None,
    spacing: Annotated[
        str | None,
        typer.Option(
            metavar="ROW,COLUMN,SLICE",
            help="Millimetres between neighbouring rows, columns and slices: distances in mm, and in 3-D by patient.",
            show_default="distances in px",
        ),
    ] = None,
    tolerance: Annotated[
        list[float] | None, typer.Option(min=0.0, help="Of an nsd, in px or mm; may be repeated.", show_default="1, 2")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Slices a batch of dice_batch_soft.")] = BATCH_SIZE,
    reference: Annotated[
        Path | None,
        typer.Option(help="Instead of a run: a folder of reference masks ...", rich_help_panel=FOLDERS),
    ] = None,
    prediction: Annotated[
        Path | None,
        typer.Option(help="... and a folder of predicted ones, or of probability maps.", rich_help_panel=FOLDERS),
    ] = None,
    reference_suffix: Annotated[
        str,
        typer.Option(
            help="How the stems of references end, e.g. _seg; others are passed over.", rich_help_panel=FOLDERS
        ),
    ] = "",
    prediction_suffix: Annotated[
        str, typer.Option(help="How the stems of predictions end, e.g. _pred.", rich_help_panel=FOLDERS)
    ] = "",
    missing_as_empty: Annotated[
        bool,
        typer.Option(
            "--missing-as-empty", help="A missing prediction is a mask without tumour.", rich_help_panel=FOLDERS
        ),
    ] = False,
    images: Annotated[
        Path | None,
        typer.Option(help="The slices, for the report.", show_default="beside the references", rich_help_panel=FOLDERS),
    ] = None,
    patients: Annotated[
        Path | None,
        typer.Option(help="Only the --split patients of this CSV, e.g. RUN/split.csv.", rich_help_panel=FOLDERS),
    ] = None,
    patient_regex: PatientRegex = None,
    compare: Annotated[
        Path | None,
        typer.Option(help="Another run, or another folder of predictions, on the same slices.", rich_help_panel=GROUPS),
    ] = None,
    metadata: Annotated[
        Path | None, typer.Option(help="A CSV with a row a patient, whose columns make groups.", rich_help_panel=GROUPS)
    ] = None,
    by: Annotated[
        list[str] | None,
        typer.Option(
            help="A column of --metadata; may be repeated.", show_default="all that make groups", rich_help_panel=GROUPS
        ),
    ] = None,
    fail_under: Annotated[
        list[str] | None,
        typer.Option(metavar="METRIC=VALUE", help="Exit 4 where the metric is less.", rich_help_panel=GATES),
    ] = None,
    fail_over: Annotated[
        list[str] | None,
        typer.Option(metavar="METRIC=VALUE", help="Exit 4 where the metric is more.", rich_help_panel=GATES),
    ] = None,
    out: Out = None,
    device: Device = "auto",
    runtime: RuntimeOption = "auto",
    workers: Workers = None,
    no_verify: NoVerify = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Measure a run on held-out slices, or one folder of masks against another.

    Writes summary.json, slices.csv, patients.csv, lesions.csv, report.html and report.md and prints their folder:
    by default report/ in the run (report-SPLIT for another split than test), or ./report for two folders. A run's
    own report is made anew each time, with its gates; an option that changes its numbers needs -o or --overwrite.
    Exit code 4: a gate was not met; the report is there all the same.
    """
    console = Console(quiet=quiet, verbose=verbose)
    _check_usage(context)
    from brainseg_cli import evaluate as use_case
    from brainseg_cli.data.groups import read_metadata
    from brainseg_cli.io.atomic import check_absent
    from brainseg_cli.io.locks import lock
    from brainseg_cli.metrics.gates import check_names, parse_gate, tell_gate
    from brainseg_cli.metrics.measure import TOLERANCES, Ruler
    from brainseg_cli.metrics.summary import list_metrics
    from brainseg_cli.training.run_folder import RunFolder, is_kfold

    ruler = Ruler(None if spacing is None else parse_spacing(spacing), tuple(tolerance) if tolerance else TOLERANCES)
    ruler.check()
    gates = [parse_gate(text, "under") for text in fail_under or ()]
    gates += [parse_gate(text, "over") for text in fail_over or ()]
    check_names(gates, list_metrics(ruler, probabilities=run is not None or threshold is not None))
    # what is wrong with these is said before the work
    if metadata is not None:
        read_metadata(metadata, (), by or ())
    if run is not None and is_kfold(run):
        if split not in (None, "test"):
            raise UsageError("of a k-fold the test splits of all folds are measured", hint=f"one fold: {run}/fold0")
        if compare is not None and not is_kfold(compare):
            raise UsageError("a k-fold is compared with another k-fold", hint=f"one fold: {run}/fold0")
    elif run is not None and compare is not None:
        RunFolder(compare).read_info()
    target = out or _place_report(run, split)
    if target.is_file():
        raise OutputExistsError("is a file, the report is a folder", where=target, hint="give another -o")
    context.with_resource(lock(target, "eval"))
    check_absent(target, overwrite=overwrite or _is_own_report(context))

    with console.progress() as progress:
        common: dict[str, Any] = {
            "threshold": threshold, "ruler": ruler, "workers": workers, "progress": progress,
        }  # fmt: skip
        against = None
        if run is not None:
            common |= {"device_name": device, "runtime": runtime, "verify": not no_verify, "tell": console.say}
            common |= {"dataset_path": data}
            if is_kfold(run):
                side = use_case.measure_kfold(run, **common)
                if compare is not None:
                    against = use_case.measure_kfold(compare, **common)
            else:
                side = use_case.measure_run(run, split=split, **common)
                if compare is not None:
                    against = use_case.measure_run(compare, on_slices_of=run, split=side.split, **common)
        else:
            assert reference is not None and prediction is not None
            common |= {name: context.params[name] for name in OF_FOLDERS} | {"split": split}
            side = use_case.measure_folders(reference, prediction, **common)
            if compare is not None:
                against = use_case.measure_folders(reference, compare, **common)
    evaluation = use_case.conclude(
        side, against=against, metadata=metadata, by=by or (), gates=gates, batch_size=batch_size
    )
    print_summary(console, evaluation)  # first: these are not lost where the disk is full
    use_case.write_report(evaluation, target, overwrite=True)
    console.say(f"report: {target / 'report.html'}")
    results = evaluation.summary["gates"]
    for result in results:
        (console.say if result["met"] else console.fail)(tell_gate(result))
    if as_json:
        emit_json(evaluation.summary | {"report": str(target)})
    else:
        emit(str(target))
    if not all(result["met"] for result in results):
        raise typer.Exit(EXIT_GATE)


def print_summary(console: Console, evaluation: "Evaluation") -> None:
    """Every metric with its interval and what finding nothing would score beside it, then what a reader must know."""
    from brainseg_cli.report.wording import tell_one_empty

    summary = evaluation.summary
    counted, leaky = summary["counted"], " LEAKY" if summary["leaky"] else ""
    where = f"{summary['split']} split" if summary["split"] else "all references"
    if summary.get("folds"):
        where = f"out of {summary['folds']} folds"
    at_half = summary["at_half"] if summary["threshold"] != HALF else None
    rows = [
        [name, value, _tell_interval(summary["intervals"][name]), summary["find_nothing"][name]]
        + ([at_half.get(name)] if at_half else [])
        for name, value in summary["metrics"].items()
    ]
    console.table(
        f"{where}{leaky}: {counted['patients']} patients ({counted['patients_with_tumour']} with tumour), "
        f"{counted['slices']} slices ({counted['slices_with_tumour']} with tumour)"
        + (f", threshold {summary['threshold']:g}" if summary["threshold"] is not None else ""),
        ["metric", "value", "95 % interval", "nothing", *(["at 0.5"] if at_half else [])],
        rows,
        note="nothing: what finding nothing scores; definitions: summary.json and docs/metrics.md",
    )
    for names, told in tell_one_empty(summary):
        console.say(f"{names}: {told} count as the diagonal, or 0 in an nsd")
    for name, definition in summary["definitions"].items():
        console.detail(f"{name}: {definition}")
    if summary["comparison"]:
        _print_comparison(console, summary["comparison"])
    for note in summary["notes"]:
        console.warn(note)


def _print_comparison(console: Console, comparison: dict[str, Any]) -> None:
    """The metrics that a patient has; the others are in summary.json."""
    console.table(
        f"a: {comparison['a']}, b: {comparison['b']}" + (" LEAKY" if comparison["leaky"] else ""),
        ["metric", "a", "b", "a - b", "95 % interval", "a wins", "p"],
        [
            [
                name,
                *(_tell(comparison["metrics"][name][key]) for key in ("a", "b", "difference")),
                _tell_interval(comparison["metrics"][name]["interval"]),
                f"{tested['wins']} of {tested['pairs']}",
                _tell(tested["wilcoxon_p"]),
            ]
            for name, tested in comparison["patients"].items()
        ],
        note="p: Wilcoxon's signed-rank test over patients, two-sided",
    )


def _tell(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def _tell_interval(interval: list[float] | None) -> str:
    return "-" if interval is None else " to ".join(map(_tell, interval))


def _check_usage(context: typer.Context) -> None:
    given = _list_given(context)
    if ("run" in given) == bool(given & {"reference", "prediction"}):
        raise UsageError("give a RUN, or --reference DIR and --prediction DIR")
    if "run" not in given and not {"reference", "prediction"} <= given:
        raise UsageError("--reference and --prediction go together")
    refused = given & (set(OF_FOLDERS) if "run" in given else {"data", "device", "runtime", "no_verify"})
    if refused:
        named = ", ".join("--" + name.replace("_", "-") for name in sorted(refused))
        raise UsageError(f"{named} cannot be given with {'a run' if 'run' in given else 'two folders of masks'}")
    if "by" in given and "metadata" not in given:
        raise UsageError("--by names a column of --metadata, which is not given")


def _list_given(context: typer.Context) -> set[str]:
    """What was typed, also where it is 0 or nothing."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return {name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"}


def _is_own_report(context: typer.Context) -> bool:
    """Whether this is the report that a run has anyway, which comes out the same each time but for its gates."""
    given = _list_given(context)
    return "run" in given and given.isdisjoint(OF_ANOTHER_REPORT) and context.params["batch_size"] == BATCH_SIZE


def _place_report(run: Path | None, split: SplitName | None) -> Path:
    if run is None:
        return Path("report")
    return run / ("report" if split in (None, "test") else f"report-{split}")
