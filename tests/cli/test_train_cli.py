"""brainseg train: what it prints where, whose word counts, and that kill -9 costs nothing but time."""

import functools
import io
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console as RichConsole

from brainseg_cli.cli.console import Console
from brainseg_cli.cli.train_table import COLUMNS, TrainTable
from brainseg_cli.config import read_config
from brainseg_cli.data import phantom as phantom_module
from brainseg_cli.training.state import load_state

Program = Callable[..., Any]


def options(settings: Mapping[str, Any]) -> list[str]:
    """`--set` for each of them, as one would type it."""
    told = {key: list(value) if isinstance(value, tuple) else value for key, value in settings.items()}
    return [part for key, value in told.items() for part in ("--set", f"{key}={value}")]


def numbers(run: Path) -> pd.DataFrame:
    return pd.read_csv(run / "metrics.csv")


def test_data_to_stdout_and_the_rest_to_stderr(
    brainseg: Program, dataset: Path, tmp_path: Path, tiny_settings: dict[str, Any]
) -> None:
    run = tmp_path / "run"
    ended = brainseg("train", dataset, "-o", run, "--preset", "fast", "--device", "cpu", *options(tiny_settings))
    assert ended.code == 0 and ended.out == f"{run}\n"
    epochs = [line for line in ended.err.splitlines() if line.startswith("epoch ")]
    assert [line.split()[1] for line in epochs] == ["1/3", "2/3", "3/3"]
    for word in ("train_loss", "val_loss", "train_dice", "val_iou", "val_accuracy", "lr", "images_per_s", "left"):
        assert all(f"{word}=" in line for line in epochs)
    assert "dice_patient" in ended.err and "finding nothing" in ended.err and "\x1b" not in ended.err
    report = ["lesions.csv", "patients.csv", "report.html", "report.md", "slices.csv", "summary.json"]
    assert sorted(path.name for path in (run / "report").iterdir()) == report
    assert (run / "figures" / "overlays.png").exists() and len(pd.read_csv(run / "thresholds.csv")) == 99
    summary = json.loads((run / "report" / "summary.json").read_text())
    threshold = json.loads((run / "model" / "brainseg.json").read_text())["threshold"]
    assert (summary["split"], summary["threshold"], summary["threshold_from"]) == ("test", threshold, "val")
    assert f"threshold {threshold:g}" in ended.err


def test_one_json_object_and_quiet(
    brainseg: Program, dataset: Path, tmp_path: Path, tiny_settings: dict[str, Any]
) -> None:
    short = options(tiny_settings | {"train.epochs": 1})
    ended = brainseg("train", dataset, "-o", tmp_path / "run", "--device", "cpu", "--json", "-q", *short)
    result = json.loads(ended.out)
    assert (ended.code, ended.err) == (0, "")
    assert (result["run"], result["epochs"], result["best_epoch"]) == (str(tmp_path / "run"), 1, 1)
    assert result["report"]["metrics"].keys() >= {"dice_patient", "iou_pooled", "accuracy"}


def test_a_flag_counts_more_than_the_environment_than_a_file_than_the_preset(
    brainseg: Program,
    dataset: Path,
    tmp_path: Path,
    tiny_settings: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("[train]\nepochs = 9\nseed = 9\npatience = 9\n[optimizer]\nlr = 0.09\n[loss]\nfocal_gamma = 9\n")
    monkeypatch.setenv("BRAINSEG_EPOCHS", "8")
    monkeypatch.setenv("BRAINSEG_SEED", "8")
    monkeypatch.setenv("BRAINSEG_PATIENCE", "8")
    monkeypatch.setenv("BRAINSEG_LR", "0.08")
    monkeypatch.setenv("BRAINSEG_CONFIG", str(file))
    settings = {key: value for key, value in tiny_settings.items() if key not in ("train.epochs", "optimizer.lr")}
    run = tmp_path / "run"
    ended = brainseg(
        "train", dataset, "-o", run, "--preset", "fast", "--device", "cpu", "-q",
        "--epochs", "1", *options(settings | {"train.epochs": 2, "train.seed": 7, "optimizer.lr": 0.07}),
    )  # fmt: skip
    assert ended.code == 0, ended.err
    config = read_config(run / "config.toml")
    assert config.train.epochs == 1  # the flag
    assert (config.train.seed, config.optimizer.lr) == (7, 0.07)  # --set
    assert config.train.patience == 8  # the environment
    assert config.loss.focal_gamma == 9  # the file
    assert config.train.tumour_share == 0.65  # the preset


def test_kill_9_and_resume_end_as_if_nothing_had_happened(
    brainseg: Program, dataset: Path, tmp_path: Path, tiny_settings: dict[str, Any]
) -> None:
    settings = options(tiny_settings | {"train.epochs": 10, "train.ema_decay": 0.8})
    arguments = ["--preset", "fast", "--device", "cpu", *settings]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    process = subprocess.Popen(
        [sys.executable, "-m", "brainseg_cli", "train", str(dataset), "-o", str(killed), *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    table = killed / "metrics.csv"
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and process.poll() is None:
        if table.exists() and len(table.read_text().splitlines()) >= 3:
            break
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    _, told = process.communicate(timeout=30)
    assert process.returncode == -signal.SIGKILL, told.decode()
    assert 1 < load_state(killed / "state" / "last.pt").epoch < 10
    assert not (killed / "report").exists()

    resumed = brainseg("train", "--resume", "-o", killed, "--device", "cpu")
    assert (resumed.code, resumed.out) == (0, f"{killed}\n"), resumed.err
    assert brainseg("train", dataset, "-o", whole, *arguments).code == 0
    for name in (
        "model/model.safetensors", "model/brainseg.json", "report/slices.csv", "config.toml", "split.csv",
        "thresholds.csv",
    ):  # fmt: skip
        assert (killed / name).read_bytes() == (whole / name).read_bytes(), name
    assert numbers(killed).to_csv() == numbers(whole).to_csv()
    assert not [path for path in tmp_path.rglob(".*") if path.suffix in (".partial", ".lock")]


@pytest.fixture
def copied(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "copied"))


def test_a_finished_run_resumed_is_measured_again_and_not_trained(brainseg: Program, copied: Path, run: Path) -> None:
    ended = brainseg("train", "--resume", "-o", copied, "--device", "cpu")
    assert ended.code == 0 and "epoch 1/" not in ended.err
    for name in ("model/model.safetensors", "model/brainseg.json", "thresholds.csv", "metrics.csv", "state/last.pt"):
        assert (copied / name).read_bytes() == (run / name).read_bytes()


def test_an_existing_run_is_not_written_over(brainseg: Program, copied: Path, dataset: Path) -> None:
    ended = brainseg("train", dataset, "-o", copied, "-q")
    assert (ended.code, ended.out) == (1, "")
    assert "--resume" in ended.err and "--overwrite" in ended.err and len(ended.err.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments", [["--epochs", "9"], ["--set", "optimizer.lr=1"], ["--preset", "fast"], ["--overwrite"], ["--demo"]]
)
def test_a_resumed_run_keeps_its_configuration(brainseg: Program, copied: Path, arguments: list[str]) -> None:
    ended = brainseg("train", "--resume", "-o", copied, *arguments)
    assert ended.code == 2 and "keeps its own configuration" in ended.err and len(ended.err.splitlines()) == 1


def test_what_the_environment_says_is_passed_over_by_resume(
    brainseg: Program, copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BRAINSEG_EPOCHS", "99")
    assert brainseg("train", "--resume", "-o", copied, "--device", "cpu", "-q").code == 0
    assert read_config(copied / "config.toml").train.epochs == 3


def test_a_loss_that_is_not_finite_is_one_line_and_keeps_the_state_before(
    brainseg: Program,
    dataset: Path,
    tmp_path: Path,
    tiny_settings: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wild = tiny_settings | {"optimizer.name": "sgd", "optimizer.lr": 1e30, "optimizer.clip_norm": 0}
    ended = brainseg("train", dataset, "-o", tmp_path / "wild", "--device", "cpu", "-q", *options(wild))
    assert (ended.code, ended.out) == (1, "")
    assert "in epoch 1" in ended.err and "a lower --lr" in ended.err and len(ended.err.splitlines()) == 1
    assert not (tmp_path / "wild" / "state").exists()

    from brainseg_cli.training.engine import Engine

    whole = Engine._train_epoch

    def spoiled(engine: Engine) -> dict[str, float]:
        if engine.state.epoch == 2:
            engine.loss = lambda logits, reference: logits.sum() * float("nan")
        return whole(engine)

    run = tmp_path / "run"
    with monkeypatch.context() as patched:
        patched.setattr(Engine, "_train_epoch", spoiled)
        ended = brainseg("train", dataset, "-o", run, "--device", "cpu", "-q", *options(tiny_settings))
    assert ended.code == 1 and "the loss is nan in epoch 3" in ended.err
    assert load_state(run / "state" / "last.pt").epoch == 2 and len(numbers(run)) == 2
    assert brainseg("train", "--resume", "-o", run, "--device", "cpu", "-q").code == 0
    assert numbers(run)["epoch"].tolist() == [1, 2, 3]


def test_a_download_that_fails_is_one_line(
    brainseg: Program, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setattr("segmentation_models_pytorch.encoders.hf_hub_download", refuse)
    ended = brainseg("train", dataset, "-o", tmp_path / "run", "--encoder-weights", "imagenet", "-q")
    assert (ended.code, ended.out, len(ended.err.splitlines())) == (1, "", 1)
    assert "no route to host" in ended.err and "--encoder-weights none" in ended.err
    assert not (tmp_path / "run").exists()


def test_the_demo(
    brainseg: Program, tmp_path: Path, tiny_settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    small = functools.partial(phantom_module.write_phantom, patients=6, slices=(4, 6), height=40, width=56)
    monkeypatch.setattr(phantom_module, "write_phantom", small)
    arguments = ["train", "--demo", "--device", "cpu", *options(tiny_settings | {"train.epochs": 1})]
    for _ in range(2):  # what it replaces is its own
        ended = brainseg(*arguments)
        assert (ended.code, ended.out) == (0, f"{Path('runs', 'demo')}\n"), ended.err
    assert (tmp_path / "data" / "demo" / "dataset" / "dataset.json").exists()
    assert (tmp_path / "runs" / "demo" / "report" / "summary.json").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "runs"]


def test_on_a_terminal_there_is_a_live_table_that_fits_80_columns() -> None:
    console = Console()
    screen = io.StringIO()
    console.rich = RichConsole(file=screen, force_terminal=True, width=80, no_color=True)
    row = {name: 0.1234 + number for number, name in enumerate(COLUMNS)} | {"epoch": 1.0, "seconds": 61.0, "lr": 1e-5}
    with TrainTable(console) as table:
        table.on_step(1, 3, 3, 12.5)
        table.on_epoch(row, best=True, epochs=3)
        table.on_step(2, 3, 3, 12.5)
        table.on_message("something to know")
    shown = screen.getvalue()
    assert "step 3 of 3, 12.5 images/s, 2:02 left" in shown
    assert "1*" in shown and "warning: something to know" in shown
    assert all(name.split("_")[-1] in shown for name in COLUMNS)
    assert all(form.format(row[name]) in shown for name, form in COLUMNS.items()) and "…" not in shown
