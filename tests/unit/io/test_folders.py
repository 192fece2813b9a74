"""Folders that appear whole or not at all, and what a kill in the middle leaves for the next to put in order."""

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path

import pytest

from brainseg_cli.errors import BusyError, OutputExistsError
from brainseg_cli.io import folders
from brainseg_cli.io.atomic import name_aside, write_text
from brainseg_cli.io.folders import atomic_folder


class StopError(Exception):
    pass


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def make(folder: Path, name: str) -> None:
    """A folder of one file, in the place of what is there."""
    with atomic_folder(folder, "x", overwrite=True) as aside:
        write_text(aside / name, name)


def test_a_folder_appears_whole(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "up" / "d", "x") as aside:
        write_text(aside / "sub" / "x", "x")
        assert not (tmp_path / "up" / "d").exists()
    assert names(tmp_path / "up") == ["d"]
    assert (tmp_path / "up" / "d" / "sub" / "x").read_text() == "x"


def test_a_folder_is_not_replaced_unless_asked(tmp_path: Path) -> None:
    write_text(tmp_path / "d" / "old", "old")
    with pytest.raises(OutputExistsError), atomic_folder(tmp_path / "d", "x"):
        pytest.fail("the work was begun")
    with atomic_folder(tmp_path / "d", "x", overwrite=True) as aside:
        write_text(aside / "new", "new")
        assert names(tmp_path / "d") == ["old"]
    assert names(tmp_path / "d") == ["new"]
    assert names(tmp_path) == ["d"]


def test_an_exception_leaves_the_old_folder_and_nothing_else(tmp_path: Path) -> None:
    write_text(tmp_path / "d" / "old", "old")
    with pytest.raises(StopError), atomic_folder(tmp_path / "d", "x", overwrite=True) as aside:
        write_text(aside / "new", "new")
        raise StopError
    assert names(tmp_path) == ["d"] and names(tmp_path / "d") == ["old"]


def test_an_exception_takes_the_folders_around_it_away_but_no_others(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(ZeroDivisionError), atomic_folder(tmp_path / "mine" / "a" / "b" / "made", "x") as folder:
        (folder / "x").write_text("x")
        (tmp_path / "mine" / "a" / "other").write_text("kept")
        raise ZeroDivisionError
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "mine", "other"]


def test_a_folder_does_not_replace_a_file(tmp_path: Path) -> None:
    write_text(tmp_path / "d", "a file")
    with pytest.raises(OutputExistsError, match="is a file"), atomic_folder(tmp_path / "d", "x", overwrite=True):
        pytest.fail("the work was begun")
    assert (tmp_path / "d").read_text() == "a file"


def test_a_folder_follows_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        make(tmp_path / "d", "x")
    finally:
        os.umask(old)
    assert os.name != "posix" or stat.S_IMODE((tmp_path / "d").stat().st_mode) == 0o750


def test_what_a_kill_left_goes_when_the_folder_is_written_next(tmp_path: Path) -> None:
    for kind in ("partial", "old"):
        write_text(name_aside(tmp_path / "d", kind) / "half", "half")
    write_text(name_aside(tmp_path / "other") / "half", "half")
    write_text(tmp_path / "d" / "before", "before")
    make(tmp_path / "d", "new")
    assert names(tmp_path) == sorted(["d", name_aside(tmp_path / "other").name]) and names(tmp_path / "d") == ["new"]


def test_two_do_not_write_one_folder(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "d", "first") as aside:
        with pytest.raises(BusyError, match="written by brainseg first"), atomic_folder(tmp_path / "d", "second"):
            pytest.fail("the work was begun")
        write_text(aside / "x", "x")
    assert names(tmp_path) == ["d"] and names(tmp_path / "d") == ["x"]


@pytest.fixture(params=["exchanged", "renamed twice"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """As Linux does it, and as the rest of the world does."""
    if request.param == "renamed twice":
        monkeypatch.setattr(folders, "_exchange", lambda one, other: False)
    return str(request.param)


@pytest.mark.parametrize("step", ["rename", "sync_folder"])
def test_the_old_folder_stands_until_the_new_one_does(
    tmp_path: Path, way: str, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in the change, or right behind it: what is there then, or after the next command, is whole."""
    make(tmp_path / "d", "old")
    rename = Path.rename

    def stop(*paths: Path) -> Path:
        if step == "rename" and paths[1] != tmp_path / "d":
            return rename(*paths)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Path if step == "rename" else folders, step, stop)
        patched.setattr(folders.shutil, "rmtree", lambda *_, **__: None)  # a kill tidies nothing up
        with suppress(KeyboardInterrupt), atomic_folder(tmp_path / "d", "x", overwrite=True) as aside:
            write_text(aside / "new", "new")
    found = names(tmp_path / "d") if (tmp_path / "d").exists() else None
    assert found in (["old"], ["new"]) or (way, step, found) == ("renamed twice", "rename", None)
    with pytest.raises(OutputExistsError), atomic_folder(tmp_path / "d", "x"):
        pytest.fail("what was there is forgotten")
    assert names(tmp_path / "d") in (["old"], ["new"])
    make(tmp_path / "d", "next")
    assert names(tmp_path) == ["d"] and names(tmp_path / "d") == ["next"]


def test_a_new_folder_that_cannot_take_the_place_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path / "d", "old")
    monkeypatch.setattr(folders, "_exchange", lambda one, other: False)
    rename, refused = Path.rename, name_aside(tmp_path / "d")

    def fail(path: Path, to: Path) -> Path:
        if path == refused:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return rename(path, to)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(OSError, match="Input/output"):
        make(tmp_path / "d", "new")
    assert names(tmp_path) == ["d"] and names(tmp_path / "d") == ["old"]


def test_a_system_without_an_exchange_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one", "other"):
        write_text(tmp_path / name / name, name)
    if folders._exchange(tmp_path / "one", tmp_path / "other"):
        assert names(tmp_path / "one") == ["other"] and names(tmp_path / "other") == ["one"]
        with pytest.raises(FileNotFoundError):
            folders._exchange(tmp_path / "one", tmp_path / "nowhere")
    monkeypatch.setattr(folders.ctypes, "CDLL", lambda *_, **__: object())
    assert not folders._exchange(tmp_path / "one", tmp_path / "other")
