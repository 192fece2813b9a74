"""Who writes an output has it alone, for as long as it lives and not longer."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from brainseg_cli.errors import BrainsegError, BusyError, OutputExistsError
from brainseg_cli.io import locks
from brainseg_cli.io.atomic import name_aside
from brainseg_cli.io.locks import lock

pytestmark = pytest.mark.skipif(os.name != "posix", reason="nothing is locked elsewhere")

HOLDER = """
import sys, time
from pathlib import Path
from brainseg_cli.io.locks import lock
with lock(Path(sys.argv[1]), "train"):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def holding(path: Path, code: str = HOLDER) -> Iterator["subprocess.Popen[str]"]:
    """Another process that has the lock, until its stdin is closed."""
    command = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        yield other
        other.kill()


def is_free(path: Path, share: str | None = None) -> bool:
    try:
        with lock(path, "eval", share=share):
            return True
    except BusyError:
        return False


def test_the_second_is_told_who_is_at_it_and_nothing_is_left(tmp_path: Path) -> None:
    out = tmp_path / "up" / "out"
    with holding(out) as other:
        with pytest.raises(BusyError) as raised, lock(out, "eval"):
            pytest.fail("both have it")
        told = str(raised.value)
        assert told.startswith(f"{out}: is being written by brainseg train since 20") and "give another -o" in told
        assert f"process {other.pid} on {os.uname().nodename}" in told and raised.value.exit_code == 1
        assert is_free(tmp_path / "up" / "other")
        other.communicate()
    assert list(tmp_path.iterdir()) == []  # the folder that was made for it neither


def test_a_kill_leaves_a_file_that_holds_nobody_up(tmp_path: Path) -> None:
    with holding(tmp_path / "out") as other:
        other.send_signal(signal.SIGKILL)
        other.wait()
    assert [path.name for path in tmp_path.iterdir()] == [name_aside(tmp_path / "out", "lock").name]
    assert is_free(tmp_path / "out") and list(tmp_path.iterdir()) == []


def test_it_does_not_live_on_in_a_process_that_was_forked(tmp_path: Path) -> None:
    forking = HOLDER.replace("    print", "    import os, signal\n    if not os.fork(): signal.pause()\n    print")
    with holding(tmp_path / "out", f"import os; os.setpgrp()\n{forking}") as other:
        assert not is_free(tmp_path / "out")
        other.send_signal(signal.SIGKILL)
        other.wait()
        try:
            assert is_free(tmp_path / "out")
        finally:
            os.killpg(other.pid, signal.SIGKILL)


def test_links_and_other_spellings_are_one_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    monkeypatch.chdir(tmp_path)
    with lock(tmp_path / "real", "predict"):
        assert not is_free(tmp_path / "link") and not is_free(Path("real")) and not is_free(Path("real/../link/."))


def test_shares_write_side_by_side_but_not_one_twice_nor_beside_who_has_it_alone(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with ExitStack() as held:
        held.enter_context(lock(out, "predict", share="1-of-2"))
        with lock(out, "predict", share="2-of-2"):
            assert not is_free(out) and not is_free(out, "1-of-2") and is_free(out, "1-of-3")
        assert not is_free(out) and is_free(out, "2-of-2")  # who left first took nothing of the other's
    with lock(out, "predict"):
        assert not is_free(out, "1-of-2")
    assert list(tmp_path.iterdir()) == []


def test_who_waits_gets_it_when_the_other_is_done(tmp_path: Path) -> None:
    got = threading.Event()

    def wait() -> None:
        with lock(tmp_path / "out", "train", wait=True):
            got.set()

    with lock(tmp_path / "out", "eval"):
        thread = threading.Thread(target=wait)
        thread.start()
        assert not got.wait(0.05)
    thread.join()
    assert got.is_set() and list(tmp_path.iterdir()) == []


def test_never_two_at_once_however_they_come_and_go(tmp_path: Path) -> None:
    """The race of taking the file away: who opened it before must not believe to have the lock of the next one's."""
    code = HOLDER.replace("with lock", "for _ in range(300):\n  with lock").replace('"train")', '"train", wait=True)')
    code = code[: code.index("    print")] + (
        "    made = Path(sys.argv[1]).with_name('alone')\n"
        "    made.mkdir()\n"  # FileExistsError where another is in here
        "    made.rmdir()\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "out")]
    others = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    assert [(other.communicate()[1], other.returncode) for other in others] == [("", 0)] * 3
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"{", b'{"command": 1}', b"[]", b"\xff" * 9000, b"[" * 4000])
def test_who_it_is_may_be_unreadable(tmp_path: Path, content: bytes) -> None:
    with lock(tmp_path / "out", "train"):
        name_aside(tmp_path / "out", "lock").write_bytes(content)
        with pytest.raises(BusyError, match="is being written by another command"), lock(tmp_path / "out", "eval"):
            pytest.fail("both have it")


def test_what_is_read_of_it_is_a_terminals_danger_and_told_escaped(tmp_path: Path) -> None:
    from brainseg_cli.cli.console import _on_one_line

    with lock(tmp_path / "out", "train"):
        owner = {"command": "\x1b[2J\n", "since": "", "process": 1, "host": ""}
        name_aside(tmp_path / "out", "lock").write_text(json.dumps(owner))
        with pytest.raises(BusyError) as raised, lock(tmp_path / "out", "eval"):
            pytest.fail("both have it")
    assert "\x1b" not in _on_one_line(str(raised.value))


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "out").mkdir()
    name_aside(tmp_path / "out", "lock").symlink_to("precious")
    with lock(tmp_path / "out", "train"):
        assert not is_free(tmp_path / "out")  # the folder itself is what is locked
    assert (tmp_path / "precious").read_text() == "mine"


def refuse(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """No file can be made."""
    real = os.open

    def fail(path: object, flags: int, *mode: int, **more: object) -> int:
        if flags & os.O_CREAT:
            raise OSError(number, os.strerror(number), str(path))
        return real(path, flags, *mode)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", fail)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_where_no_file_can_be_made_the_folder_itself_is_locked(
    tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out").mkdir()
    refuse(monkeypatch, number)
    with (
        lock(tmp_path / "out", "train"),
        pytest.raises(BusyError, match="another command"),
        lock(tmp_path / "out", "eval"),
    ):
        pytest.fail("both have it")
    assert is_free(tmp_path / "out")
    with pytest.raises(BrainsegError, match=f"new: cannot be written: {os.strerror(number)}"):
        is_free(tmp_path / "new")


def test_a_disk_without_locks_locks_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(locks.fcntl, "flock", refuse)
    with lock(tmp_path / "out", "train"):
        assert is_free(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_the_root_of_all_is_no_place_for_a_result() -> None:
    with pytest.raises(OutputExistsError, match="is no place for a result"), lock(Path("/"), "eval"):
        pass
