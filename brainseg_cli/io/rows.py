"""A `.npy` file written row by row: memory holds one row, and a disk that is full is an error, not a crash."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.lib.format import write_array_header_1_0


class RowsWriter:
    """Writes (N, ...) uint8 to `path`, N being the number of rows appended. Use it as a context.

    Rows have one shape, that of the first. Once one comes that has not, `alike` is False, and the file is of no use.
    Without a row no array is written. OSError, naming `path`, where it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.alike = True
        self.shape: tuple[int, ...] | None = None
        self.count = 0
        self._file = path.open("wb")

    def __enter__(self) -> "RowsWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._telling(), self._file:
            if kind is None and self.count:
                self._write_header()  # of the same length as the first: NumPy leaves room for N to grow

    def append(self, row: np.ndarray) -> None:
        """Write one row, (...) uint8."""
        with self._telling():
            if self.shape is None:
                self.shape = row.shape
                self._write_header()
            self.alike &= row.shape == self.shape
            if self.alike:
                self._file.write(np.ascontiguousarray(row, np.uint8).data)
                self.count += 1

    def _write_header(self) -> None:
        self._file.seek(0)
        header = {"descr": "|u1", "fortran_order": False, "shape": (self.count, *(self.shape or ()))}
        write_array_header_1_0(self._file, header)

    @contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            error.filename = error.filename or str(self.path)
            raise
