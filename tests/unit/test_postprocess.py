"""Holes, specks and the largest component: by hand, by law, and against definitions that are slow and plain."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from brainseg_cli.errors import InputError, UsageError
from brainseg_cli.postprocess import Postprocess, postprocess

laws = settings(max_examples=80, deadline=None)
masks = st.sampled_from([(6, 9), (9, 4), (4, 5, 6), (1, 6, 5)]).flatmap(
    lambda shape: hnp.arrays(np.uint8, shape, elements=st.sampled_from([0, 1, 1]))
)
steps = st.builds(Postprocess, st.booleans(), st.integers(0, 6), st.booleans())


def draw(*rows: str) -> np.ndarray:
    """'#' is tumour."""
    return np.array([[pixel == "#" for pixel in row] for row in rows], np.uint8)


def check(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.dtype == np.uint8 and found.shape == expected.shape
    np.testing.assert_array_equal(found, expected)


def fill(mask: np.ndarray) -> np.ndarray:
    return postprocess(mask, Postprocess(fill_holes=True))


def test_a_hole_is_closed_even_where_the_wall_only_touches_at_corners() -> None:
    mask = draw("..#..##..", ".#.#.#..#", "#...##..#", ".#.#.#.#.", "..#..#.#.")
    check(fill(mask), draw("..#..##..", ".###.#..#", "######..#", ".###.#.#.", "..#..#.#."))


def test_an_opening_at_the_border_is_no_hole() -> None:
    bay = draw("###.", "#.#.", "#.#.")
    check(fill(bay), bay)
    check(fill(draw("###.", "#.#.", "###.")), draw("###.", "###.", "###."))


def test_a_component_in_a_hole_is_filled_around() -> None:
    check(fill(draw("#####", "#...#", "#.#.#", "#...#", "#####")), np.ones((5, 5), np.uint8))


def test_components_under_the_least_size_are_dropped() -> None:
    mask = draw("##...#", "#...#.", ".....#", "#.....")  # of 3, of 3 by their corners, of 1
    for least, kept in ((0, mask), (1, mask), (2, draw("##...#", "#...#.", ".....#", "......")), (4, mask * 0)):
        check(postprocess(mask, Postprocess(min_size=least)), kept)
    check(postprocess(mask, Postprocess(min_size=3)), postprocess(mask, Postprocess(min_size=2)))


def test_of_components_as_large_the_first_in_reading_order_is_kept() -> None:
    # the first pixel in reading order is that of the middle one; by columns it would be the left one
    mask = draw("....##...", "#......##", "#........")
    check(postprocess(mask, Postprocess(largest_component=True)), draw("....##...", ".........", "........."))
    check(postprocess(mask[:, ::-1], Postprocess(largest_component=True)), draw("...##....", ".........", "........."))
    more = draw("....##...", "#......##", "#.......#")
    check(postprocess(more, Postprocess(largest_component=True)), draw(".........", ".......##", "........#"))


def test_holes_are_filled_before_components_are_measured() -> None:
    mask = draw("###....", "#.#.###", "###.###", "....###")  # a ring of 8, 9 when filled; a block of 9
    check(postprocess(mask, Postprocess(min_size=9)), draw(".......", "....###", "....###", "....###"))
    filled = draw("###....", "###.###", "###.###", "....###")
    check(postprocess(mask, Postprocess(min_size=9, fill_holes=True)), filled)
    first = filled * (np.arange(7) < 3).astype(np.uint8)
    check(postprocess(mask, Postprocess(largest_component=True, fill_holes=True)), first)


def test_the_largest_may_be_too_small_as_well() -> None:
    steps = Postprocess(largest_component=True, min_size=4)
    check(postprocess(draw("###.#"), steps), draw("....."))
    check(postprocess(draw("#####"), steps), draw("#####"))


def test_a_volume_is_one_thing_and_not_its_slices() -> None:
    shell = np.ones((3, 4, 5), np.uint8)
    shell[1, 1:3, 1:4] = 0
    check(fill(shell), np.ones_like(shell))
    open_above = shell.copy()
    open_above[0, 1, 1] = 0  # the first slice is the border: a way out
    check(fill(open_above), open_above)
    ring = shell[1:2]
    check(fill(ring), ring)  # as a volume of one slice it is open above and below
    check(fill(ring[0])[None], np.ones_like(ring))

    chain = np.zeros((3, 4, 5), np.uint8)
    chain[0, 0, 0] = chain[1, 1, 1] = chain[2, 2, 2] = 1  # 26-connected, through corners
    chain[0, 3, 3:] = 1  # larger than the chain in each of its slices
    expected = chain.copy()
    expected[0, 3] = 0
    check(postprocess(chain, Postprocess(largest_component=True)), expected)
    check(postprocess(chain, Postprocess(min_size=3)), expected)


@pytest.mark.parametrize("shape", [(3, 5), (2, 3, 5), (0, 5), (3, 0), (0, 3, 5)])
def test_nothing_stays_nothing(shape: tuple[int, ...]) -> None:
    empty = np.zeros(shape, np.uint8)
    check(postprocess(empty, Postprocess(largest_component=True, min_size=9, fill_holes=True)), empty)


def test_as_many_components_as_a_slice_can_hold() -> None:
    dots = np.zeros((512, 512), np.uint8)
    dots[::2, ::2] = 1  # 65536: one more than two bytes can number
    closed = 256 * 256 - (256 + 255)  # as holes, those at the top and at the left are open
    assert fill(1 - dots)[::2, ::2].sum() == closed
    dots[-1, -2:] = 1
    largest = np.zeros_like(dots)
    largest[-2:, -2:] = [[1, 0], [1, 1]]
    check(postprocess(dots, Postprocess(largest_component=True)), largest)


def test_a_slice_of_one_row_or_one_column() -> None:
    for row, first in (("#.#", "#.."), ("#.##.##", "..##..."), (".#.#.#", ".#....")):
        mask, expected = draw(row), draw(first)
        check(postprocess(mask, Postprocess(largest_component=True)), expected)
        check(postprocess(mask.T, Postprocess(largest_component=True)), expected.T)
        check(fill(mask), mask)


def test_bool_and_255_read_as_the_same_mask_and_the_input_is_left_alone() -> None:
    mask = draw("###.#", "#.#..", "###..")
    all_steps = Postprocess(largest_component=True, min_size=2, fill_holes=True)
    expected = draw("###..", "###..", "###..")
    for same in (mask, mask.astype(bool), mask * np.uint8(255), mask.astype(np.int64), np.asfortranarray(mask)):
        before = same.copy()
        same.flags.writeable = False
        check(postprocess(same, all_steps), expected)
        unchanged = postprocess(same, Postprocess())
        check(unchanged, mask)
        assert not np.shares_memory(unchanged, same)
        np.testing.assert_array_equal(same, before)


def test_what_is_no_mask_is_refused() -> None:
    for bad in (np.zeros(4, np.uint8), np.zeros((1, 2, 3, 4), np.uint8), np.zeros((3, 4), np.float32)):
        with pytest.raises(InputError, match=r"no mask of a slice or of a volume"):
            postprocess(bad, Postprocess())
    with pytest.raises(UsageError, match="-3"):
        Postprocess(min_size=-3)


@laws
@given(masks, steps)
def test_once_is_enough(mask: np.ndarray, steps: Postprocess) -> None:
    once = postprocess(mask, steps)
    check(postprocess(once, steps), once)


@laws
@given(masks)
def test_holes_and_components_are_those_of_scipy(mask: np.ndarray) -> None:
    check(fill(mask), ndimage.binary_fill_holes(mask).astype(np.uint8))
    labels, found = ndimage.label(mask, np.ones((3,) * mask.ndim))
    sizes = np.bincount(labels.ravel(), minlength=found + 1)
    for least in range(5):
        kept = [label for label in range(1, found + 1) if sizes[label] >= least]
        check(postprocess(mask, Postprocess(min_size=least)), np.isin(labels, kept).astype(np.uint8))
    largest = max(range(1, found + 1), key=lambda label: (sizes[label], -np.argmax(labels == label)), default=-1)
    check(postprocess(mask, Postprocess(largest_component=True)), (labels == largest).astype(np.uint8))


@laws
@given(masks, steps)
def test_filling_adds_and_dropping_takes_away(mask: np.ndarray, steps: Postprocess) -> None:
    filled = fill(mask)
    found = postprocess(mask, steps)
    assert (filled >= mask).all()
    assert (found <= (filled if steps.fill_holes else mask)).all()
    assert not steps.largest_component or ndimage.label(found, np.ones((3,) * mask.ndim))[1] <= 1


@laws
@given(masks.filter(lambda mask: mask.ndim == 2), steps)
def test_a_slice_can_be_mirrored_before_or_after_unless_there_is_a_tie(mask: np.ndarray, steps: Postprocess) -> None:
    steps = Postprocess(min_size=steps.min_size, fill_holes=steps.fill_holes)
    for turned in (np.flipud, np.fliplr, np.transpose):
        check(postprocess(turned(mask), steps), turned(postprocess(mask, steps)))
