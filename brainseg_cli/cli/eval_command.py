"""brainseg eval."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from brainseg_cli.cli.console import Console, emit, emit_json
from brainseg_cli.cli.options import AsJson, Device, Out, Overwrite, PatientRegex, Quiet, Threshold, Verbose
from brainseg_cli.errors import UsageError
from brainseg_cli.types import SplitName

BATCH_SIZE = 40

if TYPE_CHECKING:
    from brainseg_cli.evaluate import Evaluation


def eval_command(
    run: Annotated[Path | None, typer.Argument(help="What `brainseg train` wrote.")] = None,
    data: Annotated[Path | None, typer.Option(help="The dataset.", show_default="the run's own")] = None,
    split: Annotated[SplitName | None, typer.Option(help="Whom to measure.", show_default="test, else val")] = None,
    reference: Annotated[Path | None, typer.Option(help="Instead of a run: a folder of reference masks ...")] = None,
    prediction: Annotated[Path | None, typer.Option(help="... and a folder of predicted ones.")] = None,
    patients: Annotated[
        Path | None, typer.Option(help="With two folders: only the --split patients of this CSV, e.g. RUN/split.csv.")
    ] = None,
    patient_regex: PatientRegex = None,
    threshold: Threshold = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Slices a batch of dice_batch_soft.")] = BATCH_SIZE,
    out: Out = None,
    device: Device = "auto",
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Measure a run on held-out slices, or one folder of masks against another.

    Writes summary.json, slices.csv and patients.csv and prints their folder: by default report/ in the run
    (report-SPLIT for another split than test), or ./report for two folders. A run's own report is made anew
    each time; with --data, --threshold or --batch-size it is another one, and needs -o or --overwrite.
    """
    console = Console(quiet=quiet, verbose=verbose)
    if (run is None) == (reference is None and prediction is None):
        raise UsageError("give a RUN, or --reference DIR and --prediction DIR")
    if run is None and (reference is None or prediction is None):
        raise UsageError("--reference and --prediction go together")
    if run is not None and (patients or patient_regex):
        raise UsageError("--patients and --patient-regex are for two folders of masks")
    if run is None and (data or threshold is not None):
        raise UsageError("--data and --threshold are for a run; two folders hold masks already")
    from brainseg_cli import evaluate as use_case
    from brainseg_cli.io.atomic import check_absent

    # a run's own report comes out the same each time; with other data or options it would not be that report
    its_own = run is not None and out is None and data is None and threshold is None and batch_size == BATCH_SIZE
    if run is not None:
        target = out or run / ("report" if split in (None, "test") else f"report-{split}")
    else:
        target = out or Path("report")
    check_absent(target, overwrite=overwrite or its_own)
    with console.progress() as progress:
        if run is not None:
            evaluation = use_case.evaluate_run(
                run,
                dataset_path=data,
                split=split,
                threshold=threshold,
                batch_size=batch_size,
                device_name=device,
                progress=progress,
            )
        else:
            assert reference is not None and prediction is not None
            evaluation = use_case.evaluate_folders(
                reference,
                prediction,
                patient_regex=patient_regex,
                patients_from=patients,
                split=split,
                batch_size=batch_size,
                progress=progress,
            )
    use_case.write_report(evaluation, target, overwrite=True)
    print_summary(console, evaluation)
    if as_json:
        emit_json(evaluation.summary | {"report": str(target)})
    else:
        emit(str(target))


def print_summary(console: Console, evaluation: "Evaluation") -> None:
    """Every metric with what finding nothing would score beside it, then what a reader must know."""
    summary = evaluation.summary
    counted, leaky = summary["counted"], " LEAKY" if summary["leaky"] else ""
    where = f"{summary['split']} split" if summary["split"] else "all references"
    console.table(
        f"{where}{leaky}: {counted['patients']} patients ({counted['patients_with_tumour']} with tumour), "
        f"{counted['slices']} slices ({counted['slices_with_tumour']} with tumour)",
        ["metric", "value", "finding nothing"],
        [[name, value, summary["find_nothing"][name]] for name, value in summary["metrics"].items()],
        note="definitions: summary.json and docs/metrics.md",
    )
    for name, definition in summary["definitions"].items():
        console.detail(f"{name}: {definition}")
    for note in summary["notes"]:
        console.warn(note)
