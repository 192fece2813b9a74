"""Very many names in little memory, and none mistaken for another."""

import os
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainseg_cli.io.names import BLOCK_NAMES, SORTED_NAMES, Names, Numbers, sort_names
from brainseg_cli.io.sources import Request, open_inputs

ODD = ["", " ", "a\nb", "Å/患.png", os.fsdecode(b"\xff\xfe.png"), "\ud800"]


@given(st.lists(st.text(st.characters(exclude_characters="\0"), max_size=5)))
def test_what_goes_in_comes_out(some: list[str]) -> None:
    numbers, first = Numbers(), list(dict.fromkeys(some))
    assert [numbers.add(name) for name in some] == [first.index(name) for name in some]
    assert len(numbers) == len(first) and all(name in numbers for name in some) and "absent" not in numbers
    names = Names(some)
    assert list(names) == some and len(names) == len(some) and all(name in names for name in some)


@pytest.mark.parametrize("count", [0, 1, BLOCK_NAMES - 1, BLOCK_NAMES, BLOCK_NAMES + 1, 3 * BLOCK_NAMES + 7])
def test_of_any_length(count: int) -> None:
    some = [ODD[number % len(ODD)] + str(number) for number in range(count)]
    names, numbers = Names(some), Numbers()
    assert list(names) == some == [names[number] for number in range(count)] and len(names) == count
    assert [numbers.add(name) for name in some] == list(range(count)) == [numbers.add(name) for name in some]
    assert all(name in numbers for name in some) and "absent" not in numbers and "absent" not in names
    for number in (-1, count):
        with pytest.raises(IndexError):
            names[number]
    names.append("last")
    assert names[count] == "last" and [*names] == [*some, "last"]


def test_a_hundred_thousand_inputs_are_a_few_megabytes(tmp_path: Path) -> None:
    """As many bytes an input for many as for few: here of a list, with all that is remembered while it is read."""
    count = 4 * BLOCK_NAMES * 4
    text = "\n".join(f"scans/TCGA_{n // 100:04d}_19990101/TCGA_{n // 100:04d}_19990101_{n}.tif" for n in range(count))
    (tmp_path / "list").write_text(text)
    open_inputs(Request(files_from=str(tmp_path / "list")), None)  # type: ignore[arg-type]  # what is imported late
    tracemalloc.start()
    try:
        inputs = open_inputs(Request(files_from=str(tmp_path / "list")), None)  # type: ignore[arg-type]
        kept, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert inputs.total == count == sum(1 for _ in inputs)
    assert kept < 40 * count and most - len(text) < 150 * count


@pytest.mark.parametrize("count", [0, 1, SORTED_NAMES, 3 * SORTED_NAMES + 1])
def test_sorted_in_blocks_as_at_once(count: int) -> None:
    names = [str(7919 * number % 10007) for number in range(count)]
    assert list(sort_names(iter(names), int)) == sorted(names, key=int)
    assert list(sort_names(names, len)) == sorted(names, key=len)  # equal ones stay as they came


def test_a_long_folder_is_sorted_in_little_memory(tmp_path: Path) -> None:
    """Sorted at once, it takes 10 MB for these."""
    count = 16_384
    for number in range(count):
        (tmp_path / f"s{number:06d}.tif").symlink_to("/nowhere")
    open_inputs(Request((str(tmp_path),)), None)  # type: ignore[arg-type]  # what is imported late
    tracemalloc.start()
    try:
        inputs = open_inputs(Request((str(tmp_path),)), None)  # type: ignore[arg-type]
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [item.path.name for item in inputs] == [f"s{number:06d}.tif" for number in range(count)]
    assert most < 4_500_000
