"""A training from its first step, or from where it stopped, to its best weights, its threshold and its curves."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import torch
from torch import nn

from brainseg_cli import __version__
from brainseg_cli.config import DEFAULT_PRESET, Config
from brainseg_cli.data.manifest import Dataset, load_dataset
from brainseg_cli.errors import DiskError, InputError, Interrupted, OutputExistsError, UsageError
from brainseg_cli.io.atomic import check_absent, find_remedy, remove, telling
from brainseg_cli.io.locks import lock
from brainseg_cli.models.build import build_model, check_trainable, count_parameters
from brainseg_cli.models.bundle import save_bundle
from brainseg_cli.models.devices import choose_precision, describe_device, deterministic
from brainseg_cli.models.locate import BundleInfo
from brainseg_cli.train.conclude import conclude
from brainseg_cli.training.distributed import ALONE, World, join
from brainseg_cli.training.engine import THRESHOLD, Engine, Observer
from brainseg_cli.training.faults import explaining
from brainseg_cli.training.loader import find_smallest_batch
from brainseg_cli.training.run_folder import RunFolder, RunInfo
from brainseg_cli.training.state import TrainingState, load_newest, save_state

MAX_WORKERS = 8


@dataclass(frozen=True)
class TrainResult:
    """How a training ended. `best_val_dice_patient` is None where no val patient has tumour."""

    run: Path
    epochs: int
    best_epoch: int
    best_val_dice_patient: float | None
    stopped_early: bool


def train(
    dataset_path: Path,
    out: Path,
    config: Config,
    observer: Observer,
    *,
    preset: str = DEFAULT_PRESET,
    fold: int | None = None,
    device_name: str = "auto",
    workers: int | None = None,
    overwrite: bool = False,
    verify: bool = True,
) -> TrainResult:
    """Train from the start. The run folder fills as it goes; an interrupted run goes on with `resume`.

    Where a launcher has started several processes they train together, each batch shared out among them. The
    first alone writes and tells the observer; when it returns, what is made of the run is for it to make.

    BusyError where another command is writing `out`; OutputExistsError where it holds something and not `overwrite`;
    InputError, UsageError and DownloadError before anything is written; TrainingError when the optimisation cannot go
    on; DiskError, with the last state and the best weights kept, where nothing more can be written; Interrupted for a
    KeyboardInterrupt, once what there is has been saved.
    """
    world, device = join(device_name)
    observer = observer if world.leads else _Nobody()
    with _writing(RunFolder(out), world):
        if world.leads:
            _refuse_existing(out, overwrite=overwrite)
        dataset = load_dataset(dataset_path, verify=verify and world.leads)
        dataset = dataset.with_fold(fold, val=config.train.choose == "best")
        model = begin_model(dataset, config, world)
        info = RunInfo(
            brainseg_version=__version__,
            torch_version=torch.__version__,
            dataset=str(dataset_path.absolute()),
            dataset_hash=dataset.info.content_hash,
            split=dataset.info.split,
            split_hash=dataset.split_hash(),
            fold=fold,
            leaky=dataset.info.leaky,
            device=_describe(device, world),
            precision=choose_precision(config.train.precision, device),
            parameters=count_parameters(model),
            preset=preset,
            started=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        run = RunFolder(out)
        if world.leads:
            _begin(run, config, info, dataset)
        return _run(run, model, dataset, config, info, world, device, observer, workers, state=None)


def begin_model(dataset: Dataset, config: Config, world: World = ALONE) -> nn.Module:
    """The network as `train` begins with it, seeded; `dataset` has train, val and test.

    UsageError where it, or the dataset, cannot be trained on as `config` says; DownloadError as `build_model`.
    """
    _check_trainable(dataset)
    _check_shares(dataset, config, world)
    torch.manual_seed(config.train.seed)
    size, channels = config.preprocess.size, len(dataset.info.channel_names)
    model = build_model(config.model, channels)
    check_trainable(model, (find_smallest_batch(dataset, config), channels, size, size))
    return model


def resume(
    out: Path,
    observer: Observer,
    *,
    dataset_path: Path | None = None,
    device_name: str = "auto",
    workers: int | None = None,
    verify: bool = True,
) -> TrainResult:
    """Go on with an interrupted run, exactly: same slices, same order, same weights as if it had not stopped.

    Where nothing was saved yet it starts again, where the newest state is damaged it goes on from the one before, and
    says so; the bundle is made anew of what the state has. Of a run that is complete the weights stay, and its
    threshold is chosen again, as it was or, in a run of before there was one, for the first time. The number of
    processes may be another: it changes what is computed by rounding alone.
    InputError where `out` is no run, where the dataset is not the one it began with, or for a state that cannot be
    used; the others as `train`.
    """
    world, device = join(device_name)
    observer = observer if world.leads else _Nobody()
    run = RunFolder(out)
    with _writing(run, world):
        info, config = run.read_info(), run.read_config()
        if world.leads:
            _sweep(run)
        dataset = run.load_dataset(dataset_path, verify=verify and world.leads)
        if (dataset.info.content_hash, dataset.split_hash()) != (info.dataset_hash, info.split_hash):
            raise InputError("is not the dataset, or not the split, that this run began with", where=dataset.folder)
        _check_shares(dataset, config, world)
        torch.manual_seed(config.train.seed)
        state = load_newest(run.state, observer.on_message)
        # trained weights come from the state: what the encoder started from need not be fetched again
        model_config = config.model.model_copy(update={"encoder_weights": "none"}) if state else config.model
        model = build_model(model_config, len(dataset.info.channel_names))
        return _run(run, model, dataset, config, info, world, device, observer, workers, state=state)


def _run(
    run: RunFolder,
    model: nn.Module,
    dataset: Dataset,
    config: Config,
    info: RunInfo,
    world: World,
    device: torch.device,
    observer: Observer,
    workers: int | None,
    *,
    state: TrainingState | None,
) -> TrainResult:
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    if workers is None:
        # on a CPU the network has every core already; a GPU would wait for the slices
        cores = (os.cpu_count() or 1) // world.local_size
        workers = max(1, min(MAX_WORKERS, cores)) if device.type == "cuda" else 0
    engine = None
    with (
        explaining(config.train, device, go_on=run.goes_on),
        deterministic(config.train.deterministic),
        _logging(run, leads=world.leads) as log,
    ):
        try:
            _tell_start(log, run, dataset, config, info, world, device, state)
            if not len(dataset.rows("val")) and config.train.choose == "best":
                observer.on_message("there is no val split: the best epoch is chosen on the slices that are trained on")
            copied, names = config.augment.copied_channel, dataset.info.channel_names
            if config.augment.channel_copy and len(names) > 1 and copied not in names:
                observer.on_message(f"no channel is called {copied}: none is copied (augment.copied_channel)")
            engine = Engine(model, dataset, config, device, observer, workers=workers, state=state, world=world)
            final = engine.run(partial(_keep_best, run, dataset, config, info, world), partial(_save, run, world, log))
            world.leave()
            score = final.rows[final.best_epoch - 1]["val_dice_patient"]
            result = TrainResult(
                run.path, final.epoch, final.best_epoch, score if score == score else None, final.stopped_early
            )
            if world.leads:
                conclude(run, dataset, device, observer, best_epoch=final.best_epoch)
        except KeyboardInterrupt:
            epoch, batch = engine.saved if engine is not None else (state.epoch, state.position) if state else (0, 0)
            saved = f"epoch {epoch + 1} is saved up to its batch {batch}" if batch else f"epoch {epoch} is saved"
            told = saved if epoch or batch else "nothing was saved yet"
            raise Interrupted(f"interrupted; {told}", where=run.path, hint=run.goes_on) from None
    return result


def _tell_start(
    log: logging.Logger,
    run: RunFolder,
    dataset: Dataset,
    config: Config,
    info: RunInfo,
    world: World,
    device: torch.device,
    state: TrainingState | None,
) -> None:
    """What goes on and where, in the log; the tables as the state has them: it may have been stopped between them."""
    begun = f"going on after epoch {state.epoch} and {state.position} batches" if state else "starting"
    log.info(
        "%s: %s, %s, %s, %d parameters",
        begun,
        config.model.encoder,
        _describe(device, world),
        choose_precision(config.train.precision, device),
        info.parameters,
    )
    log.info("slices: %s", {split: len(dataset.rows(split)) for split in ("train", "val", "test")})
    if state is not None and state.rows and world.leads:
        run.write_epochs(state.rows, state.timings)


def _keep_best(
    run: RunFolder,
    dataset: Dataset,
    config: Config,
    info: RunInfo,
    world: World,
    best: nn.Module,
    row: dict[str, float],
) -> None:
    if not world.leads:
        return
    score = row["val_dice_patient"]
    bundle = BundleInfo(
        brainseg_version=__version__,
        torch_version=torch.__version__,
        preprocess=config.preprocess,
        threshold=THRESHOLD,
        channel_names=dataset.info.channel_names,
        encoder_weights=config.model.encoder_weights,
        dataset_hash=info.dataset_hash,
        split=info.split,
        split_hash=info.split_hash,
        leaky=info.leaky,
        epoch=int(row["epoch"]),
        val_dice_patient=score if score == score else None,
    )
    save_bundle(run.model, best, bundle)


def _save(run: RunFolder, world: World, log: logging.Logger, state: TrainingState) -> None:
    if not world.leads:
        return
    save_state(run.state, state)
    if state.position:  # within an epoch the tables have nothing new
        return
    run.write_epochs(state.rows, state.timings)
    log.info(" ".join(f"{name}={value:.6g}" for name, value in (state.rows[-1] | state.timings[-1]).items()))


def _refuse_existing(out: Path, *, overwrite: bool) -> None:
    if overwrite and out.is_dir() and any(out.iterdir()) and not RunFolder(out).is_begun:
        raise OutputExistsError("holds something else than a run", where=out, hint="give another -o")
    try:
        check_absent(out, overwrite=overwrite)
    except OutputExistsError as error:
        if RunFolder(out).info.exists():
            raise OutputExistsError(
                "already holds a run", where=out, hint="--resume goes on with it, --overwrite begins anew"
            ) from None
        raise error from None


@contextmanager
def _writing(run: RunFolder, world: World) -> Iterator[None]:
    """By this command alone; of its processes, by the first. A disk that gives out ends it with how to go on."""
    if not world.leads:
        yield
        return
    with lock(run.path, "train"):
        try:
            yield
        except OSError as error:  # any other than a disk's is told as it is
            if (hint := find_remedy(error, run.resuming)) is None:
                raise
            told = f"cannot be written: {error.strerror or error}"
            raise DiskError(told, where=error.filename or run.path, hint=hint) from None


def _begin(run: RunFolder, config: Config, info: RunInfo, dataset: Dataset) -> None:
    """Make the folder a run that has not trained yet; where that cannot be written whole, nothing of it is left."""
    try:
        with telling(run.path):
            run.clear()
            run.write_start(config, info, dataset)
    except BaseException:  # an interrupt too: half a start is no run
        for path in (run.info, run.config, run.split):
            with suppress(OSError):
                remove(path)
        with suppress(OSError):  # it holds something else
            run.path.rmdir()
        raise


def _sweep(run: RunFolder) -> None:
    """Remove what a kill left written aside; the run is this command's alone, its report may be another's."""
    for folder in (run.path, run.model, run.state.parent, run.figures):
        for left in folder.glob(".*.partial"):
            with suppress(OSError):
                left.unlink()


def _check_trainable(dataset: Dataset) -> None:
    if not len(dataset.rows("train")):
        raise UsageError("the dataset has no slice to train on", hint="prepare it with another --split")
    if not (dataset.slices["tumour_px"].to_numpy()[dataset.rows("train")] > 0).any():
        raise UsageError("no training slice has tumour: there is nothing to learn")


def _check_shares(dataset: Dataset, config: Config, world: World) -> None:
    if world.size > 1 and (smallest := find_smallest_batch(dataset, config)) < world.size:
        raise UsageError(
            f"a batch of {smallest} slices cannot be shared out among {world.size} processes",
            hint="train.batch_size is the batch of all of them: a larger one, or fewer --devices",
        )


def _describe(device: torch.device, world: World) -> str:
    return describe_device(device) + (f", {world.size} processes" if world.size > 1 else "")


class _Nobody:
    """The observer of a process that does not lead."""

    def on_step(self, epoch: int, step: int, steps: int, images_per_s: float) -> None: ...

    def on_epoch(self, row: dict[str, float], *, best: bool, epochs: int) -> None: ...

    def on_message(self, text: str) -> None: ...


@contextmanager
def _logging(run: RunFolder, *, leads: bool) -> Iterator[logging.Logger]:
    """train.log, to which the process that leads adds."""
    log = logging.getLogger(f"brainseg.train.{run.path.absolute()}")
    log.setLevel(logging.INFO)
    log.propagate = False
    run.path.mkdir(parents=True, exist_ok=True)
    handler: logging.Handler = _LogFile(run.log, encoding="utf-8") if leads else logging.NullHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    log.addHandler(handler)
    try:
        yield log
    finally:
        log.removeHandler(handler)
        with suppress(OSError):  # a line that could not be written, once more
            handler.close()


class _LogFile(logging.FileHandler):
    """A line that cannot be written is an error as any other; the module's own way is to print a traceback."""

    def handleError(self, record: logging.LogRecord) -> None:
        raise
