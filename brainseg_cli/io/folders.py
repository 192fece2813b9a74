"""Folders that appear whole or not at all: written aside, then put in the place of what was there."""

import ctypes
import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from brainseg_cli.errors import OutputExistsError
from brainseg_cli.io.atomic import check_absent, name_aside, naming, sync_file, sync_folder
from brainseg_cli.io.locks import lock

AT_FDCWD, RENAME_EXCHANGE = -100, 2
CANNOT = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP)
"""What renameat2 says where the file system, or the kernel, does not exchange."""


@contextmanager
def atomic_folder(path: Path, command: str, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield an empty folder beside `path`; on a clean exit it takes `path`'s place, and is on the disk.

    BusyError where another command is writing `path`; OutputExistsError, before anything is written, as
    `check_absent`. What stood at `path` stands there until the new folder does: the two change places at once where
    the system can do that, and else a kill between the two steps is made good by who writes there next, who also
    takes away what it left. The folders around it are made, and taken away again on an exception.
    """
    real = Path(os.path.realpath(path))  # a link stays one, and what it points at is replaced
    with lock(real, command):
        former = name_aside(real, "old")
        _mend(real, former)
        check_absent(path, overwrite=overwrite)
        if path.exists() and not path.is_dir():
            raise OutputExistsError("is a file, a folder was to be written there", where=path)
        with folder_aside(real) as aside:
            yield aside
            _sync(aside)
            _put(aside, real, former)


@contextmanager
def folder_aside(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside `path`, gone at the end, for who has the lock of `path`: what a kill left in its
    place is nobody's. An OSError that names a file in it names it in `path`.
    """
    aside = name_aside(path)
    shutil.rmtree(aside, ignore_errors=True)
    try:
        with naming(aside, path):
            aside.mkdir()
            yield aside
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _mend(path: Path, former: Path) -> None:
    """After a kill between the two steps of `_put` what was there comes back; after one behind them it goes."""
    if former.is_dir() and not path.exists():
        former.rename(path)
    shutil.rmtree(former, ignore_errors=True)


def _put(aside: Path, path: Path, former: Path) -> None:
    if not path.exists():
        aside.rename(path)
    elif not _exchange(aside, path):
        path.rename(former)
        try:
            aside.rename(path)
        except OSError:
            former.rename(path)
            raise
        shutil.rmtree(former, ignore_errors=True)
    sync_folder(path.parent)


def _exchange(one: Path, other: Path) -> bool:
    """Two names change places in one step. False where the system has no such step."""
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, TypeError, OSError):  # only Linux has it
        return False
    if not call(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE):
        return True
    if (number := ctypes.get_errno()) in CANNOT:
        return False
    raise OSError(number, os.strerror(number), str(other))


def _sync(folder: Path) -> None:
    for inside in sorted(folder.rglob("*")):
        (sync_folder if inside.is_dir() else sync_file)(inside)
    sync_folder(folder)
