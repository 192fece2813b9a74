"""What is somebody else's stays, and what a run says of itself stays true."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from brainseg_cli import prepare

Brainseg = Callable[..., Any]


@pytest.fixture
def holiday(tmp_path: Path) -> Path:
    """A folder that is none of ours."""
    folder = tmp_path / "holiday"
    folder.mkdir()
    (folder / "photo.txt").write_text("dear")
    return folder


def test_prepare_overwrites_nothing_but_a_dataset(brainseg: Brainseg, phantom: Path, holiday: Path) -> None:
    ended = brainseg("prepare", phantom, "-o", holiday, "--overwrite", "-q")
    assert ended.code == 1 and "holds something else than a dataset" in ended.err
    assert (holiday / "photo.txt").read_text() == "dear"


def test_train_overwrites_nothing_but_a_run(brainseg: Brainseg, dataset: Path, holiday: Path) -> None:
    ended = brainseg("train", dataset, "-o", holiday, "--overwrite", "-q")
    assert ended.code == 1 and "holds something else than a run" in ended.err
    assert [path.name for path in holiday.iterdir()] == ["photo.txt"]


def test_a_linked_dataset_is_replaced_behind_its_link(phantom: Path, tmp_path: Path) -> None:
    preparation = prepare.check(phantom, split="70/15/15", workers=1)
    prepare.write_dataset(preparation, tmp_path / "real")
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "real" / "stale").touch()
    prepare.write_dataset(preparation, tmp_path / "link", overwrite=True)
    assert (tmp_path / "link").is_symlink() and not (tmp_path / "real" / "stale").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "real"]


@pytest.mark.parametrize("option", [("--threshold", "0.9"), ("--batch-size", "3")])
def test_another_report_does_not_replace_the_runs_own(
    brainseg: Brainseg, run: Path, tmp_path: Path, option: tuple[str, str]
) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    assert brainseg("eval", copy, "--device", "cpu", "-q").code == 0
    before = (copy / "report" / "summary.json").read_bytes()
    ended = brainseg("eval", copy, *option, "--device", "cpu", "-q")
    assert ended.code == 1 and "is already there" in ended.err
    assert (copy / "report" / "summary.json").read_bytes() == before
    assert brainseg("eval", copy, *option, "-o", tmp_path / "other", "--device", "cpu", "-q").code == 0
    assert brainseg("eval", copy, "--device", "cpu", "-q").code == 0
    assert (copy / "report" / "summary.json").read_bytes() == before


def test_a_leaky_split_stays_leaky_wherever_it_goes(
    brainseg: Brainseg, phantom: Path, dataset: Path, tiny_settings: dict[str, Any], tmp_path: Path
) -> None:
    leaky, run = tmp_path / "leaky", tmp_path / "run"
    assert brainseg("prepare", phantom, "-o", leaky, "--split", "slice-random", "--allow-leakage", "-q").code == 0
    settings = [f"--set={key}={list(v) if isinstance(v, tuple) else v}" for key, v in tiny_settings.items()]
    trained = brainseg("train", leaky, "-o", run, "--preset", "fast", *settings, "--device", "cpu", "-q")
    assert trained.code == 0 and "LEAKY" in trained.err
    predicted = brainseg("predict", phantom, "-m", run, "-o", tmp_path / "masks", "--device", "cpu", "-q")
    assert predicted.code == 0 and "LEAKY" in predicted.err
    elsewhere = brainseg("eval", run, "--data", dataset, "-o", tmp_path / "r", "--device", "cpu", "--json", "-q")
    assert elsewhere.code == 0 and '"leaky": true' in elsewhere.out
    torn = brainseg(
        "eval", "--reference", phantom, "--prediction", tmp_path / "masks", "--patients", run / "split.csv",
        "-o", tmp_path / "f", "-q",
    )  # fmt: skip
    assert torn.code == 1 and "is leaky" in torn.err


def test_a_run_killed_in_its_first_epoch_can_be_resumed_and_says_so(
    brainseg: Brainseg, dataset: Path, run: Path, tmp_path: Path
) -> None:
    shutil.copytree(run, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "state")
    ended = brainseg("train", dataset, "-o", tmp_path / "run", "-q")
    assert ended.code == 1 and "--resume goes on with it" in ended.err


def test_a_batch_too_small_to_train_on_is_refused_before_anything_is_written(
    brainseg: Brainseg, dataset: Path, tiny_settings: dict[str, Any], tmp_path: Path
) -> None:
    ended = brainseg(
        "train", dataset, "-o", tmp_path / "run", "--preset", "fast", "--encoder", "resnet18", "--batch-size", "1",
        "--image-size", "32", "--device", "cpu", "-q",
    )  # fmt: skip
    assert ended.code == 2 and "cannot be trained on 1 images of 32x32" in ended.err
    assert not (tmp_path / "run").exists()
