"""train: the run folder it leaves, and a run that was interrupted ending as one that was not."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from predicting import make, records, segment
from torch import nn

from brainseg_cli import prepare
from brainseg_cli.config import Config, read_config
from brainseg_cli.data.manifest import load_dataset
from brainseg_cli.data.phantom import patient_name
from brainseg_cli.errors import DownloadError, InputError, OutputExistsError, TrainingError, UsageError
from brainseg_cli.evaluate import conclude, measure_run, write_report
from brainseg_cli.io.images import read_image
from brainseg_cli.metrics.threshold import choose_threshold
from brainseg_cli.models.bundle import load_bundle, save_bundle, write_info
from brainseg_cli.models.network import TorchNetwork
from brainseg_cli.models.segmenter import Segmenter
from brainseg_cli.train import draw_run_figures, resume, train
from brainseg_cli.training.measure import sweep_thresholds
from brainseg_cli.training.run_folder import RunFolder
from brainseg_cli.training.state import load_state
from brainseg_cli.training.validation import Validation


def tree(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def weights(run: Path) -> bytes:
    return (run / "model" / "model.safetensors").read_bytes()


def same(one: Path, other: Path) -> bool:
    return weights(one) == weights(other) and (one / "metrics.csv").read_bytes() == (other / "metrics.csv").read_bytes()


class Interrupt(Exception):
    """Stands for whatever stops a training between two epochs."""


def interrupting(recorder: Any, at: int) -> Any:
    """An observer that stops the training in epoch `at`, before that epoch is saved."""

    class Interrupting(type(recorder)):  # type: ignore[misc]
        def on_step(self, epoch: int, step: int, steps: int, images_per_s: float) -> None:
            if epoch == at and step == 2:
                raise Interrupt

    return Interrupting()


@pytest.fixture
def copied(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "copied"))


def test_the_run_folder(run: Path, dataset: Path, tiny: Callable[..., Config]) -> None:
    # the cache is made by whoever predicts with it first
    assert [name for name in tree(run) if not name.startswith("model/cache/")] == [
        "config.toml",
        "figures/curves.png",
        "metrics.csv",
        "model/brainseg.json",
        "model/config.json",
        "model/model.safetensors",
        "run.json",
        "split.csv",
        "state/last.pt",
        "state/previous.pt",
        "thresholds.csv",
        "timings.csv",
        "train.log",
    ]
    assert read_config(run / "config.toml") == tiny()
    split = pd.read_csv(run / "split.csv")
    assert split["split"].value_counts().to_dict() == {"train": 2, "val": 2, "test": 2}
    info = RunFolder(run).read_info()
    assert info.dataset == str(dataset) and info.preset == "fast" and info.precision == "fp32" and not info.leaky
    log = (run / "train.log").read_text()
    assert "tu-test_resnet" in log and log.count("val_dice_patient=") == 3


def test_the_best_epoch_is_the_one_in_the_bundle(run: Path) -> None:
    metrics = pd.read_csv(run / "metrics.csv")
    assert metrics["epoch"].tolist() == [1, 2, 3]
    assert {
        "lr", "train_loss", "train_dice", "train_iou", "train_accuracy",
        "val_loss", "val_dice", "val_iou", "val_accuracy", "val_dice_patient",
    } <= set(metrics.columns)  # fmt: skip
    best = metrics["val_dice_patient"].idxmax()
    info = load_bundle(run)[1]
    assert info.epoch == metrics["epoch"][best]
    assert info.val_dice_patient == pytest.approx(metrics["val_dice_patient"][best], abs=1e-12)
    assert info.encoder_weights == "none" and len(info.channel_names) == 3
    assert load_state(run / "state" / "last.pt").epoch == 3


def test_the_threshold_that_scores_best_on_val_is_in_the_bundle(run: Path, dataset: Path) -> None:
    table = pd.read_csv(run / "thresholds.csv")
    assert list(table) == ["threshold", "dice_patient", "dice_pooled"]
    assert table["threshold"].tolist() == [n / 100 for n in range(1, 100)]
    info = load_bundle(run)[1]
    rows = RunFolder(run).read_thresholds()
    assert rows is not None and (info.threshold, info.threshold_from) == (choose_threshold(rows), "val")
    best = table["dice_patient"].max()
    assert table.set_index("threshold")["dice_patient"][info.threshold] == best > table["dice_patient"].min()
    # a row is what the masks at that threshold score, counted one by one
    opened = load_dataset(dataset)
    network = TorchNetwork(load_bundle(run)[0], info.preprocess, 3, torch.device("cpu"))
    segmenter = Segmenter(network)
    validation = Validation(opened, "val", info.preprocess, nn.functional.binary_cross_entropy_with_logits)
    for threshold in (0.01, info.threshold, 0.99):
        expected = validation.summarise(validation.measure(network, validation.batches, threshold=threshold))
        for name, counted in (("dice_patient", "val_dice_patient"), ("dice_pooled", "val_dice")):
            assert table.set_index("threshold")[name][threshold] == pytest.approx(expected[counted], abs=1e-12)
    assert rows == sweep_thresholds(segmenter, opened, "val")  # as it was before it went to a file


def test_the_threshold_in_the_bundle_is_the_one_that_is_used(copied: Path, phantom: Path, tmp_path: Path) -> None:
    found = []
    for threshold in (0.02, 0.98):
        info = load_bundle(copied)[1]
        write_info(copied / "model", info.model_copy(update={"threshold": threshold}))
        plan = make(copied, tmp_path / str(threshold), phantom)
        area = sum(record["area_px"] for record in records(segment(plan)) if patient_name(10) in record["image"])
        side = measure_run(copied, device_name="cpu")
        measured = side.measures.patients.set_index("patient_id").loc[patient_name(10), "prediction_px"]
        assert plan.threshold == side.about["threshold"] == threshold and measured == area
        found.append(area)
    assert found[0] > found[1]


@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {
            "train.ema_decay": 0.8,
            "train.accumulate": 2,
            "train.tumour_share": 0.5,
            "optimizer.name": "sgd",
            "schedule.name": "plateau",
        },
        {"optimizer.name": "adamax", "train.ema_decay": 0, "loss.name": "lovasz"},
    ],
)
def test_an_interrupted_run_ends_as_one_that_was_not(
    dataset: Path, tmp_path: Path, tiny: Callable[..., Config], recorder: Any, overrides: dict[str, Any]
) -> None:
    config = tiny(overrides)
    train(dataset, tmp_path / "whole", config, recorder, device_name="cpu", workers=0)
    with pytest.raises(Interrupt):
        train(dataset, tmp_path / "parts", config, interrupting(recorder, 2), device_name="cpu")
    assert load_state(tmp_path / "parts" / "state" / "last.pt").epoch == 1
    with pytest.raises(Interrupt):
        resume(tmp_path / "parts", interrupting(recorder, 3), device_name="cpu")
    result = resume(tmp_path / "parts", recorder, device_name="cpu")
    assert result.epochs == 3
    assert same(tmp_path / "whole", tmp_path / "parts")
    assert tree(tmp_path / "whole") == tree(tmp_path / "parts")
    for name in ("thresholds.csv", "model/brainseg.json"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes()


def test_a_run_stopped_in_its_first_epoch_starts_again(
    dataset: Path, tmp_path: Path, tiny: Callable[..., Config], recorder: Any, run: Path
) -> None:
    with pytest.raises(Interrupt):
        train(dataset, tmp_path / "run", tiny(), interrupting(recorder, 1), device_name="cpu")
    assert not (tmp_path / "run" / "state").exists()
    resume(tmp_path / "run", recorder, device_name="cpu")
    assert same(tmp_path / "run", run)


def test_worker_processes_change_no_weight(
    dataset: Path, tmp_path: Path, tiny: Callable[..., Config], recorder: Any
) -> None:
    config = tiny({"train.epochs": 2, "schedule.warmup_epochs": 0})
    train(dataset, tmp_path / "alone", config, recorder, device_name="cpu", workers=0)
    train(dataset, tmp_path / "two", config, recorder, device_name="cpu", workers=2)
    assert same(tmp_path / "alone", tmp_path / "two")


def test_a_finished_run_is_left_as_it_is(copied: Path, run: Path, recorder: Any) -> None:
    (copied / "metrics.csv").unlink()  # stopped between the last state and its table
    (copied / "thresholds.csv").unlink()  # or before its threshold was chosen
    write_info(
        copied / "model", load_bundle(copied)[1].model_copy(update={"threshold": 0.5, "threshold_from": "default"})
    )
    result = resume(copied, recorder, device_name="cpu")
    assert result.epochs == 3 and recorder.rows == []
    for name in (
        "metrics.csv", "state/last.pt", "model/model.safetensors", "model/brainseg.json", "config.toml",
        "thresholds.csv",
    ):  # fmt: skip
        assert (copied / name).read_bytes() == (run / name).read_bytes()


def test_a_dataset_that_moved_is_found_where_it_is_said(copied: Path, dataset: Path, recorder: Any) -> None:
    RunFolder(copied).info.write_text(RunFolder(copied).info.read_text().replace(str(dataset), "/nowhere"))
    with pytest.raises(InputError, match="/nowhere"):
        resume(copied, recorder, device_name="cpu")
    assert resume(copied, recorder, dataset_path=dataset, device_name="cpu").epochs == 3


def test_another_dataset_or_split_is_refused(copied: Path, phantom: Path, tmp_path: Path, recorder: Any) -> None:
    prepare.write_dataset(prepare.check(phantom, split="50/25/25", workers=1), tmp_path / "other")
    with pytest.raises(InputError, match="is not the dataset, or not the split"):
        resume(copied, recorder, dataset_path=tmp_path / "other", device_name="cpu")


def test_what_is_no_run_cannot_be_resumed(tmp_path: Path, recorder: Any, copied: Path) -> None:
    with pytest.raises(InputError, match="is no run"):
        resume(tmp_path, recorder)
    for name in ("last.pt", "previous.pt"):
        (copied / "state" / name).write_bytes(b"broken")
    with pytest.raises(InputError, match=r"last\.pt: is no training state.*--overwrite begins anew"):
        resume(copied, recorder, device_name="cpu")


def test_from_a_damaged_state_the_run_ends_the_same(copied: Path, run: Path, recorder: Any) -> None:
    state = copied / "state" / "last.pt"
    state.write_bytes(state.read_bytes()[:-1])
    shutil.rmtree(copied / "model")
    resume(copied, recorder, device_name="cpu")
    (told,) = recorder.messages
    assert "last.pt: is damaged" in told and "previous.pt" in told
    assert [epoch for epoch, step, _ in recorder.steps if step == 1] == [3]
    assert same(copied, run)


@pytest.mark.parametrize("left", ["another epoch's weights", "another epoch's word", "nothing", "half"])
def test_going_on_puts_the_bundle_right(left: str, copied: Path, run: Path, recorder: Any) -> None:
    """A kill may come between two files of it, or between it and the state."""
    model = copied / "model"
    if left == "another epoch's weights":
        save_bundle(model, load_bundle(run)[0].apply(spoil), load_bundle(run)[1])
    elif left == "another epoch's word":
        write_info(model, load_bundle(run)[1].model_copy(update={"epoch": 77, "val_dice_patient": 0.99}))
    else:
        shutil.rmtree(model)
        if left == "half":
            model.mkdir()
            (model / "model.safetensors").write_bytes(b"half")
    resume(copied, recorder, device_name="cpu")
    assert recorder.steps == []
    for name in ("brainseg.json", "config.json", "model.safetensors"):
        assert (model / name).read_bytes() == (run / "model" / name).read_bytes()


def spoil(module: nn.Module) -> None:
    for parameter in module.parameters(recurse=False):
        nn.init.zeros_(parameter)


def test_a_changed_configuration_does_not_fit_the_state(
    copied: Path, recorder: Any, tiny: Callable[..., Config]
) -> None:
    (copied / "config.toml").write_text(tiny({"model.decoder_channels": (8, 8, 8)}).to_toml())
    with pytest.raises(TrainingError, match="does not fit this configuration") as caught:
        resume(copied, recorder, device_name="cpu")
    assert "\n" not in str(caught.value)


def test_nothing_is_written_over(
    copied: Path, dataset: Path, tmp_path: Path, tiny: Callable[..., Config], recorder: Any
) -> None:
    with pytest.raises(OutputExistsError, match="--resume goes on with it"):
        train(dataset, copied, tiny(), recorder, device_name="cpu")
    other = tmp_path / "other"
    other.mkdir()
    (other / "letter.txt").write_text("mine")
    with pytest.raises(OutputExistsError) as caught:
        train(dataset, other, tiny(), recorder, device_name="cpu")
    assert "--overwrite" in str(caught.value) and "--resume" not in str(caught.value)
    assert tree(other) == ["letter.txt"]


def test_overwriting_begins_anew(copied: Path, dataset: Path, tiny: Callable[..., Config], recorder: Any) -> None:
    config = tiny({"train.epochs": 2, "schedule.warmup_epochs": 0, "train.seed": 4})
    with pytest.raises(Interrupt):
        train(dataset, copied, config, interrupting(recorder, 1), device_name="cpu", overwrite=True)
    assert not (copied / "state" / "last.pt").exists() and not (copied / "metrics.csv").exists()
    assert not (copied / "thresholds.csv").exists()
    with pytest.raises(InputError, match="holds no model"):  # the old weights are not taken for the new run's
        load_bundle(copied)
    train(dataset, copied, config, recorder, device_name="cpu", overwrite=True)
    assert pd.read_csv(copied / "metrics.csv")["epoch"].tolist() == [1, 2]
    assert read_config(copied / "config.toml") == config


def test_what_cannot_be_trained_on_is_refused_before_anything_is_written(
    dataset: Path, tmp_path: Path, tiny: Callable[..., Config], recorder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    with pytest.raises(UsageError, match="there is no encoder"):
        train(dataset, out, tiny({"model.encoder": "resnet35"}), recorder, device_name="cpu")
    with pytest.raises(UsageError, match="no device"):
        train(dataset, out, tiny(), recorder, device_name="gpu")
    with pytest.raises(UsageError, match="fp16"):
        train(dataset, out, tiny({"train.precision": "fp16"}), recorder, device_name="cpu")
    with pytest.raises(UsageError, match="--fold"):
        train(dataset, out, tiny(), recorder, device_name="cpu", fold=1)
    with pytest.raises(InputError, match="is no dataset"):
        train(tmp_path, out, tiny(), recorder, device_name="cpu")

    def refuse(*_: Any, **__: Any) -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setattr("segmentation_models_pytorch.encoders.hf_hub_download", refuse)
    config = tiny({"model.encoder": "resnet18", "model.encoder_weights": "imagenet"})
    with pytest.raises(DownloadError, match="no route to host"):
        train(dataset, out, config, recorder, device_name="cpu")
    assert not out.exists()


def split_as(phantom: Path, folder: Path, assigned: dict[int, str]) -> Path:
    """The phantom with these patients in these splits, the others in train."""
    names = [path.name for path in phantom.iterdir()]
    splits = {patient_name(number): split for number, split in assigned.items()}
    folder.mkdir(exist_ok=True)
    table = folder / "split.csv"
    table.write_text("patient_id,split\n" + "".join(f"{name},{splits.get(name, 'train')}\n" for name in names))
    out = folder / "dataset"
    prepare.write_dataset(prepare.check(phantom, split=str(table), workers=1), out)
    return out


def test_without_val_the_run_says_what_chose(
    phantom: Path, tmp_path: Path, tiny: Callable[..., Config], recorder: Any
) -> None:
    made = split_as(phantom, tmp_path, {0: "test"})
    config = tiny({"train.epochs": 1, "train.batch_size": 16})
    train(made, tmp_path / "run", config, recorder, device_name="cpu")
    assert any("no val split" in message for message in recorder.messages)
    info = load_bundle(tmp_path / "run")[1]  # a threshold is not chosen on what was trained on
    assert (info.threshold, info.threshold_from) == (0.5, "default")
    assert RunFolder(tmp_path / "run").read_thresholds() is None


def test_the_last_epoch_is_kept_where_nobody_chooses(
    phantom: Path, tmp_path: Path, tiny: Callable[..., Config], recorder: Any
) -> None:
    """Every other fold is trained on, nothing is validated, and eval measures the fold that was held back."""
    prepare.write_dataset(prepare.check(phantom, split="kfold:3", workers=1), tmp_path / "data")
    config = tiny({"train.choose": "last", "train.epochs": 2})
    result = train(tmp_path / "data", tmp_path / "run", config, recorder, fold=1, device_name="cpu", workers=0)
    assert (result.best_epoch, result.epochs, result.best_val_dice_patient) == (2, 2, None)
    assert recorder.best == [True, True] and recorder.messages == []
    assert RunFolder(tmp_path / "run").read_metrics()["val_dice"].isna().all()
    info = load_bundle(tmp_path / "run")[1]
    assert (info.epoch, info.threshold, info.threshold_from) == (2, 0.5, "default")
    split = RunFolder(tmp_path / "run").read_split()
    assert {name: len(patients) for name, patients in split.items()} == {"train": 4, "test": 2}
    side = measure_run(tmp_path / "run", device_name="cpu")
    assert set(side.measures.patients["patient_id"]) == split["test"] and not side.about["leaky"]
    again = resume(tmp_path / "run", recorder, device_name="cpu", workers=0)
    assert (again.best_epoch, again.epochs) == (2, 2)


def test_without_tumour_in_val_the_threshold_stays(
    phantom: Path, tmp_path: Path, tiny: Callable[..., Config], recorder: Any
) -> None:
    made = split_as(phantom, tmp_path, {0: "test", 10: "val"})
    result = train(made, tmp_path / "run", tiny({"train.epochs": 1}), recorder, device_name="cpu")
    assert result.best_val_dice_patient is None
    assert "no val patient has tumour: the threshold stays at 0.5" in recorder.messages
    info = load_bundle(tmp_path / "run")[1]
    assert (info.threshold, info.threshold_from) == (0.5, "default")
    assert not (tmp_path / "run" / "thresholds.csv").exists()
    about = measure_run(tmp_path / "run", device_name="cpu").about
    assert (about["threshold"], about["threshold_from"], about["threshold_sweep"]) == (0.5, "default", None)


def test_nothing_to_learn_from_is_refused(
    phantom: Path, tmp_path: Path, tiny: Callable[..., Config], recorder: Any
) -> None:
    made = split_as(phantom, tmp_path, dict.fromkeys((0, 1, 2, 3, 4), "test"))  # 10, who has no tumour, trains
    with pytest.raises(UsageError, match="no training slice has tumour"):
        train(made, tmp_path / "run", tiny(), recorder, device_name="cpu")
    nobody = split_as(phantom, tmp_path / "nobody", dict.fromkeys((0, 1, 2, 3, 4, 10), "test"))
    with pytest.raises(UsageError, match="no slice to train on"):
        train(nobody, tmp_path / "run", tiny(), recorder, device_name="cpu")


def test_a_channel_to_copy_that_is_not_there_is_told_and_left_out(
    dataset: Path, tmp_path: Path, tiny: Callable[..., Config], recorder: Any
) -> None:
    once = {"train.epochs": 1, "schedule.warmup_epochs": 0}
    for name, settings in {
        "absent": {"augment.channel_copy": 1.0, "augment.copied_channel": "T2"},
        "none": {"augment.channel_copy": 0.0},
        "there": {"augment.channel_copy": 1.0},
    }.items():
        train(dataset, tmp_path / name, tiny(once | settings), recorder, device_name="cpu")
    assert recorder.messages == ["no channel is called T2: none is copied (augment.copied_channel)"]
    assert same(tmp_path / "absent", tmp_path / "none") and not same(tmp_path / "there", tmp_path / "none")


def test_memory_that_does_not_suffice_is_one_line(
    dataset: Path, tmp_path: Path, tiny: Callable[..., Config], recorder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhaust(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("brainseg_cli.training.engine.Engine._train_epoch", exhaust)
    with pytest.raises(TrainingError, match="--batch-size"):
        train(dataset, tmp_path / "run", tiny(), recorder, device_name="cpu")


def test_figures_of_the_best_the_median_and_the_worst_patient(copied: Path, recorder: Any) -> None:
    with pytest.raises(InputError, match="report"):
        draw_run_figures(copied, device_name="cpu")
    write_report(conclude(measure_run(copied, split="train", device_name="cpu")), copied / "report")
    told: list[int] = []
    figures = draw_run_figures(copied, device_name="cpu", progress=lambda done, total, what: told.append(done))
    assert [path.name for path in figures] == [
        "overlay-best.png", "overlay-median.png", "overlay-worst.png", "overlays.png", "curves.png",
    ]  # fmt: skip
    assert told == [1, 2, 3]
    shapes = {path.name: read_image(path).shape for path in figures}
    assert all(height > 40 and width > 56 for height, width, _ in shapes.values())
    assert shapes["overlay-best.png"][1] > 2 * shapes["overlays.png"][1] / 3  # three slices beside each other


def test_patients_without_tumour_are_not_drawn(copied: Path) -> None:
    evaluation = conclude(measure_run(copied, device_name="cpu"))
    patients = evaluation.side.measures.patients
    table = patients[patients["reference_px"] == 0]
    assert len(table) == 1
    write_report(evaluation, copied / "report")
    table.to_csv(copied / "report" / "patients.csv", index=False)
    assert draw_run_figures(copied, device_name="cpu") == []
