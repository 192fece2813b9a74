"""brainseg train --fold all: the real program, from a k-fold dataset to an ensemble measured out of fold."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from brainseg_cli import prepare
from brainseg_cli.data.manifest import load_dataset
from brainseg_cli.io.images import read_mask, read_probs

FOLDS = 3


@pytest.fixture(scope="module")
def folds(phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("kfold") / "folds"
    prepare.write_dataset(prepare.check(phantom, split=f"kfold:{FOLDS}", workers=1), out)
    return out


@pytest.fixture
def train(brainseg: Callable[..., Any], tiny_settings: dict[str, Any]) -> Callable[..., Any]:
    told = {key: list(value) if isinstance(value, tuple) else value for key, value in tiny_settings.items()}
    settings = [part for key, value in told.items() for part in ("--set", f"{key}={value}")]

    def call(*arguments: object, settings: Sequence[str] = tuple(settings)) -> Any:
        return brainseg("train", *arguments, *settings, "--device", "cpu")

    return call


@pytest.fixture(scope="module")
def kept() -> dict[str, Path]:
    return {}


@pytest.fixture
def trained(folds: Path, train: Callable[..., Any], kept: dict[str, Path], tmp_path_factory: Any) -> Path:
    """A k-fold that was trained once; to be read and never written to."""
    if "kfold" not in kept:
        out = tmp_path_factory.mktemp("trained") / "kfold"
        ended = train(folds, "--preset", "fast", "--fold", "all", "-o", out)
        assert (ended.code, ended.out) == (0, f"{out}\n"), ended.err
        assert [line for line in ended.err.splitlines() if line.startswith("fold ")] == [
            f"fold {fold} of {FOLDS}" for fold in range(FOLDS)
        ]
        kept["kfold"] = out
    return kept["kfold"]


def read_summary(folder: Path) -> Any:
    return json.loads((folder / "summary.json").read_text())


def test_every_patient_is_predicted_by_the_network_that_has_not_seen_it(trained: Path, folds: Path) -> None:
    dataset = load_dataset(folds)
    assert sorted(path.name for path in trained.iterdir()) == ["fold0", "fold1", "fold2", "out-of-fold", "report"]
    summary, patients = read_summary(trained / "report"), pd.read_csv(trained / "report" / "patients.csv")
    assert set(patients["patient_id"]) == set(dataset.slices["patient_id"])
    assert (summary["run"], summary["folds"], summary["fold"], summary["epoch"]) == ("kfold", FOLDS, None, None)
    parts = [pd.read_csv(trained / f"fold{fold}" / "report" / "patients.csv") for fold in range(FOLDS)]
    together = pd.concat(parts).set_index("patient_id").loc[patients["patient_id"]].reset_index()
    pd.testing.assert_frame_equal(together, patients)  # each as its own fold measured it
    slices = pd.read_csv(trained / "report" / "slices.csv")
    assert slices["image"].tolist() == dataset.slices["image"].tolist()


def test_the_masks_and_maps_out_of_fold_are_those_that_were_measured(
    trained: Path, folds: Path, phantom: Path, brainseg: Callable[..., Any], tmp_path: Path
) -> None:
    dataset, kept = load_dataset(folds), trained / "out-of-fold"
    wanted = sorted(str(Path(image).with_suffix(".png")) for image in dataset.slices["image"])
    for folder in ("masks", "probabilities"):
        found = [str(path.relative_to(kept / folder)) for path in (kept / folder).rglob("*.png")]
        assert sorted(found) == wanted
    thresholds = [read_summary(trained / f"fold{fold}" / "report")["threshold"] for fold in range(FOLDS)]
    fold_of = dict(zip(dataset.slices["image"], dataset.slices["split"], strict=True))
    for image in dataset.slices["image"][:6]:
        name = Path(image).with_suffix(".png")
        mask, probs = read_mask(kept / "masks" / name), read_probs(kept / "probabilities" / name)
        threshold = thresholds[int(fold_of[image].removeprefix("fold-"))]
        unsure = np.abs(probs - threshold) < 1e-4  # rounded to 16 bits
        assert ((probs >= threshold) == mask)[~unsure].all()
    source = tmp_path / "references"
    for mask_path in phantom.rglob("*_mask.tif"):
        target = source / mask_path.relative_to(phantom)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(mask_path, target)
    asked = ("--reference", source, "--prediction", kept / "masks", "--reference-suffix", "_mask")
    ended = brainseg("eval", *asked, "-o", tmp_path / "again")
    assert ended.code == 0, ended.err
    again, summary = read_summary(tmp_path / "again")["metrics"], read_summary(trained / "report")["metrics"]
    names = [name for name in again if not name.endswith("_batch_soft")]  # of masks there, of probabilities here
    assert len(names) > 10 and {name: again[name] for name in names} == {name: summary[name] for name in names}


def test_eval_measures_it_again_and_compares_it(trained: Path, brainseg: Callable[..., Any], tmp_path: Path) -> None:
    ended = brainseg("eval", trained, "-o", tmp_path / "a", "--compare", trained)
    assert ended.code == 0, ended.err
    found, wanted = read_summary(tmp_path / "a"), read_summary(trained / "report")
    assert found["metrics"] == wanted["metrics"] and found["comparison"]["metrics"]["dice_patient"]["difference"] == 0
    for refused, told in (
        (("--split", "val"), "test splits of all folds"),
        (("--compare", trained / "fold0"), "with another k-fold"),
    ):
        ended = brainseg("eval", trained, "-o", tmp_path / "b", *refused)
        assert ended.code == 2 and told in ended.err


def test_a_fold_that_is_missing_is_named(
    trained: Path, phantom: Path, brainseg: Callable[..., Any], tmp_path: Path
) -> None:
    part = Path(shutil.copytree(trained, tmp_path / "part"))
    asked = ("predict", next(phantom.rglob("*_1.tif")), "--device", "cpu", "--runtime", "torch", "-o", tmp_path / "m")
    assert "folds" not in brainseg(*asked, "-m", part).err
    shutil.rmtree(part / "fold1")
    assert f"warning: {part} has 2 of its 3 folds" in brainseg(*asked, "-m", part, "--overwrite").err
    assert "folds" not in brainseg(*asked, "-m", part / "fold0", "--overwrite").err
    ended = brainseg("eval", part, "-o", tmp_path / "a")
    assert ended.code == 1 and "part: has not every fold: " in ended.err
    assert f"(brainseg train --resume -o {part})" in ended.err


def test_going_on_leaves_what_is_whole_and_ends_the_same(
    trained: Path, train: Callable[..., Any], tmp_path: Path
) -> None:
    part = Path(shutil.copytree(trained, tmp_path / "kfold"))
    shutil.rmtree(part / "fold2")
    shutil.rmtree(part / "fold1" / "report")
    shutil.rmtree(part / "out-of-fold")
    (part / "report" / "summary.json").unlink()
    before = (part / "fold0" / "report" / "summary.json").stat().st_mtime_ns
    ended = train("--resume", "-o", part, settings=())
    assert (ended.code, ended.out) == (0, f"{part}\n"), ended.err
    assert "fold 0 of 3 is there" in ended.err and (part / "fold0/report/summary.json").stat().st_mtime_ns == before
    assert (part / "fold2/config.toml").read_text() == (trained / "fold2/config.toml").read_text()
    for name in ("report/summary.json", "report/patients.csv", "fold2/model/model.safetensors", "fold2/metrics.csv"):
        assert (part / name).read_bytes() == (trained / name).read_bytes(), name
    for path in (trained / "out-of-fold").rglob("*.png"):
        assert (part / path.relative_to(trained)).read_bytes() == path.read_bytes()


def test_a_fold_that_was_evaluated_half_trained_is_not_done(
    trained: Path, folds: Path, train: Callable[..., Any], brainseg: Callable[..., Any], tmp_path: Path
) -> None:
    from brainseg_cli.cli.train_table import TrainTable

    out, told = tmp_path / "kfold", TrainTable.on_epoch

    def interrupt(*arguments: Any, **options: Any) -> None:
        told(*arguments, **options)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainTable, "on_epoch", interrupt)
        assert train(folds, "--preset", "fast", "--fold", "all", "-o", out).code == 130
    assert brainseg("eval", out / "fold0").code == 0 and (out / "fold0" / "report" / "summary.json").exists()
    ended = train("--resume", "-o", out, settings=())
    assert ended.code == 0, ended.err
    for name in ("report/summary.json", "fold0/model/model.safetensors", "fold0/metrics.csv"):
        assert (out / name).read_bytes() == (trained / name).read_bytes(), name


def test_a_dataset_that_was_prepared_anew_is_not_gone_on_with(
    trained: Path, folds: Path, phantom: Path, train: Callable[..., Any], brainseg: Callable[..., Any], tmp_path: Path
) -> None:
    part, other = Path(shutil.copytree(trained, tmp_path / "part")), tmp_path / "other"
    shutil.rmtree(part / "fold2")
    prepare.write_dataset(prepare.check(phantom, split=f"kfold:{FOLDS}", seed=7, workers=1), other)
    ended = train(other, "--resume", "-o", part, settings=())
    assert ended.code == 1 and "not the split, that fold0 was trained with" in ended.err
    assert not (part / "fold2").exists()
    mixed = Path(shutil.copytree(trained, tmp_path / "mixed"))
    shutil.rmtree(mixed / "fold1")
    assert train(other, "--preset", "fast", "--fold", "1", "-o", mixed / "fold1").code == 0
    ended = brainseg("eval", mixed, "-o", tmp_path / "a")
    assert ended.code == 1 and ("tested by several" in ended.err or "tested by none" in ended.err)


def test_a_fold_whose_bundle_was_changed_is_told(trained: Path, brainseg: Callable[..., Any], tmp_path: Path) -> None:
    part = Path(shutil.copytree(trained, tmp_path / "part"))
    about = part / "fold1" / "model" / "brainseg.json"
    about.write_text(json.dumps(json.loads(about.read_text()) | {"threshold": 0.05}))
    ended = brainseg("eval", part, "-o", tmp_path / "a")
    assert ended.code == 1 and "fold1/model/brainseg.json: is not as it was written" in ended.err
    assert brainseg("eval", part, "-o", tmp_path / "a", "--no-verify").code == 0


def test_what_lies_in_the_folder_is_not_lost(folds: Path, train: Callable[..., Any], tmp_path: Path) -> None:
    note = tmp_path / "k" / "out-of-fold" / "notes.txt"
    note.parent.mkdir(parents=True)
    note.write_text("mine")
    assert train(folds, "--preset", "fast", "--fold", "all", "-o", tmp_path / "k").code == 1
    assert note.read_text() == "mine"


def test_an_interrupt_says_how_the_whole_goes_on(
    folds: Path, train: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from brainseg_cli.cli.train_table import TrainTable

    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(TrainTable, "on_epoch", interrupt)
        ended = train(folds, "--preset", "fast", "--fold", "all", "-o", tmp_path / "k")
    assert ended.code == 130 and f"brainseg train --resume -o {tmp_path}/k goes on" in ended.err
    assert "k/fold0: interrupted" in ended.err


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("FOLDS", "--fold", "some"), 2, "neither a number nor all"),
        (("FOLDS", "--fold", "all", "--devices", "2"), 2, "--fold K --devices N"),
        (("FLAT", "--fold", "all"), 2, "datasets prepared with --split kfold:K"),
        (("--resume", "--fold", "all", "--devices", "2"), 2, "one device"),
        (("--resume", "--fold", "1"), 2, "keeps its fold"),
        (("--resume", "--fold", "all"), 1, "holds no fold that has begun"),
    ],
)
def test_what_cannot_be(
    arguments: Sequence[str], code: int, told: str, folds: Path, dataset: Path, brainseg: Any, tmp_path: Path
) -> None:
    places = {"FOLDS": str(folds), "FLAT": str(dataset)}
    ended = brainseg("train", *(places.get(each, each) for each in arguments), "-o", tmp_path / "k", "--device", "cpu")
    assert (ended.code, ended.out) == (code, "") and told in ended.err
    assert not (tmp_path / "k").exists()


def test_overwriting_leaves_nothing_of_an_older_one_with_more_folds_and_nothing_else_is_removed(
    trained: Path, folds: Path, train: Callable[..., Any], tmp_path: Path
) -> None:
    part = Path(shutil.copytree(trained, tmp_path / "k"))
    shutil.copytree(part / "fold0", part / "fold3")
    (part / "folders of mine").mkdir()
    before = sorted(part.rglob("*"))
    refused = train(folds, "--fold", "all", "-o", part, "--overwrite", settings=("--set", "model.encoder=tu-none"))
    assert refused.code == 2 and sorted(part.rglob("*")) == before
    ended = train(folds, "--preset", "fast", "--fold", "all", "-o", part, "--overwrite", "--epochs", "1")
    assert ended.code == 0, ended.err
    assert {path.name for path in part.iterdir()} == {path.name for path in trained.iterdir()} | {"folders of mine"}
    assert read_summary(part / "report")["configuration"]["train"]["epochs"] == 1
    (tmp_path / "other" / "out-of-fold").mkdir(parents=True)
    refused = train(folds, "--fold", "all", "-o", tmp_path / "other", "--overwrite")
    assert refused.code == 1 and "holds something else than a k-fold (give another -o)" in refused.err


def test_what_is_there_is_not_written_over(trained: Path, run: Path, folds: Path, brainseg: Callable[..., Any]) -> None:
    for place, told in ((trained, "already holds a k-fold (--resume goes on with it"), (run, "holds a single run")):
        ended = brainseg("train", folds, "--fold", "all", "-o", place, "--device", "cpu")
        assert ended.code == 1 and told in ended.err
