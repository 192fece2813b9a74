"""Files and folders that appear whole or not at all: written aside, then renamed."""

import errno
import json
import os
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from brainseg_cli.errors import BrainsegError, DiskError, InputError, OutputExistsError

DISK_IS_DONE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""A disk that is full, a quota that is used up, and a disk that is read-only."""


def name_aside(path: Path) -> Path:
    """Where `path` is written: one name for each, so that who writes it next takes away what a kill left behind."""
    return path.with_name(f".{path.name[:48]}.{zlib.crc32(os.fsencode(path.name)):08x}.partial")


@contextmanager
def telling(path: Path, *, hint: str) -> Iterator[None]:
    """An OSError in writing `path` as a BrainsegError, for batches in which one file may fail and the rest goes on.

    DiskError, with `hint`, for what no other file would fare better with.
    """
    try:
        yield
    except OSError as error:
        told = f"cannot be written: {error.strerror or error}"
        if error.errno in DISK_IS_DONE:
            raise DiskError(told, where=path, hint=hint) from None
        raise BrainsegError(told, where=path) from None


@contextmanager
def atomic_path(path: Path, *, sync: bool = False) -> Iterator[Path]:
    """Yield a path beside `path` to write to; on a clean exit it takes `path`'s place.

    The parent folder is made. On an exception the aside file is removed and `path` keeps what it had. With
    `sync` it is on the disk before it takes the place, so that not even a power cut leaves half of it: for
    what replaces something that cannot be made again.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = name_aside(path)
    aside.unlink(missing_ok=True)
    try:
        with aside.open("xb"):  # a new file, never what a link points at
            pass
        yield aside
        if sync:
            with aside.open("rb+") as written:
                os.fsync(written.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def remove(path: Path) -> None:
    """Remove a file, and what a kill left of it; neither need be there."""
    path.unlink(missing_ok=True)
    name_aside(path).unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes, *, sync: bool = False) -> None:
    """Write `data` to `path`, whole or not at all; `sync` as in `atomic_path`."""
    with atomic_path(path, sync=sync) as aside:
        aside.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 `text` to `path`, whole or not at all. What of a file name is no text is escaped: `\\udcff`."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON. NaN is refused: JSON has no word for it, None does."""
    write_bytes(path, encode_json(value))


def encode_json(value: Any) -> bytes:
    """What `write_json` writes."""
    text = json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    return text.encode("utf-8", "backslashreplace")


def read_json(path: Path) -> Any:
    """Read one JSON file; InputError names the file and the place of the fault."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise InputError("is not there", where=path) from None
    except OSError as error:
        raise InputError(f"cannot be read as JSON: {error}", where=path) from None
    return parse_json(data, path)


def parse_json(data: bytes, path: Path) -> Any:
    """What was read from `path`; InputError as `read_json`."""
    try:
        return json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:  # no UTF-8, no JSON, a number of a million digits, too deep
        raise InputError(f"cannot be read as JSON: {error}", where=path) from None


def check_absent(path: Path, *, overwrite: bool) -> None:
    """OutputExistsError if `path` holds anything (an empty folder counts as nothing) and not `overwrite`."""
    if overwrite or not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    raise OutputExistsError("is already there", where=path, hint="--overwrite replaces it")


@contextmanager
def atomic_folder(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield an empty folder beside `path`; on a clean exit it takes `path`'s place.

    OutputExistsError, before anything is written, as `check_absent`. What stood at `path` is removed only
    once the new folder is complete. The folders around it are made, and taken away again on an exception.
    """
    check_absent(path, overwrite=overwrite)
    if path.exists() and not path.is_dir():
        raise OutputExistsError("is a file, a folder was to be written there", where=path)
    path = path.resolve()  # a link stays one, and what it points at is replaced
    made = [folder for folder in path.parents if not folder.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent))
    try:
        yield aside
        aside.chmod(0o777 & ~_umask())
        if path.exists():
            old = aside.with_suffix(".old")
            path.rename(old)
            aside.rename(path)
            shutil.rmtree(old)
        else:
            aside.rename(path)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        for folder in made:
            with suppress(OSError):  # it holds something now
                folder.rmdir()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
