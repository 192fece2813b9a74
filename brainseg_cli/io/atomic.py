"""Files that appear whole or not at all: written aside, then renamed."""

import errno
import json
import os
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from brainseg_cli.errors import BrainsegError, DiskError, InputError, OutputExistsError

MAKE_ROOM, MOUNT_IT, SEE_TO_IT = "make room", "make it writable", "see to the disk"
REMEDIES = {
    errno.ENOSPC: MAKE_ROOM, errno.EDQUOT: MAKE_ROOM, errno.EROFS: MOUNT_IT, errno.EIO: SEE_TO_IT,
    errno.ESTALE: SEE_TO_IT, errno.ENODEV: SEE_TO_IT, errno.ENXIO: SEE_TO_IT, errno.ENOTCONN: SEE_TO_IT,
}  # fmt: skip
"""What to do about a disk that is full, a quota that is used up, a disk that is read-only, broken or gone."""
NO_FOLDER_SYNC = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP)
"""Of file systems, some over a network, that sync files alone."""
AGAIN = "the same command again"


def name_aside(path: Path, kind: str = "partial") -> Path:
    """Where `path` is written: one name for each, so that who writes it next takes away what a kill left behind."""
    return path.with_name(f".{path.name[:48]}.{zlib.crc32(os.fsencode(path.name)):08x}.{kind}")


def find_remedy(error: OSError, then: str = AGAIN) -> str | None:
    """What to do about a disk that gave out, and then; None for an error that is no disk's."""
    remedy = REMEDIES.get(error.errno or 0)
    return None if remedy is None else f"{remedy}, then {then}"


@contextmanager
def telling(path: Path, *, then: str = AGAIN) -> Iterator[None]:
    """An OSError in writing `path` as a BrainsegError, for batches in which one file may fail and the rest goes on.

    DiskError, with what to do and `then`, for what no other file would fare better with.
    """
    try:
        yield
    except OSError as error:
        told = f"cannot be written: {error.strerror or error}"
        if (hint := find_remedy(error, then)) is not None:
            raise DiskError(told, where=path, hint=hint) from None
        raise BrainsegError(told, where=path, hint=_find_obstacle(path) or "give another place") from None


def _find_obstacle(path: Path) -> str | None:
    """Why nothing can be made at `path`, where the nearest of its parents that is there tells."""
    there = next((parent for parent in path.absolute().parents if os.path.lexists(parent)), path)
    if not there.is_dir():
        return f"{there} is no folder"
    return None if os.access(there, os.W_OK | os.X_OK) else f"{there} is not yours to write in"


@contextmanager
def naming(aside: Path, path: Path) -> Iterator[None]:
    """An OSError that names no file, as that of a write does, or one aside, names what was to be there instead."""
    try:
        yield
    except OSError as error:
        named = aside if error.filename is None else Path(os.fsdecode(error.filename))
        if named.is_relative_to(aside):
            error.filename = str(path / named.relative_to(aside))
        raise


@contextmanager
def atomic_path(path: Path, *, sync: bool = False) -> Iterator[Path]:
    """Yield a path beside `path` to write to; on a clean exit it takes `path`'s place.

    The parent folder is made. On an exception the aside file is removed and `path` keeps what it had. With
    `sync` it is on the disk before it takes the place, and that it took it is when this returns, so that not even
    a power cut leaves half of it: for what cannot be made again. An OSError of writing names `path`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = name_aside(path)
    try:
        with naming(aside, path):
            aside.unlink(missing_ok=True)
            with aside.open("xb"):  # a new file, never what a link points at
                pass
            yield aside
            if sync:
                sync_file(aside)
            aside.replace(path)
            if sync:
                sync_folder(path.parent)
    finally:
        with suppress(OSError):  # a disk that is gone was told of already
            aside.unlink(missing_ok=True)


def sync_file(path: Path) -> None:
    """Return when the file's content is on the disk."""
    with path.open("rb+") as written:
        os.fsync(written.fileno())


def sync_folder(path: Path) -> None:
    """Return when it is on the disk which names the folder holds, where system and disk know of such a thing."""
    if os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NO_FOLDER_SYNC:
            raise
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """Remove a file, and what a kill left of it; neither need be there."""
    path.unlink(missing_ok=True)
    name_aside(path).unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes, *, sync: bool = False) -> None:
    """Write `data` to `path`, whole or not at all; `sync` as in `atomic_path`."""
    with atomic_path(path, sync=sync) as aside:
        aside.write_bytes(data)


def write_together(folder: Path, files: Mapping[str, bytes], *, sync: bool = False) -> None:
    """Write files that belong together, by name, into `folder`: none takes its place before all are written.

    The first to be named is the last to take its own. With `sync` all are on the disk before the first does.
    """
    with ExitStack() as written:
        for name, data in files.items():
            aside = written.enter_context(atomic_path(folder / name))
            aside.write_bytes(data)
            if sync:
                sync_file(aside)
    if sync:
        sync_folder(folder)


def encode_text(text: str) -> bytes:
    """UTF-8. What of a file name is no text is escaped: `\\udcff`."""
    return text.encode("utf-8", "backslashreplace")


def encode_json(value: Any) -> bytes:
    """Indented JSON, and a line's end. NaN is refused: JSON has no word for it, None does."""
    return encode_text(json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write `encode_text` to `path`, whole or not at all."""
    write_bytes(path, encode_text(text))


def write_json(path: Path, value: Any) -> None:
    """Write `encode_json` to `path`, whole or not at all."""
    write_bytes(path, encode_json(value))


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
    """OutputExistsError if `path` holds anything and not `overwrite`.

    An empty folder counts as nothing, and so does what a kill left aside in it.
    """
    if overwrite or not path.exists() or (path.is_dir() and all(map(_is_aside, path.iterdir()))):
        return
    raise OutputExistsError("is already there", where=path, hint="--overwrite replaces it")


def _is_aside(path: Path) -> bool:
    return path.name.startswith(".") and path.suffix == ".partial"
