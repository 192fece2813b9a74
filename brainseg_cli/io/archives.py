"""A folder or a zip as one thing: relative names, and bytes by name. Nothing is ever unpacked to disk."""

import lzma
import threading
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from brainseg_cli.errors import InputError
from brainseg_cli.io.images import is_image_name, read_encoded
from brainseg_cli.io.inputs import walk_unordered

UNREADABLE = (
    OSError, EOFError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error, lzma.LZMAError,
)  # fmt: skip
"""What zipfile raises for damage, passwords and methods it does not know."""


@dataclass(frozen=True)
class Source:
    """The image files below a folder or inside a zip.

    `sizes` maps each relative POSIX name to its length in bytes; `read` gives one file's bytes and may be
    called from several threads. `nested_copies` counts files left out because the same tree stands a second
    time inside this one, as in the public LGG archive.
    """

    path: Path
    sizes: Mapping[str, int]
    read: Callable[[str], bytes]
    nested_copies: int = 0

    def where(self, name: str) -> str:
        """How a person would name that file."""
        return str(self.path / name)


def open_source(path: Path) -> Source:
    """Open a folder or a `.zip`. InputError where it is neither, or holds no image."""
    if path.is_dir():
        source = _open_folder(path)
    elif path.is_file() and zipfile.is_zipfile(path):
        source = _open_zip(path)
    elif path.exists():
        raise InputError("is neither a folder nor a zip archive", where=path)
    else:
        raise InputError("is not there", where=path)
    if not source.sizes:
        raise InputError("holds no image", where=path, hint="TIFF, PNG and JPEG are read")
    return source


def _open_folder(path: Path) -> Source:
    sizes: dict[str, int] = {}
    for file in walk_unordered(path):
        # a link to nowhere is named when it is read, with the other unreadable files
        sizes[file.relative_to(path).as_posix()] = file.stat().st_size if file.exists() else -1

    def read(name: str) -> bytes:
        return read_encoded(path / name)

    return _without_nested_copies(Source(path, sizes, read), lambda a, b: read(a) == read(b))


def _open_zip(path: Path) -> Source:
    try:
        archive = zipfile.ZipFile(path)
    except UNREADABLE as error:
        raise InputError(f"cannot be read as a zip: {error}", where=path) from None
    entries = {
        entry.filename: entry
        for entry in archive.infolist()
        if is_image_name(entry.filename) and not _is_hidden(entry.filename)
    }
    lock = threading.Lock()

    def read(name: str) -> bytes:
        try:
            with lock:
                return archive.read(entries[name])
        except UNREADABLE as error:
            raise InputError(f"cannot be read from the zip: {error}", where=f"{path}/{name}") from None

    sizes = {name: entry.file_size for name, entry in entries.items()}
    return _without_nested_copies(Source(path, sizes, read), lambda a, b: entries[a].CRC == entries[b].CRC)


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in PurePosixPath(name).parts[:-1])


def _without_nested_copies(source: Source, same: Callable[[str, str], bool]) -> Source:
    """Leave out `a/b/x.tif` where `b/x.tif` (or `x.tif`) is there too with the same content."""
    kept: dict[str, int] = {}
    for name, size in source.sizes.items():
        parts = PurePosixPath(name).parts
        tails = ("/".join(parts[i:]) for i in range(1, len(parts)))
        if not any(source.sizes.get(tail) == size and same(tail, name) for tail in tails):
            kept[name] = size
    return Source(source.path, kept, source.read, len(source.sizes) - len(kept))
