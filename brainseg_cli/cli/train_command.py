"""brainseg train."""

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from brainseg_cli.cli.console import Console, emit, emit_json
from brainseg_cli.cli.demo import DEMO_FOLDER, write_demo
from brainseg_cli.cli.options import AsJson, Device, NoVerify, Out, Overwrite, Quiet, Verbose, Workers
from brainseg_cli.cli.resuming import telling_how_to_go_on
from brainseg_cli.errors import UsageError
from brainseg_cli.training.launch import find_rank, is_launched, is_under_torchrun, launch, telling_launcher
from brainseg_cli.types import Json

RUNS_FOLDER = Path("runs")
DEMO_PRESET = "demo"
ALL_FOLDS = "all"
SETTINGS = {
    "epochs": "train.epochs",
    "batch_size": "train.batch_size",
    "lr": "optimizer.lr",
    "encoder": "model.encoder",
    "encoder_weights": "model.encoder_weights",
    "image_size": "preprocess.size",
    "loss": "loss.name",
    "optimizer": "optimizer.name",
    "schedule": "schedule.name",
    "patience": "train.patience",
    "seed": "train.seed",
    "deterministic": "train.deterministic",
}
"""The settings that have a flag of their own."""
WITH_RESUME = {
    "dataset", "out", "resume", "fold", "device", "devices", "workers", "no_verify", "as_json", "quiet", "verbose",
}  # fmt: skip


@telling_launcher()
def train_command(
    context: typer.Context,
    dataset: Annotated[Path | None, typer.Argument(help="What `brainseg prepare` wrote.")] = None,
    out: Out = None,
    preset: Annotated[
        str | None,
        typer.Option(help="default, best, fast, classic, demo.", envvar="BRAINSEG_PRESET", show_default="default"),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="A TOML file over the preset.", envvar="BRAINSEG_CONFIG")] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any setting, e.g. train.ema_decay=0.99 (docs/settings.md)."),
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="train.epochs", envvar="BRAINSEG_EPOCHS")] = None,
    batch_size: Annotated[int | None, typer.Option(help="train.batch_size", envvar="BRAINSEG_BATCH_SIZE")] = None,
    lr: Annotated[float | None, typer.Option(help="optimizer.lr", envvar="BRAINSEG_LR")] = None,
    encoder: Annotated[str | None, typer.Option(help="model.encoder", envvar="BRAINSEG_ENCODER")] = None,
    encoder_weights: Annotated[
        str | None,
        typer.Option(help="model.encoder_weights: none, or imagenet (downloads).", envvar="BRAINSEG_ENCODER_WEIGHTS"),
    ] = None,
    image_size: Annotated[int | None, typer.Option(help="preprocess.size", envvar="BRAINSEG_IMAGE_SIZE")] = None,
    loss: Annotated[
        str | None,
        typer.Option(help="loss.name: dice, bce, dice+bce, focal, tversky, jaccard, lovasz.", envvar="BRAINSEG_LOSS"),
    ] = None,
    optimizer: Annotated[
        str | None, typer.Option(help="optimizer.name: adamax, adamw, sgd.", envvar="BRAINSEG_OPTIMIZER")
    ] = None,
    schedule: Annotated[
        str | None, typer.Option(help="schedule.name: constant, cosine, plateau.", envvar="BRAINSEG_SCHEDULE")
    ] = None,
    patience: Annotated[
        int | None, typer.Option(help="train.patience; 0 never stops early.", envvar="BRAINSEG_PATIENCE")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="train.seed", envvar="BRAINSEG_SEED")] = None,
    deterministic: Annotated[
        bool | None,
        typer.Option(
            "--deterministic",
            help="train.deterministic: the same bits each time on the same device; on a GPU at some cost in speed.",
            envvar="BRAINSEG_DETERMINISTIC",
            show_default=False,
        ),
    ] = None,
    fold: Annotated[
        str | None,
        typer.Option(
            metavar="K|all",
            help="Of a k-fold dataset: the fold that tests; where train.choose is best, the next chooses the epoch. "
            "all: each in turn.",
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the interrupted run at -o.")] = False,
    demo: Annotated[bool, typer.Option("--demo", help="Make the phantom data set, prepare it, train on it.")] = False,
    device: Device = "auto",
    devices: Annotated[
        int,
        typer.Option(min=1, help="Train on this many GPUs (or processes of a CPU).", envvar="BRAINSEG_DEVICES"),
    ] = 1,
    workers: Workers = None,
    no_verify: NoVerify = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Train a U-Net on a dataset; measure the best weights on its test split; draw curves and overlays.

    Prints the run's path. By default it is runs/DATASET-PRESET. With --devices N, or under torchrun, processes
    share out each batch: train.batch_size is that of all of them, and the result that of one.

    With --fold all every fold of a k-fold is trained, as fold0, fold1, ... in one folder: an ensemble for predict -m.
    What each network says of the patients it has not seen goes to out-of-fold/, and into a report over all of them.
    """
    console = Console(quiet=quiet or find_rank() > 0, verbose=verbose)
    overrides = _collect_overrides(context, assignments or [])
    from brainseg_cli.config import DEFAULT_PRESET, load_config

    if preset is None:
        preset = DEMO_PRESET if demo else DEFAULT_PRESET
    if resume:
        _refuse_with_resume(context)
        resolved = None
    else:
        resolved = load_config(preset, config, overrides)
        if (dataset is None) != demo:
            raise UsageError("give a DATASET, or --demo" if dataset is None else "--demo makes its own dataset")
    if dataset is not None:
        from brainseg_cli.data.manifest import check_dataset

        check_dataset(dataset)
    if fold is not None and fold != ALL_FOLDS and not fold.isdecimal():
        raise UsageError(f"--fold {fold!r} is neither a number nor {ALL_FOLDS}")
    if resume and fold not in (None, ALL_FOLDS):
        raise UsageError("a resumed run keeps its fold", hint="of a k-fold --resume -o its folder goes on with all")
    several = devices > 1 or is_under_torchrun()
    if several and (fold == ALL_FOLDS or (resume and out is not None and _is_kfold(out))):
        raise UsageError(
            "--fold all trains one fold after another on one device",
            hint="each with --fold K --devices N -o RUN/foldK, then --resume -o RUN",
        )
    if is_under_torchrun() and (demo or devices > 1):
        raise UsageError(
            "torchrun starts its own processes: --devices and --demo are for brainseg alone",
            hint="torchrun --nproc-per-node N, and a DATASET",
        )
    if demo:
        dataset = DEMO_FOLDER / "dataset" if is_launched() else _prepare_demo(console)
    if out is None:
        assert dataset is not None
        out = RUNS_FOLDER / ("demo" if demo else f"{Path(os.path.realpath(dataset)).name}-{preset}")
        overwrite = overwrite or demo  # the demo's own place, the same each time

    if devices > 1 and not is_launched():
        from brainseg_cli.training.distributed import check_devices

        check_devices(devices, device)
        with telling_how_to_go_on(out, "interrupted"):
            launch([sys.executable, "-m", "brainseg_cli", *sys.argv[1:]], devices)
        return
    if resolved is not None:
        console.detail(resolved.to_toml())
    console.say("loading PyTorch")
    from brainseg_cli.cli.training import Asked, train_kfold, train_run

    asked = Asked(dataset, resolved, preset, device, workers, verify=not no_verify, overwrite=overwrite)
    if fold == ALL_FOLDS or (resume and _is_kfold(out)):
        evaluation = train_kfold(asked, out, console)
        told: Json = {"folds": evaluation.summary["folds"]}
    else:
        trained = train_run(asked, out, console, fold=None if fold is None else int(fold))
        if trained is None:  # what is made of the run, the first process makes
            return
        result, evaluation = trained
        told = {
            "epochs": result.epochs,
            "best_epoch": result.best_epoch,
            "best_val_dice_patient": result.best_val_dice_patient,
            "stopped_early": result.stopped_early,
        }
    if as_json:
        emit_json({"run": str(out), **told, "report": evaluation.summary})
    else:
        emit(str(out))


def _is_kfold(out: Path) -> bool:
    from brainseg_cli.training.run_folder import is_kfold

    return is_kfold(out)


def _collect_overrides(context: typer.Context, assignments: list[str]) -> dict[str, Any]:
    """Dotted settings: what the environment says, over it --set, over that the flags."""
    flags: dict[str, Any] = {}
    environment: dict[str, Any] = {}
    for name, key in SETTINGS.items():
        if (value := context.params[name]) is not None:
            source = context.get_parameter_source(name)
            (environment if source is not None and source.name == "ENVIRONMENT" else flags)[key] = value
    return environment | _parse_assignments(assignments) | flags


def _parse_assignments(assignments: list[str]) -> dict[str, Any]:
    parsed = {}
    for text in assignments:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise UsageError(f"--set {text!r} is not KEY=VALUE", hint="for example --set optimizer.lr=1e-4")
        parsed[key.strip()] = value.strip()
    return parsed


def _refuse_with_resume(context: typer.Context) -> None:
    """Flags that would change a run that has begun are refused; what the environment sets is passed over."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    given = {name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"}
    if "out" not in given:
        raise UsageError("--resume needs -o RUN, the run to go on with")
    if refused := sorted(given - WITH_RESUME):
        raise UsageError(
            f"a resumed run keeps its own configuration: {', '.join(refused)} cannot be given",
            hint="a DATASET that moved, --device, --devices, --workers and --no-verify can",
        )


def _prepare_demo(console: Console) -> Path:
    from brainseg_cli import prepare

    target = DEMO_FOLDER / "dataset"
    with prepare.new_dataset(target, overwrite=True) as folder, console.progress() as progress:
        preparation = prepare.check(write_demo(DEMO_FOLDER, progress=progress), into=folder, progress=progress)
        prepare.complete_dataset(preparation, folder, progress=progress)
    console.say(f"phantom: {preparation.info.patients} patients, {preparation.info.slices} slices in {target}")
    return target
