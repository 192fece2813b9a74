"""A folder or a zip as one thing: relative names, and bytes by name. Nothing is ever unpacked to disk."""

import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from brainseg_cli.errors import InputError
from brainseg_cli.io.images import read_encoded
from brainseg_cli.io.inputs import walk_unordered
from brainseg_cli.io.zips import Zip
from brainseg_cli.types import ZipBounds


@dataclass(frozen=True)
class Source:
    """The image files below a folder or inside a zip.

    `sizes` maps each relative POSIX name to its length in bytes; `read` gives one file's bytes and may be
    called from several threads. `nested_copies` counts files left out because the same tree stands a second
    time inside this one, as in the public LGG archive. `refused` has a line for each entry of a zip that is not read.
    """

    path: Path
    sizes: Mapping[str, int]
    read: Callable[[str], bytes]
    nested_copies: int = 0
    refused: Sequence[str] = ()

    def where(self, name: str) -> str:
        """How a person would name that file."""
        return str(self.path / name)


def open_source(path: Path, bounds: ZipBounds | None = None) -> Source:
    """Open a folder or a `.zip`. InputError where it is neither, holds no image, or is a zip that exceeds `bounds`."""
    hint = "TIFF, PNG and JPEG are read"
    if path.is_dir():
        source = _open_folder(path)
    elif path.is_file() and zipfile.is_zipfile(path):
        archive = Zip(path, bounds or ZipBounds())
        source = _list_zip(archive)
        hint = "a zip within a zip is not: unpack the outer one" if archive.holds_zips else hint
    elif path.exists():
        raise InputError("is neither a folder nor a zip archive", where=path)
    else:
        raise InputError("is not there", where=path)
    if not source.sizes and source.refused:
        told = f"holds no image that is read: {len(source.refused)} were refused; first: {source.refused[0]}"
        raise InputError(told, where=path)
    if not source.sizes:
        raise InputError("holds no image", where=path, hint=hint)
    return source


def _open_folder(path: Path) -> Source:
    sizes: dict[str, int] = {}
    for file in walk_unordered(path):
        # a link to nowhere is named when it is read, with the other unreadable files
        sizes[file.relative_to(path).as_posix()] = file.stat().st_size if file.exists() else -1

    def read(name: str) -> bytes:
        return read_encoded(path / name)

    return _without_nested_copies(Source(path, sizes, read), lambda a, b: read(a) == read(b))


def _list_zip(archive: Zip) -> Source:
    entries = archive.entries
    source = Source(
        archive.path, {name: entry.file_size for name, entry in entries.items()}, archive.read, refused=archive.refused
    )
    return _without_nested_copies(source, lambda a, b: entries[a].CRC == entries[b].CRC)


def _without_nested_copies(source: Source, same: Callable[[str, str], bool]) -> Source:
    """Leave out `a/b/x.tif` where `b/x.tif` (or `x.tif`) is there too with the same content."""
    kept: dict[str, int] = {}
    for name, size in source.sizes.items():
        parts = PurePosixPath(name).parts
        tails = ("/".join(parts[i:]) for i in range(1, len(parts)))
        if not any(source.sizes.get(tail) == size and same(tail, name) for tail in tails):
            kept[name] = size
    return replace(source, sizes=kept, nested_copies=len(source.sizes) - len(kept))
