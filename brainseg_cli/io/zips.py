"""A zip read entry by entry, within bounds that are checked before anything is unpacked, and never unpacked to disk."""

import stat
import threading
import zipfile
import zlib
from collections.abc import Iterable
from io import FileIO
from pathlib import Path, PurePosixPath, PureWindowsPath

from brainseg_cli.errors import InputError
from brainseg_cli.io.images import is_image_name, most_encoded
from brainseg_cli.types import ZipBounds

UNREADABLE = (
    OSError, EOFError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
"""What zipfile raises for damage, passwords and methods it does not know."""
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""Those that are unpacked piece by piece; of the others zipfile unpacks all that a piece holds, without a bound."""
CHUNK_BYTES = 1 << 20
ENCRYPTED = 1
LOCAL_HEADER_BYTES, LISTED_BYTES = 30, 256
"""Of an entry: least before its data, and most in the list of contents, on average."""


class Zip:
    """The images of an archive. `read` may be called from several threads.

    `entries` are those that are read, by name. `refused` says a line each of those that are not: names that lead out of
    the archive, links and devices, encrypted ones, ones too large for an image, names that come twice. InputError for
    a file that is no zip, exceeds `bounds`, or has entries that share bytes, as no honest one does.
    """

    def __init__(self, path: Path, bounds: ZipBounds) -> None:
        self.path = path
        self._lock = threading.Lock()
        try:
            file = _Listing(path, bounds.entries * LISTED_BYTES)
            self._archive = zipfile.ZipFile(file)
            file.most = None
        except UNREADABLE as error:
            raise InputError(f"cannot be read as a zip: {error}", where=path) from None
        listed = self._archive.infolist()
        if len(listed) > bounds.entries:
            told = f"has more than {bounds.entries} entries"
            raise InputError(told, where=path, hint="--max-zip-entries raises the bound")
        if _overlap(listed):
            raise InputError("is a zip bomb: entries share bytes", where=path)
        self.entries: dict[str, zipfile.ZipInfo] = {}
        self.refused: list[str] = []
        for entry in filter(_is_wanted, listed):
            reason = _refuse(entry) if entry.filename not in self.entries else "stands in the archive twice"
            if reason is None:
                self.entries[entry.filename] = entry
            else:
                self.refused.append(f"{path}/{entry.filename}: {reason}")
        self.holds_zips = any(entry.filename.lower().endswith(".zip") for entry in listed)
        _check_size(path, self.entries.values(), bounds)

    def read(self, name: str) -> bytes:
        """One entry, unpacked: never more than the list of contents says. InputError where it is not that."""
        try:
            with self._lock, self._archive.open(self.entries[name]) as file:
                return b"".join(iter(lambda: file.read(CHUNK_BYTES), b""))
        except UNREADABLE as error:
            raise InputError(f"cannot be read from the zip: {error}", where=f"{self.path}/{name}") from None


class _Listing(FileIO):
    """A file of which no more than `most` bytes are read at once: zipfile reads the list of contents whole."""

    def __init__(self, path: Path, most: int | None) -> None:
        super().__init__(path)
        self.most = most

    def read(self, size: int | None = -1, /) -> bytes:
        if self.most is not None and size is not None and size > self.most:
            told = f"has a list of contents of {size} bytes, more than {self.most}"
            raise InputError(told, where=str(self.name), hint="--max-zip-entries raises the bound")
        return super().read(size) or b""

    def __del__(self) -> None:
        self.close()  # as zipfile does with a file that it opened itself


def _is_wanted(entry: zipfile.ZipInfo) -> bool:
    folders = PurePosixPath(entry.filename).parts[:-1]
    hidden = any((part.startswith(".") and part != "..") or part == "__MACOSX" for part in folders)
    return is_image_name(entry.filename) and not hidden


def _refuse(entry: zipfile.ZipInfo) -> str | None:
    name, kind = PurePosixPath(entry.filename), stat.S_IFMT(entry.external_attr >> 16)
    if name.is_absolute() or PureWindowsPath(entry.filename).drive or ".." in name.parts:
        return "its name leads out of the archive"
    if "\\" in entry.filename or "\0" in entry.orig_filename:
        return "its name has a backslash or a NUL in it: make the archive anew, with / between folders"
    if kind not in (0, stat.S_IFREG):
        return "is a link or a device, not a file"
    if entry.flag_bits & ENCRYPTED:
        return "is encrypted: unpack the archive first"
    if entry.compress_type not in METHODS:
        return "is compressed in another way than deflate: unpack the archive first"
    if entry.file_size > most_encoded():
        return f"has {entry.file_size} bytes, more than the {most_encoded()} that are read"
    return None


def _overlap(listed: Iterable[zipfile.ZipInfo]) -> bool:
    """D. Fifield, A better zip bomb (WOOT 2019): many entries over the same compressed bytes."""
    end = 0
    for entry in sorted(listed, key=lambda entry: entry.header_offset):
        if entry.header_offset < end:
            return True
        end = entry.header_offset + LOCAL_HEADER_BYTES + entry.compress_size
    return False


def _check_size(path: Path, entries: Iterable[zipfile.ZipInfo], bounds: ZipBounds) -> None:
    total, packed = sum(entry.file_size for entry in entries), path.stat().st_size
    if total > bounds.unpacked_bytes:
        told = f"would unpack to {total / 1e9:.1f} GB, more than {bounds.unpacked_bytes / 1e9:.1f}"
        raise InputError(told, where=path, hint="--max-zip-gb raises the bound")
    if total > bounds.ratio * packed:
        told = f"would unpack to {total / packed:.0f} times its size, more than {bounds.ratio:g}"
        raise InputError(told, where=path, hint="--max-zip-ratio raises the bound")
