"""A `.npy` file that grows row by row is the one that NumPy would have written."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from brainseg_cli.errors import InputError
from brainseg_cli.io.rows import RowsReader, RowsWriter


@pytest.mark.parametrize("shape", [(3, 5), (4, 2, 3), (1, 1)])
@pytest.mark.parametrize("count", [1, 12])
def test_the_bytes_are_those_of_np_save(tmp_path: Path, shape: tuple[int, ...], count: int) -> None:
    rows = np.random.default_rng(0).integers(0, 256, (count, *shape), np.uint8)
    with RowsWriter(tmp_path / "rows.npy") as writer:
        for row in rows:
            writer.append(row)
    np.save(tmp_path / "whole.npy", rows)
    assert writer.alike and writer.count == count
    assert (tmp_path / "rows.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()


def test_a_row_that_is_not_contiguous_is_written_as_it_reads(tmp_path: Path) -> None:
    turned = np.arange(6, dtype=np.uint8).reshape(2, 3).T
    with RowsWriter(tmp_path / "rows.npy") as writer:
        writer.append(turned)
    np.testing.assert_array_equal(np.load(tmp_path / "rows.npy"), turned[None])


def test_rows_of_two_shapes_are_told(tmp_path: Path) -> None:
    with RowsWriter(tmp_path / "rows.npy") as writer:
        for shape in ((2, 3), (3, 2), (2, 3)):
            writer.append(np.zeros(shape, np.uint8))
    assert not writer.alike and writer.count == 1  # nothing after the one that differs, though it would fit


def test_without_a_row_there_is_no_array(tmp_path: Path) -> None:
    with RowsWriter(tmp_path / "rows.npy") as writer:
        pass
    assert writer.count == 0 and (tmp_path / "rows.npy").read_bytes() == b""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
@pytest.mark.parametrize("rows", [1, 3])
def test_a_full_disk_is_an_error_that_names_the_file(rows: int) -> None:
    with pytest.raises(OSError) as caught, RowsWriter(Path("/dev/full")) as writer:
        for _ in range(rows):
            writer.append(np.zeros((4, 5), np.uint8))
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, "/dev/full")


@pytest.fixture
def rows(tmp_path: Path) -> tuple[Path, np.ndarray]:
    values = np.random.default_rng(1).integers(0, 256, (5, 4, 3), np.uint8)
    np.save(tmp_path / "rows.npy", values)
    return tmp_path / "rows.npy", values


def test_rows_are_read_as_they_were_written_and_not_to_be_written_to(rows: tuple[Path, np.ndarray]) -> None:
    path, values = rows
    reader = RowsReader(path)
    assert reader.shape == (5, 4, 3)
    np.testing.assert_array_equal(np.stack([reader[row] for row in (4, 0, 2)]), values[[4, 0, 2]])
    with pytest.raises(ValueError, match="read-only"):
        reader[0][0, 0] = 1
    for row in (5, -1):
        with pytest.raises(IndexError):
            reader[row]


def test_who_replaces_the_file_changes_nothing_for_who_reads_it(rows: tuple[Path, np.ndarray]) -> None:
    path, values = rows
    reader = RowsReader(path)
    np.save(path.with_name("other.npy"), values[::-1])
    path.with_name("other.npy").replace(path)
    np.testing.assert_array_equal(reader[0], values[0])


def test_a_file_that_is_cut_off_while_it_is_read_is_an_error_not_a_crash(rows: tuple[Path, np.ndarray]) -> None:
    """To touch what is mapped of such a file would end the process with SIGBUS."""
    path = rows[0]
    reader = RowsReader(path)
    os.truncate(path, path.stat().st_size - 13)
    with pytest.raises(InputError, match=r"rows\.npy: ends before row 4"):
        reader[4]


def test_a_disk_that_fails_while_it_is_read_is_told(
    rows: tuple[Path, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = RowsReader(rows[0])

    def fail(*_: object) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "pread", fail)
    with pytest.raises(InputError, match=r"rows\.npy: cannot be read: Input/output error"):
        reader[0]
    monkeypatch.delattr(os, "pread")  # as on Windows
    np.testing.assert_array_equal(reader[3], rows[1][3])


@pytest.mark.parametrize("array", [np.zeros((2, 3)), np.asfortranarray(np.zeros((2, 3), np.uint8)), np.uint8(1)])
def test_another_kind_of_array_is_refused(tmp_path: Path, array: np.ndarray) -> None:
    np.save(tmp_path / "rows.npy", array)
    with pytest.raises(ValueError, match=r"expected|shorter"):
        RowsReader(tmp_path / "rows.npy")


def test_a_file_that_is_shorter_than_its_header_says_is_refused(rows: tuple[Path, np.ndarray]) -> None:
    os.truncate(rows[0], rows[0].stat().st_size - 1)
    with pytest.raises(ValueError, match="shorter"):
        RowsReader(rows[0])
