"""Files and folders that appear whole or not at all."""

import errno
import os
import stat
from pathlib import Path

import pytest

from brainseg_cli.errors import BrainsegError, DiskError, InputError, OutputExistsError
from brainseg_cli.io.atomic import (
    atomic_path,
    check_absent,
    name_aside,
    read_json,
    remove,
    telling,
    write_bytes,
    write_json,
    write_text,
    write_together,
)


class StopError(Exception):
    pass


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_a_file_is_written_with_its_folders(tmp_path: Path) -> None:
    write_text(tmp_path / "a b" / "ü" / "x.txt", "größer\n")
    assert (tmp_path / "a b" / "ü" / "x.txt").read_bytes() == "größer\n".encode()
    assert names(tmp_path / "a b" / "ü") == ["x.txt"]


def test_the_file_is_not_there_before_it_is_whole(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "x") as aside:
        aside.write_text("half")
        assert not (tmp_path / "x").exists()
        assert aside.parent == tmp_path  # so that the last step is a rename on one disk
    assert (tmp_path / "x").read_text() == "half"


def test_an_exception_leaves_the_old_content_and_nothing_else(tmp_path: Path) -> None:
    write_text(tmp_path / "x", "old")
    with pytest.raises(StopError), atomic_path(tmp_path / "x") as aside:
        aside.write_text("new")
        raise StopError
    assert (tmp_path / "x").read_text() == "old"
    assert names(tmp_path) == ["x"]


def test_an_exception_leaves_no_new_file(tmp_path: Path) -> None:
    with pytest.raises(StopError), atomic_path(tmp_path / "x"):
        raise StopError
    assert names(tmp_path) == []


@pytest.mark.parametrize("name", ["n" * 255, "患" * 85, "\U0001f9e0" * 63])
def test_a_long_name_is_no_obstacle(tmp_path: Path, name: str) -> None:
    write_text(tmp_path / name, "x")
    assert names(tmp_path) == [name]


def test_what_a_kill_left_is_gone_when_the_file_is_written_next(tmp_path: Path) -> None:
    path, other = tmp_path / "x.png", tmp_path / "y.png"
    for left in (path, other):
        name_aside(left).write_text("half")
    write_bytes(path, b"whole")
    assert names(tmp_path) == sorted(["x.png", name_aside(other).name]) and path.read_bytes() == b"whole"
    other.write_text("old")
    for _ in range(2):
        remove(other)
        assert names(tmp_path) == ["x.png"]


def test_a_link_in_place_of_the_aside_file_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    name_aside(tmp_path / "x").symlink_to(tmp_path / "precious")
    write_text(tmp_path / "x", "new")
    assert (tmp_path / "precious").read_text() == "mine" and (tmp_path / "x").read_text() == "new"


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX")
def test_outputs_follow_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        write_text(tmp_path / "x", "x")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o640


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "make room"),
        (errno.EDQUOT, "make room"),
        (errno.EROFS, "make it writable"),
        (errno.EIO, "see to the disk"),
        (errno.ESTALE, "see to the disk"),
        (errno.EISDIR, ""),
    ],
)
def test_what_goes_wrong_in_writing_is_told_with_its_place(tmp_path: Path, number: int, remedy: str) -> None:
    with pytest.raises(BrainsegError) as raised, telling(tmp_path / "x", then="go on"):
        raise OSError(number, os.strerror(number), "x.partial")
    assert isinstance(raised.value, DiskError) == bool(remedy)
    assert str(raised.value).startswith(f"{tmp_path}/x: cannot be written: {os.strerror(number)}")
    assert str(raised.value).endswith(f"({remedy}, then go on)" if remedy else "(give another place)")
    with telling(tmp_path / "x", then=""):
        write_text(tmp_path / "x", "fine")


def test_what_stands_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BrainsegError) as raised, telling(tmp_path / "file" / "a" / "x"):
        (tmp_path / "file" / "a").mkdir(parents=True)
    assert str(raised.value).endswith(f"({tmp_path}/file is no folder)")


@pytest.mark.skipif(os.getuid() == 0, reason="root may write anywhere")
def test_a_folder_of_another_user_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(BrainsegError, match="not yours to write in"), telling(tmp_path / "x"):
        (tmp_path / "x").mkdir()
    tmp_path.chmod(0o700)


def test_json_there_and_back(tmp_path: Path) -> None:
    value = {"name": "Åsa", "dice": None, "list": [1, 2.5, True]}
    write_json(tmp_path / "x.json", value)
    assert read_json(tmp_path / "x.json") == value
    assert "Åsa" in (tmp_path / "x.json").read_text(encoding="utf-8")


def test_json_has_no_word_for_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "x.json", {"dice": float("nan")})
    assert names(tmp_path) == []


@pytest.mark.parametrize("content", [b"{", b"", b"\xff\xfe"])
def test_broken_json_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(InputError, match=r"x\.json: cannot be read as JSON"):
        read_json(tmp_path / "x.json")


def test_json_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"x\.json: is not there"):
        read_json(tmp_path / "x.json")


def test_check_absent(tmp_path: Path) -> None:
    check_absent(tmp_path / "nothing", overwrite=False)
    (tmp_path / "empty").mkdir()
    check_absent(tmp_path / "empty", overwrite=False)
    write_text(tmp_path / "full" / "x", "x")
    for path in (tmp_path / "full", tmp_path / "full" / "x"):
        check_absent(path, overwrite=True)
        with pytest.raises(OutputExistsError, match=r"already there.*--overwrite"):
            check_absent(path, overwrite=False)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_what_belongs_together_is_on_the_disk_before_any_of_it_takes_its_place(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A quota over a network is told of when a file is synced, and not before."""
    old, new = ({name: f"{age} {name}".encode() for name in ("a", "b", "c")} for age in ("old", "new"))
    write_together(tmp_path, old)
    sync, synced = os.fsync, []

    def fail(descriptor: int) -> None:
        synced.append(descriptor)
        if len(synced) == number:
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError) as caught:
        write_together(tmp_path, new, sync=True)
    assert Path(caught.value.filename) == tmp_path / "abc"[number - 1]
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == old
