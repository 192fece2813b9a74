"""JSON lines to a file, one at a time, so that what is said to be done is on record whatever comes after."""

import errno
import json
import os
from contextlib import suppress
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any

from brainseg_cli.types import Json


def to_json(value: Any, *, indent: int | None = None) -> str:
    """JSON, on one line unless told otherwise. NaN is refused; a name that is no text is escaped: `\\udcff`."""
    text = json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False)
    return text if _is_text(text) else json.dumps(value, indent=indent, allow_nan=False)


class LinesWriter:
    """Appends to `path` a record a line, each whole and on file when `write` returns. Its folder is made.

    OSError where `path` is a link: what is written stays in its folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: FileIO | None = None

    @property
    def is_open(self) -> bool:
        return self._file is not None

    def __enter__(self) -> "LinesWriter":
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = FileIO(self.path, "a+", opener=_open_itself)
        if size := self._file.seek(0, os.SEEK_END):
            self._file.seek(size - 1)
            if self._file.read(1) != b"\n":  # half a line, as a power cut leaves it: the next one is not to be its end
                self._file.write(b"\n")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def write(self, record: Json) -> None:
        """Append one record; on a disk that is full none of it stays."""
        if self._file is None:
            raise ValueError("a LinesWriter writes within its `with` block")
        line = to_json(record).encode() + b"\n"
        before = self._file.tell()
        try:
            if self._file.write(line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
        except OSError as error:
            with suppress(OSError):
                self._file.truncate(before)
                self._file.seek(before)
            error.filename = error.filename or str(self.path)
            raise


def _open_itself(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
