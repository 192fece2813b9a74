"""A `.npy` file that grows row by row is the one that NumPy would have written."""

import errno
from pathlib import Path

import numpy as np
import pytest

from brainseg_cli.io.rows import RowsWriter


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
