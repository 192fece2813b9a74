"""train where the world goes wrong in the middle: it is killed, interrupted, out of memory, a worker process dies."""

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from brainseg_cli.train import resume
from brainseg_cli.training.engine import Engine
from brainseg_cli.training.state import load_state

Program = Callable[..., Any]

DRIVER = '''
"""Runs `brainseg train ...` again and again, each in a process of its own, PyTorch loaded once for all of them, and
sends each a signal at a random moment: argv is the run, the signals ("0" lets it end), a seed, and the arguments."""
import json, os, random, signal, sys, time
from pathlib import Path
import brainseg_cli.train, brainseg_cli.evaluate.run, brainseg_cli.models.runtimes, brainseg_cli.augment
from brainseg_cli.cli.app import main

signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run in the background has it ignored
run, signals, moments, arguments = Path(sys.argv[1]), json.loads(sys.argv[2]), random.Random(sys.argv[3]), sys.argv[4:]
state = run / "state" / "last.pt"


def stamp():
    try:
        return state.stat().st_mtime_ns
    except FileNotFoundError:  # for a moment it is the one before, and the newest has no name yet
        return 0


for number in signals:
    Path(f"{run}.err").write_text("")  # one that is killed at once has said nothing, not what the one before said
    child = os.fork()
    if not child:
        os.dup2(os.open(f"{run}.out", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
        os.dup2(os.open(f"{run}.err", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
        sys.argv = ["brainseg", "train"]
        if (run / "run.json").exists():
            sys.argv += ["--resume", "-o", str(run), "--device", "cpu"]
        else:  # it was killed before there was a run
            sys.argv += [*arguments, "-o", str(run), "--device", "cpu", *(["--overwrite"] if run.exists() else [])]
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code or 0
        sys.stdout.flush()
        os._exit(code)
    ended, status, saves, seen, sent = 0, 0, 0, stamp(), None
    if number:
        wanted = moments.randint(0, 5)
        soon = moments.uniform(0, 1)
        deadline = time.monotonic() + (300 if wanted and not (run / "thresholds.csv").exists() else soon)
        while saves < wanted or not wanted:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended or time.monotonic() > deadline:
                break
            now = stamp()
            saves, seen = saves + (now != seen), now
            if (run / "thresholds.csv").exists() and deadline > time.monotonic() + 10:
                deadline = time.monotonic() + soon  # trained: in the midst of the report
            time.sleep(0.0005)
        time.sleep(moments.uniform(0, 0.03))
        if not ended:
            sent = number
            os.kill(child, number)
    if not ended:
        status = os.waitpid(child, 0)[1]
    print(json.dumps({
        "sent": sent, "code": os.waitstatus_to_exitcode(status), "told": Path(f"{run}.err").read_text(),
        "trained": (run / "thresholds.csv").exists(),
    }), flush=True)
'''
SAME = ("model/model.safetensors", "model/brainseg.json", "metrics.csv", "thresholds.csv", "report/summary.json")


def options(settings: Mapping[str, Any]) -> list[str]:
    told = {key: list(value) if isinstance(value, tuple) else value for key, value in settings.items()}
    return [part for key, value in told.items() for part in ("--set", f"{key}={value}")]


def drive(run: Path, signals: list[int], seed: int, *arguments: object) -> list[dict[str, Any]]:
    """How each ended, what it said, and whether the training was over then."""
    run.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-c", DRIVER, str(run), json.dumps(signals), str(seed), *map(str, arguments)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BRAINSEG_")}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=2400, env=environment | {"OMP_NUM_THREADS": "1"}, check=False
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def check_killed_as_undisturbed(
    dataset: Path, folder: Path, settings: Mapping[str, Any], signals: list[int], seed: int
) -> list[dict[str, Any]]:
    arguments = [dataset, "--preset", "fast", "--deterministic", *options(settings)]
    whole, killed = folder / "whole" / "run", folder / "killed" / "run"
    (undisturbed,) = drive(whole, [0], seed, *arguments)
    assert undisturbed["code"] == 0, undisturbed["told"]
    ends = drive(killed, [*signals, 0], seed, *arguments)
    for end in ends:
        told = [line for line in end["told"].splitlines() if line.startswith("error: ")]
        assert "Traceback" not in end["told"], end["told"]
        if end["code"] == 130:
            assert end["sent"] in (2, 15) and len(told) == 1, end
            assert f"brainseg train --resume -o {killed} goes on" in told[0] or told == ["error: interrupted"], end
        else:
            assert end["code"] in (0, -9) and told == [], end
    assert ends[-1]["code"] == 0
    for name in SAME:
        assert (killed / name).read_bytes() == (whole / name).read_bytes(), name
    files = [{path.relative_to(run).as_posix() for path in run.rglob("*")} for run in (whole, killed)]
    assert files[0] == files[1]  # hidden files too: nothing is left over
    return ends


WITHIN_EPOCHS = {"train.save_minutes": 1e-6, "train.batch_size": 2, "train.ema_decay": 0.8}


def test_killed_at_random_moments_and_resumed_it_ends_the_same(
    dataset: Path, tmp_path: Path, tiny_settings: dict[str, Any]
) -> None:
    """SIGKILL, SIGTERM and SIGINT, within epochs and between them: in the end the same bytes."""
    settings = tiny_settings | WITHIN_EPOCHS | {"train.epochs": 3, "train.accumulate": 2}
    ends = check_killed_as_undisturbed(dataset, tmp_path, settings, [9, 15, 9, 2, 9, 9], 1)
    assert sum(end["sent"] is not None and not end["trained"] for end in ends) >= 3  # else nothing was interrupted


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_killed_25_times_it_ends_the_same(dataset: Path, tmp_path: Path, tiny_settings: dict[str, Any]) -> None:
    settings = tiny_settings | WITHIN_EPOCHS | {"train.epochs": 12, "schedule.name": "plateau"}
    ends = check_killed_as_undisturbed(dataset, tmp_path, settings, [9, 9, 15, 9, 2] * 5, 11)
    within = sum(end["sent"] is not None and not end["trained"] for end in ends)
    assert sum(end["sent"] is not None for end in ends) == 25 and within >= 15


@pytest.fixture
def signals() -> Iterator[None]:
    """What the program does with signals ends with the test."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def before_step(monkeypatch: pytest.MonkeyPatch, epoch: int, position: int, act: Callable[[Engine], object]) -> None:
    """`act` once, within the step that begins after so many batches of that epoch (from 0)."""
    whole = Engine._infer
    done: list[int] = []

    def infer(engine: Engine, *batch: Any) -> Any:
        if (engine.state.epoch, engine.state.position) == (epoch, position) and not done:
            done.append(1)
            act(engine)
        return whole(engine, *batch)

    monkeypatch.setattr(Engine, "_infer", infer)


def train(brainseg: Program, dataset: Path, run: Path, settings: Mapping[str, Any], *more: object) -> Any:
    return brainseg("train", dataset, "-o", run, "--preset", "fast", "--device", "cpu", "-q", *options(settings), *more)


def check_resumed_as(whole: Path, run: Path, observer: Any) -> None:
    """What `train --resume` does before the report, which is the same for the same weights."""
    resume(run, observer, device_name="cpu")
    assert observer.messages == []
    for name in ("model/model.safetensors", "model/brainseg.json", "metrics.csv", "thresholds.csv"):
        assert (run / name).read_bytes() == (whole / name).read_bytes(), name


def told_in_one_line(ended: Any, code: int) -> str:
    assert (ended.code, ended.out) == (code, "")
    (line,) = ended.err.splitlines()
    assert line.startswith("error: ")
    return str(line)


@pytest.mark.usefixtures("signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_step_saves_and_says_how_to_go_on(
    number: signal.Signals,
    brainseg: Program,
    dataset: Path,
    run: Path,
    tmp_path: Path,
    tiny_settings: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    recorder: Any,
) -> None:
    made = tmp_path / "a run"
    with monkeypatch.context() as patched:
        before_step(patched, 1, 0, lambda engine: signal.raise_signal(number))
        line = told_in_one_line(train(brainseg, dataset, made, tiny_settings), 130)
    assert line == (
        f"error: {made}: interrupted; epoch 2 is saved up to its batch 1 (brainseg train --resume -o '{made}' goes on)"
    )
    state = load_state(made / "state" / "last.pt")
    assert (state.epoch, state.position, state.step) == (1, 1, 3)
    check_resumed_as(run, made, recorder)
    assert recorder.steps == [(2, 2, 2), (3, 1, 2), (3, 2, 2)]  # none twice


@pytest.mark.usefixtures("signals")
def test_a_second_signal_leaves_at_once(
    brainseg: Program,
    dataset: Path,
    run: Path,
    tmp_path: Path,
    tiny_settings: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    recorder: Any,
) -> None:
    def twice(engine: Engine) -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        pytest.fail("it went on")

    made = tmp_path / "run"
    with monkeypatch.context() as patched:
        before_step(patched, 1, 1, twice)
        line = told_in_one_line(train(brainseg, dataset, made, tiny_settings), 130)
    assert "interrupted; epoch 1 is saved" in line and "--resume" in line
    state = load_state(made / "state" / "last.pt")
    assert (state.epoch, state.position) == (1, 0)
    check_resumed_as(run, made, recorder)


PLACES = {
    "brainseg_cli.training.validation.Validation.measure": "epoch 1 is saved up to its batch 2",
    "brainseg_cli.train.conclude.sweep_thresholds": "epoch 3 is saved",
    "brainseg_cli.evaluate.run.measure_all": "it is trained, the report is not made",
}


@pytest.mark.usefixtures("signals")
@pytest.mark.parametrize("place", PLACES)
def test_a_signal_between_steps_is_heeded_at_once(
    place: str,
    brainseg: Program,
    dataset: Path,
    run: Path,
    tmp_path: Path,
    tiny_settings: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    recorder: Any,
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        signal.raise_signal(signal.SIGTERM)
        pytest.fail("it went on")

    made = tmp_path / "run"
    with monkeypatch.context() as patched:
        patched.setattr(place, interrupt)
        line = told_in_one_line(train(brainseg, dataset, made, tiny_settings), 130)
    assert PLACES[place] in line and f"brainseg train --resume -o {made} goes on" in line
    check_resumed_as(run, made, recorder)


def spoil(engine: Engine) -> None:
    engine.loss = lambda logits, reference: logits.sum() * float("nan")


@pytest.mark.usefixtures("signals")
@pytest.mark.parametrize("interrupted", [False, True])
def test_numbers_that_are_not_finite_are_never_saved(
    interrupted: bool,
    brainseg: Program,
    dataset: Path,
    tmp_path: Path,
    tiny_settings: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def act(engine: Engine) -> None:
        spoil(engine)
        if interrupted:
            signal.raise_signal(signal.SIGTERM)

    made = tmp_path / "run"
    before_step(monkeypatch, 1, 1, act)
    minutes = 0 if interrupted else 1e-6
    line = told_in_one_line(train(brainseg, dataset, made, tiny_settings | {"train.save_minutes": minutes}), 1)
    assert "the loss is nan in epoch 2" in line
    # what it names can be done: a resumed run keeps its rate
    assert "begin anew, with --overwrite and a lower --lr" in line and "--resume" not in line
    state = load_state(made / "state" / "last.pt")
    assert (state.epoch, state.position) == (1, 0 if interrupted else 1)
    for values in (state.model, state.average, state.best):
        assert all(bool(value.isfinite().all()) for value in values.values())
    # and so it is: another interrupt, of the run that begins
    before_step(monkeypatch, 1, 1, lambda engine: signal.raise_signal(signal.SIGTERM))
    line = told_in_one_line(train(brainseg, dataset, made, tiny_settings, "--overwrite", "--lr", "0.001"), 130)
    assert "epoch 2 is saved" in line


SHORTAGES = {
    "of PyTorch's": lambda engine: torch.empty(2**52),
    "of NumPy's": lambda engine: np.empty(2**52),
}


@pytest.mark.parametrize("kind", SHORTAGES)
def test_too_little_memory_is_one_line_and_what_to_try(
    kind: str,
    brainseg: Program,
    dataset: Path,
    run: Path,
    tmp_path: Path,
    tiny_settings: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    recorder: Any,
) -> None:
    made = tmp_path / "run"
    with monkeypatch.context() as patched:
        before_step(patched, 1, 1, SHORTAGES[kind])
        line = told_in_one_line(train(brainseg, dataset, made, tiny_settings), 1)
    assert "cpu has not enough memory for batches of 4" in line
    assert "--batch-size" in line and "--image-size" in line and f"--resume -o {made}" in line
    check_resumed_as(run, made, recorder)


def kill_worker(engine: Engine) -> None:
    """The one that loads, as the kernel does where memory is short; PyTorch says so sooner or later."""
    iterator: Any = engine.loader._iterator
    os.kill(iterator._workers[0].pid, signal.SIGKILL)
    time.sleep(60)
    pytest.fail("nobody noticed")


def test_a_worker_process_that_dies_is_one_line_and_the_run_goes_on(
    brainseg: Program,
    dataset: Path,
    run: Path,
    tmp_path: Path,
    tiny_settings: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    recorder: Any,
) -> None:
    made = tmp_path / "run"
    with monkeypatch.context() as patched:
        before_step(patched, 1, 1, kill_worker)
        ended = train(brainseg, dataset, made, tiny_settings | {"train.save_minutes": 1e-6}, "--workers", "1")
    line = told_in_one_line(ended, 1)
    assert "worker process that loads slices has ended (killed by signal: Killed)" in line
    assert "--workers 0" in line and f"--resume -o {made}" in line
    assert load_state(made / "state" / "last.pt").position == 1
    check_resumed_as(run, made, recorder)


def test_a_worker_process_that_fails_is_one_line(
    brainseg: Program, dataset: Path, tmp_path: Path, tiny_settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("brainseg_cli.training.squares.Squares.image", fail)
    line = told_in_one_line(train(brainseg, dataset, tmp_path / "run", tiny_settings, "--workers", "1"), 1)
    assert "worker process that loads slices has failed" in line and "Input/output error" in line
    assert "line" not in line.replace("error: ", "") and "File" not in line


class Trap:
    """A pickle that would run code."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (Path("sprung"), "")


def test_a_state_with_code_in_it_is_refused(
    brainseg: Program, run: Path, tmp_path: Path, recorder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = Path(shutil.copytree(run, tmp_path / "run"))
    (made / "state" / "last.pt").write_bytes(pickle.dumps(Trap()))
    resume(made, recorder, device_name="cpu")
    (line,) = recorder.messages
    assert "of which nothing was run; going on from the state before it" in line
    for name in ("last.pt", "previous.pt"):
        (made / "state" / name).write_bytes(pickle.dumps(Trap()))
    line = told_in_one_line(brainseg("train", "--resume", "-o", made, "--device", "cpu", "-q"), 1)
    assert str(made / "state" / "last.pt") in line and "of which nothing was run" in line and "--overwrite" in line
    assert not (tmp_path / "sprung").exists()


@pytest.mark.usefixtures("signals")
def test_deterministic_is_kept_by_resume_and_what_cannot_be_is_told(
    brainseg: Program, dataset: Path, tmp_path: Path, tiny_settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, seen = tmp_path / "run", []

    def look(engine: Engine) -> None:
        seen.append(torch.are_deterministic_algorithms_enabled())
        signal.raise_signal(signal.SIGTERM)  # seen enough

    def without_form(engine: Engine) -> None:
        torch.zeros(2).put_(torch.tensor([0]), torch.ones(1))
        look(engine)

    with monkeypatch.context() as patched:
        before_step(patched, 1, 1, without_form)
        line = told_in_one_line(train(brainseg, dataset, made, tiny_settings, "--deterministic"), 1)
    assert "put_ has no deterministic form on cpu" in line and "without --deterministic" in line
    assert not torch.are_deterministic_algorithms_enabled()
    with monkeypatch.context() as patched:
        before_step(patched, 1, 1, look)
        told_in_one_line(brainseg("train", "--resume", "-o", made, "--device", "cpu", "-q"), 130)
    before_step(monkeypatch, 1, 1, without_form)  # not asked for
    told_in_one_line(train(brainseg, dataset, tmp_path / "other", tiny_settings), 130)
    assert seen == [True, False]
