"""train where the world goes wrong in the middle: it is killed, interrupted, out of memory, a worker process dies."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

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
stamp = lambda: state.stat().st_mtime_ns if state.exists() else 0
for number in signals:
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
        command, capture_output=True, text=True, timeout=560, env=environment | {"OMP_NUM_THREADS": "1"}, check=False
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
    settings = tiny_settings | WITHIN_EPOCHS | {"train.epochs": 4, "train.accumulate": 2}
    ends = check_killed_as_undisturbed(dataset, tmp_path, settings, [9, 15, 9, 2, 9, 9], 1)
    assert sum(end["sent"] is not None and not end["trained"] for end in ends) >= 3  # else nothing was interrupted


@pytest.mark.slow
@pytest.mark.parametrize("seed", [11, 12])
def test_killed_25_times_it_ends_the_same(
    seed: int, dataset: Path, tmp_path: Path, tiny_settings: dict[str, Any]
) -> None:
    settings = tiny_settings | WITHIN_EPOCHS | {"train.epochs": 12, "schedule.name": "plateau"}
    ends = check_killed_as_undisturbed(dataset, tmp_path, settings, [9, 9, 15, 9, 2] * 5, seed)
    within = sum(end["sent"] is not None and not end["trained"] for end in ends)
    assert sum(end["sent"] is not None for end in ends) == 25 and within >= 15


TRAINER = '''
"""`brainseg train ...` after some code that arranges a fault: argv is that code, and the arguments."""
import signal, sys, time
from brainseg_cli import train
from brainseg_cli.cli.app import main
from brainseg_cli.cli.train_table import TrainTable
from brainseg_cli.training.engine import Engine

signal.signal(signal.SIGINT, signal.default_int_handler)
code, sys.argv = sys.argv[1], ["brainseg", "train", *sys.argv[2:]]
exec(code)
main()
'''


def start(code: str, *arguments: object) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", TRAINER, code, *map(str, arguments), "--device", "cpu", "-q"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BRAINSEG_")}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def wait(process: "subprocess.Popen[str]") -> tuple[int, list[str]]:
    _, told = process.communicate(timeout=120)
    return process.returncode, told.splitlines()
