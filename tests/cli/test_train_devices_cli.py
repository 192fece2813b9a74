"""brainseg train --devices: the real program, as two processes of a CPU."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file

from brainseg_cli.train import resume
from brainseg_cli.training.state import load_state

Program = Callable[..., Any]


def options(settings: dict[str, Any]) -> list[str]:
    told = {key: list(value) if isinstance(value, tuple) else value for key, value in settings.items()}
    return [part for key, value in told.items() for part in ("--set", f"{key}={value}")]


def call(*arguments: object, device: str = "cpu", devices: int = 2) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "brainseg_cli", "train", *map(str, arguments), "--device", device]
    command += ["--devices", str(devices)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_two_processes_leave_the_run_of_one(
    run: Path, dataset: Path, tmp_path: Path, tiny_settings: dict[str, Any]
) -> None:
    made = tmp_path / "run"
    ended = call(dataset, "-o", made, "--preset", "fast", *options(tiny_settings))
    assert (ended.returncode, ended.stdout) == (0, f"{made}\n"), ended.stderr
    # one of them tells
    lines = ended.stderr.splitlines()
    assert [line.split()[1] for line in lines if line.startswith("epoch ")] == ["1/3", "2/3", "3/3"]
    assert lines.count("loading PyTorch") == 1 and sum(line.startswith("test split:") for line in lines) == 1
    # what is left is what one process leaves: `run`, of the same settings; what differs is rounding (some 2e-6)
    alone, together = (pd.read_csv(folder / "metrics.csv") for folder in (run, made))
    # a pixel more or less is 2e-3 of a dice this small
    pd.testing.assert_frame_equal(together, alone, rtol=1e-2, atol=1e-6)
    expected, found = (load_file(folder / "model" / "model.safetensors") for folder in (run, made))
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-4, err_msg=name)
    names = {path.relative_to(run) for path in run.rglob("*") if path.parent.name != "cache"}  # named by its hash
    assert names <= {path.relative_to(made) for path in made.rglob("*")}
    assert ", 2 processes" in (made / "run.json").read_text() and ", 2 processes" in (made / "train.log").read_text()


def test_interrupted_the_first_saves_and_one_process_goes_on(
    run: Path, dataset: Path, tmp_path: Path, tiny_settings: dict[str, Any], recorder: Any
) -> None:
    made = tmp_path / "run"
    settings = tiny_settings | {"train.epochs": 200, "train.save_minutes": 0, "train.batch_size": 2}
    command = [sys.executable, "-m", "brainseg_cli", "train", str(dataset), "-o", str(made), "--preset", "fast"]
    command += ["--device", "cpu", "--devices", "2", *options(settings)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 200
    while not (made / "metrics.csv").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)  # to who started them: it tells them
    out, err = process.communicate(timeout=100)
    assert (process.returncode, out) == (130, ""), err
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert line == f"error: {made}: interrupted (brainseg train --resume -o {made} goes on)"
    assert "Traceback" not in err
    state = load_state(made / "state" / "last.pt")
    assert state.epoch >= 1
    config = (made / "config.toml").read_text()
    (made / "config.toml").write_text(config.replace("epochs = 200", f"epochs = {state.epoch + 1}"))
    resume(made, recorder, device_name="cpu")
    assert recorder.steps[0][:2] == (state.epoch + 1, state.position + 1) and recorder.messages == []


def test_a_failure_is_one_line_and_its_exit_code(dataset: Path, tmp_path: Path) -> None:
    ended = call(dataset, "-o", tmp_path / "run", "--batch-size", "1", "-q")
    assert (ended.returncode, ended.stdout) == (2, "")
    (line,) = ended.stderr.splitlines()
    assert line.startswith("error: a batch of 1 slices cannot be shared out among 2 processes")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("number", ["0", "-1", "two"])
def test_a_number_of_devices_that_makes_no_sense(number: str, brainseg: Program, dataset: Path) -> None:
    ended = brainseg("train", dataset, "--devices", number)
    assert (ended.code, ended.out) == (2, "") and "--devices" in ended.err


def test_more_devices_than_there_are(
    brainseg: Program, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    ended = brainseg("train", dataset, "-o", tmp_path / "run", "--device", "cuda", "--devices", "2")
    assert (ended.code, ended.err) == (2, "error: --devices 2: PyTorch sees 1 CUDA devices here\n")
    assert not (tmp_path / "run").exists()


def test_under_torchrun_the_processes_are_torchruns(
    brainseg: Program, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"TORCHELASTIC_RUN_ID": "1", "RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    for arguments in ([dataset, "--devices", "2"], ["--demo"]):
        ended = brainseg("train", *arguments, "-o", tmp_path / "run")
        assert ended.code == 2 and len(ended.err.splitlines()) == 1 and "torchrun --nproc-per-node N" in ended.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.gpu
def test_two_gpus_train_as_one(dataset: Path, tmp_path: Path, tiny_settings: dict[str, Any]) -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.device_count() < 2:
        pytest.skip("PyTorch sees fewer than two CUDA devices")
    settings = options(tiny_settings | {"train.accumulate": 2, "train.ema_decay": 0.5})
    for name, devices in (("alone", 1), ("together", 2)):
        ended = call(dataset, "-o", tmp_path / name, "-q", *settings, device="cuda", devices=devices)
        assert (ended.returncode, ended.stderr) == (0, "")
    alone, together = (pd.read_csv(tmp_path / name / "metrics.csv") for name in ("alone", "together"))
    for name in ("train_loss", "val_loss"):
        np.testing.assert_allclose(together[name], alone[name], rtol=1e-2)  # TF32, and sums in no fixed order
