"""Several processes that end as one: one line, one exit code, no orphan."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from brainseg_cli.errors import BrainsegError
from brainseg_cli.training.launch import find_rank, is_launched, is_under_torchrun, launch

START = """
import os, signal, sys, time
from brainseg_cli.errors import InputError, UsageError
from brainseg_cli.training.launch import find_rank, is_launched, telling_launcher

rank = find_rank()
with telling_launcher():
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as the program does
"""
Script = Callable[[str], list[str]]


@pytest.fixture
def script(tmp_path: Path) -> Script:
    """The command of a process that does this; its file is no part of a `$$` pattern, and stays as it is."""

    def write(body: str) -> list[str]:
        path = tmp_path / "a$$b ${local_rank}.py"
        path.write_text(START + "".join(f"    {line}\n" for line in body.splitlines()))
        return [sys.executable, str(path)]

    return write


@pytest.mark.parametrize(("threads", "each"), [(None, "3"), ("5", "5")])
def test_every_process_knows_its_place(
    threads: str | None, each: str, script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.get_num_threads", lambda: 7)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if threads:  # what is set counts
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
    told = "'WORLD_SIZE', 'LOCAL_WORLD_SIZE', 'OMP_NUM_THREADS', 'BRAINSEG_LAUNCHER_PID'"
    body = f"open(r'{tmp_path}/' + str(rank), 'w').write(' '.join(os.environ[name] for name in ({told})))"
    before = dict(os.environ), signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    launch(script(body), 2)
    assert [(tmp_path / rank).read_text() for rank in "01"] == [f"2 2 {each} {os.getpid()}"] * 2
    assert (find_rank(), is_launched(), is_under_torchrun()) == (0, False, False)
    assert (dict(os.environ), signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


FAILURES = {
    "one is told, the other stopped": (
        "if rank == 1: raise UsageError('no such thing', hint='do so')\ntime.sleep(60)",
        (BrainsegError, 2, "no such thing (do so)"),
    ),
    "what all say is told once": (
        "raise InputError('is broken', where='a.tif')",
        (BrainsegError, 1, "a.tif: is broken"),
    ),
    "what was expected, before what came of it": (
        "if rank == 1:\n"
        "    signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"  # else it is stopped before it speaks
        "    open(sys.argv[1], 'w')\n    time.sleep(0.3)\n    raise InputError('is broken')\n"
        "while not os.path.exists(sys.argv[1]): time.sleep(0.01)\n"
        "raise ValueError('missing peer')",
        (BrainsegError, 1, "is broken"),
    ),
    "a file that cannot be read": (
        "open('/no/such/file')",
        (BrainsegError, 1, "/no/such/file: No such file or directory"),
    ),
    "a fault": ("raise ValueError('odd')", (RuntimeError, None, "ValueError: odd")),
    "a killed process, before the connection that it broke": (
        "if rank == 1:\n    open(sys.argv[1], 'w')\n    os.kill(os.getpid(), signal.SIGKILL)\n"
        "while not os.path.exists(sys.argv[1]): time.sleep(0.01)\n"
        "raise RuntimeError('[gloo/pair.cc:561] Connection closed by peer')",
        (BrainsegError, 1, "process 1 was ended by SIGKILL, so the others were stopped (--resume goes on)"),
    ),
    "a reader of stdout that has gone": ("if rank == 0: sys.exit(141)", (SystemExit, 141, "141")),
    "stopped from outside": ("os.kill(os.getpid(), signal.SIGTERM)\ntime.sleep(60)", (KeyboardInterrupt, None, "")),
}


@pytest.mark.parametrize("name", FAILURES)
def test_the_first_reason_is_the_one_that_is_raised(
    name: str, script: Script, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    body, (kind, code, line) = FAILURES[name]
    started = time.monotonic()
    with pytest.raises(kind) as caught:
        launch([*script(body), str(tmp_path / "met")], 2)
    assert str(caught.value) == line
    if code is not None:
        assert getattr(caught.value, "exit_code", getattr(caught.value, "code", None)) == code
    assert capfd.readouterr() == ("", "")  # no traceback of the processes', no table of the launcher's
    assert time.monotonic() - started < 30


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="asks /proc who is alive")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_no_process_outlives_its_launcher(number: signal.Signals, script: Script, tmp_path: Path) -> None:
    body = f"open(r'{tmp_path}/pid-' + str(rank), 'w').write(str(os.getpid()))\ntime.sleep(120)"
    launcher = tmp_path / "launcher.py"
    launcher.write_text(
        "import sys\nfrom brainseg_cli.training.launch import launch\n"
        "try:\n    launch(sys.argv[1:], 2)\nexcept KeyboardInterrupt:\n    sys.exit(130)\n"
    )
    process = subprocess.Popen([sys.executable, str(launcher), *script(body)], stderr=subprocess.PIPE)
    files = [tmp_path / "pid-0", tmp_path / "pid-1"]
    wait_for(lambda: all(file.exists() and file.read_text() for file in files))
    process.send_signal(number)
    _, told = process.communicate(timeout=60)
    assert process.returncode == (-number if number == signal.SIGKILL else 130), told.decode()
    assert told == b""
    wait_for(lambda: not any(is_alive(int(file.read_text())) for file in files))
