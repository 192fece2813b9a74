"""A `.npy` file written and read row by row: memory holds one, and a disk that gives out is an error, not a crash."""

import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt
from numpy.lib.format import read_array_header_1_0, read_array_header_2_0, read_magic, write_array_header_1_0

from brainseg_cli.errors import InputError


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


class RowsReader:
    """The rows of a `.npy` file (N, ...) of uint8, each read when it is asked for; of another type or order, an error.

    The file stays open: who replaces it meanwhile changes nothing here. It is read, not mapped, because a disk that
    fails under a mapped file ends the process without a word. Threads and forked processes may read at once.
    OSError or ValueError where it cannot be opened as an array.
    """

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            read_header = {(1, 0): read_array_header_1_0, (2, 0): read_array_header_2_0}.get(read_magic(file))
            if read_header is None:
                raise ValueError("has a header of a version that is not read")
            self.shape, by_column, dtype = read_header(file)
            if dtype != np.uint8 or by_column:
                raise ValueError(f"holds {dtype}, uint8 row by row was expected")
            self._offset, needed = file.tell(), int(np.prod(self.shape, dtype=np.int64))
            if not self.shape or os.fstat(file.fileno()).st_size < self._offset + needed:
                raise ValueError(f"is shorter than the {self.shape} of its header")
            self._file = os.dup(file.fileno())
        self.path, self._lock = path, threading.Lock()
        weakref.finalize(self, os.close, self._file)

    def __getitem__(self, row: int) -> npt.NDArray[np.uint8]:
        """One row (...), read-only. InputError where the file does not give it any more; IndexError beyond the last."""
        if not 0 <= row < self.shape[0]:
            raise IndexError(row)
        size = int(np.prod(self.shape[1:]))
        try:
            data = self._read(size, self._offset + row * size)
        except OSError as error:
            raise InputError(f"cannot be read: {error.strerror or error}", where=self.path) from None
        if len(data) < size:
            raise InputError(f"ends before row {row}: it was cut off meanwhile", where=self.path)
        return np.frombuffer(data, np.uint8).reshape(self.shape[1:])

    def _read(self, size: int, start: int) -> bytes:
        if hasattr(os, "pread"):
            return os.pread(self._file, size, start)
        with self._lock:  # Windows, which does not fork
            os.lseek(self._file, start, os.SEEK_SET)
            return os.read(self._file, size)
