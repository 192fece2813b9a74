"""What `brainseg train` does once it knows what: a run, or a k-fold of them, each trained, measured and drawn."""

import shutil
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from brainseg_cli import train as use_case
from brainseg_cli.cli.console import Console
from brainseg_cli.cli.eval_command import print_summary
from brainseg_cli.cli.resuming import telling_how_to_go_on
from brainseg_cli.cli.train_table import TrainTable
from brainseg_cli.config import Config
from brainseg_cli.data.manifest import load_dataset
from brainseg_cli.errors import DiskError, InputError, Interrupted, OutputExistsError, UsageError
from brainseg_cli.evaluate import Evaluation, conclude, measure_kfold, measure_run, write_report
from brainseg_cli.io.atomic import check_absent, telling
from brainseg_cli.io.locks import lock
from brainseg_cli.models.locate import find_folds
from brainseg_cli.training.launch import find_rank
from brainseg_cli.training.run_folder import RunFolder, is_kfold

OUT_OF_FOLD = "out-of-fold"


@dataclass(frozen=True)
class Asked:
    """How to train; `config` is None where a run is gone on with, which has its own."""

    dataset: Path | None
    config: Config | None
    preset: str
    device: str
    workers: int | None
    verify: bool
    overwrite: bool


def train_run(
    asked: Asked, out: Path, console: Console, *, fold: int | None = None
) -> tuple[use_case.TrainResult, Evaluation] | None:
    """Train a run, or go on with it, and make its report and figures; None in a process that does not lead."""
    # a run that begins says itself from when on there is something to go on with
    waiting = nullcontext() if asked.config is not None else telling_how_to_go_on(out, "interrupted")
    with waiting, TrainTable(console) as observer:
        if asked.config is None:
            result = use_case.resume(
                out,
                observer,
                dataset_path=asked.dataset,
                device_name=asked.device,
                workers=asked.workers,
                verify=asked.verify,
            )
        else:
            assert asked.dataset is not None
            result = use_case.train(
                asked.dataset,
                out,
                asked.config,
                observer,
                preset=asked.preset,
                fold=fold,
                device_name=asked.device,
                workers=asked.workers,
                overwrite=asked.overwrite,
                verify=asked.verify,
            )
    if find_rank() > 0:
        return None
    console.say(f"best epoch {result.best_epoch} of {result.epochs}; measuring it")
    told = "interrupted; it is trained, the report is not made"
    resuming = RunFolder(out).resuming
    with (
        telling_how_to_go_on(out, told),
        telling(out, then=resuming),
        lock(out, "train", then=resuming),
        console.progress() as progress,
    ):
        evaluation = conclude(
            measure_run(
                out,
                dataset_path=asked.dataset,
                device_name=asked.device,
                verify=False,
                tell=console.say,
                progress=progress,
            )
        )
        _write_report(evaluation, out, resuming)
        figures = use_case.draw_run_figures(
            out, dataset_path=asked.dataset, device_name=asked.device, progress=progress
        )
    print_summary(console, evaluation)
    for figure in figures:
        console.say(f"figure: {figure}")
    return result, evaluation


def train_kfold(asked: Asked, out: Path, console: Console) -> Evaluation:
    """Train every fold of a k-fold dataset as a run of its own in `out`, and measure all patients out of fold.

    Where it is gone on with, folds that are done are left as they are, and those that have not begun are trained as the
    others were. OutputExistsError, BusyError and InputError before anything is written; else as `train_run`.
    """
    resuming = RunFolder(out).resuming
    with telling_how_to_go_on(out, "interrupted"), lock(out, "train", then=resuming):
        _refuse_existing(out, asked)
        known = None if asked.config is not None else _read_kfold(out, asked.dataset)
        asked = asked if known is None else replace(asked, dataset=known.dataset)
        assert asked.dataset is not None
        dataset = load_dataset(asked.dataset, verify=asked.verify)
        if not dataset.has_folds:
            raise UsageError("--fold all is for datasets prepared with --split kfold:K; this one is not")
        folds = dataset.slices["split"].nunique()
        if asked.config is not None:
            use_case.begin_model(dataset.with_fold(0, val=asked.config.train.choose == "best"), asked.config)
            _clear(out)  # only now: what cannot be trained leaves what is there
        for fold in range(folds):
            run = RunFolder(out / f"fold{fold}")
            here = replace(asked, verify=False)
            if known is not None:
                if _is_done(run):
                    console.say(f"fold {fold} of {folds} is there")
                    continue
                if not run.info.exists():
                    here = replace(here, config=known.config, preset=known.preset)
            console.say(f"fold {fold} of {folds}")
            try:
                train_run(here, run.path, console, fold=fold)
            except Interrupted as stopped:
                raise Interrupted(stopped.what, where=stopped.where, hint=RunFolder(out).goes_on) from None
            except DiskError as error:
                hint = (error.hint or "").replace(run.resuming, resuming)
                raise DiskError(error.what, where=error.where, hint=hint) from None
        with telling(out, then=resuming), console.progress() as progress:
            side = measure_kfold(
                out,
                keep_in=out / OUT_OF_FOLD,
                dataset_path=asked.dataset,
                device_name=asked.device,
                verify=False,
                tell=console.say,
                progress=progress,
            )
            evaluation = conclude(side)
            _write_report(evaluation, out, resuming)
    print_summary(console, evaluation)
    console.say(f"report: {RunFolder(out).report / 'report.html'}; out of fold: {out / OUT_OF_FOLD}")
    return evaluation


@dataclass(frozen=True)
class _Kfold:
    """What the folds that have begun were trained on and how."""

    dataset: Path
    config: Config
    preset: str


def _read_kfold(out: Path, dataset_path: Path | None) -> _Kfold:
    """InputError where none has begun, where they were not trained alike, or not on this dataset as it is now."""
    runs = [run for fold in find_folds(out) if (run := RunFolder(fold)).info.exists()]
    if not runs:
        raise InputError("holds no fold that has begun", where=out, hint="brainseg train DATASET --fold all begins")
    config, first = runs[0].read_config(), runs[0].read_info()
    for run in runs:
        info, dataset = run.read_info(), run.load_dataset(dataset_path or Path(first.dataset), verify=False)
        if run.read_config() != config:
            raise InputError(f"was not trained as {runs[0].path.name} was", where=run.path)
        if (dataset.info.content_hash, dataset.split_hash()) != (info.dataset_hash, info.split_hash):
            told = f"is not the dataset, or not the split, that {run.path.name} was trained with"
            raise InputError(told, where=dataset.folder)
    return _Kfold(dataset_path or Path(first.dataset), config, first.preset)


def _is_done(run: RunFolder) -> bool:
    """Whether a fold is trained, measured and drawn: its report alone may be an eval's, of half a training."""
    made = (run.figures / "curves.png", run.report / "summary.json", run.figures / "overlays.png")
    return all(path.exists() for path in made)


def _refuse_existing(out: Path, asked: Asked) -> None:
    if RunFolder(out).is_begun:
        raise OutputExistsError("holds a single run, not a k-fold", where=out, hint="give another -o")
    if asked.config is None:
        return
    if is_kfold(out) and not asked.overwrite:
        hint = "--resume goes on with it, --overwrite begins anew"
        raise OutputExistsError("already holds a k-fold", where=out, hint=hint)
    if not is_kfold(out):
        try:
            check_absent(out, overwrite=False)
        except OutputExistsError:
            raise OutputExistsError("holds something else than a k-fold", where=out, hint="give another -o") from None


def _clear(out: Path) -> None:
    """Remove what an older k-fold left, of which the new one may have fewer folds."""
    runs = [fold for fold in find_folds(out) if RunFolder(fold).is_begun]
    for folder in (*runs, RunFolder(out).report, out / OUT_OF_FOLD):
        shutil.rmtree(folder, ignore_errors=True)


def _write_report(evaluation: Evaluation, out: Path, resuming: str) -> None:
    report = RunFolder(out).report
    with lock(report, "train", wait=True, then=resuming):  # an eval may be at it
        write_report(evaluation, report, overwrite=True)
