"""JSON lines to a file, one at a time, so that what is said to be done is on record whatever comes after."""

import json
from pathlib import Path
from types import TracebackType
from typing import TextIO

from brainseg_cli.types import Json


class LinesWriter:
    """Writes `path` anew, a record a line, each flushed as it is written. Its folder is made."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: TextIO | None = None

    def __enter__(self) -> "LinesWriter":
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("w", encoding="utf-8")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def write(self, record: Json) -> None:
        """Append one record."""
        if self._file is None:
            raise ValueError("a LinesWriter writes within its `with` block")
        self._file.write(json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n")
        self._file.flush()
