"""Outlines on a slice: where they run, what colour they have, and that nothing odd breaks the figure."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from brainseg_cli.errors import InputError, UsageError
from brainseg_cli.figures.overlay import (
    HALO_COLOUR,
    PAPER_COLOUR,
    PREDICTION_COLOUR,
    REFERENCE_COLOUR,
    TEXT_COLOUR,
    draw_overlay,
)

HEIGHT, WIDTH, FACTOR, FRAME_PX = 40, 56, 3, 2
SIDE = FACTOR * WIDTH  # a line of one pixel on either side of the edge, in a frame of two


def square(top: int, left: int, side: int) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[top : top + side, left : left + side] = 1
    return mask


def grey(value: int = 90, channels: int = 3) -> np.ndarray:
    return np.full((HEIGHT, WIDTH, channels), value, np.uint8)


def where(figure: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """Where the picture, without its frame and the strip, has exactly this colour."""
    left = (figure.shape[1] - FACTOR * WIDTH) // 2  # a wide legend leaves paper on both sides
    picture = figure[FRAME_PX : FRAME_PX + FACTOR * HEIGHT, left : left + FACTOR * WIDTH]
    return (picture == colour).all(axis=-1)


def legend(figure: np.ndarray) -> np.ndarray:
    return figure[FACTOR * HEIGHT + 2 * FRAME_PX :]


def has(pixels: np.ndarray, colour: tuple[int, int, int]) -> bool:
    return bool((pixels == colour).all(axis=-1).any())


def test_the_line_runs_along_the_pixel_edge() -> None:
    drawn = where(draw_overlay(grey(), square(10, 20, 5), min_side=SIDE), PREDICTION_COLOUR)
    top, left, side = 10 * FACTOR, 20 * FACTOR, 5 * FACTOR
    expected = np.zeros_like(drawn)
    expected[top - 1 : top + side + 1, left - 1 : left + side + 1] = True
    expected[top + 1 : top + side - 1, left + 1 : left + side - 1] = False
    np.testing.assert_array_equal(drawn, expected)


@settings(max_examples=25, deadline=None)
@given(mask=arrays(np.uint8, (HEIGHT, WIDTH), elements=st.integers(0, 1), fill=st.just(0)))
def test_outline_pixels_lie_on_the_boundary_of_the_mask(mask: np.ndarray) -> None:
    drawn = where(draw_overlay(grey(), mask, min_side=SIDE), PREDICTION_COLOUR)
    enlarged = np.kron(mask, np.ones((FACTOR, FACTOR), np.uint8))
    around = np.pad(enlarged, 1)
    neighbours = np.stack([around[r : r + FACTOR * HEIGHT, c : c + FACTOR * WIDTH] for r in range(3) for c in range(3)])
    on_boundary = neighbours.min(axis=0) != neighbours.max(axis=0)
    np.testing.assert_array_equal(drawn, on_boundary)


def test_a_halo_sets_the_line_off_from_a_bright_slice() -> None:
    figure = draw_overlay(grey(250), square(10, 20, 5), min_side=SIDE)
    halo, line = where(figure, HALO_COLOUR), where(figure, PREDICTION_COLOUR)
    assert halo[10 * FACTOR - 2, 20 * FACTOR + 5] and line[10 * FACTOR - 1, 20 * FACTOR + 5]
    assert not halo[0, 0]


def test_both_outlines_are_seen_where_they_coincide() -> None:
    mask = square(8, 10, 20)
    figure = draw_overlay(grey(), mask, mask, min_side=SIDE)
    prediction, reference = where(figure, PREDICTION_COLOUR), where(figure, REFERENCE_COLOUR)
    alone = where(draw_overlay(grey(), mask, min_side=SIDE), PREDICTION_COLOUR)
    np.testing.assert_array_equal(prediction | reference, alone)
    for side in (np.s_[8 * FACTOR, :], np.s_[28 * FACTOR, :], np.s_[:, 10 * FACTOR], np.s_[:, 30 * FACTOR]):
        assert min(prediction[side].sum(), reference[side].sum()) > 0.3 * alone[side].sum()


def test_outlines_one_pixel_apart_do_not_hide_each_other() -> None:
    inner, outer = square(9, 11, 18), square(8, 10, 20)
    both = draw_overlay(grey(), outer, inner, min_side=SIDE)
    alone = draw_overlay(grey(), outer, min_side=SIDE)
    np.testing.assert_array_equal(where(both, PREDICTION_COLOUR), where(alone, PREDICTION_COLOUR))
    swapped = draw_overlay(grey(), inner, outer, min_side=SIDE)
    assert where(both, REFERENCE_COLOUR).sum() == where(swapped, PREDICTION_COLOUR).sum()


def test_tumour_at_the_border_is_outlined_in_the_frame() -> None:
    figure = draw_overlay(grey(), np.ones((HEIGHT, WIDTH), np.uint8), min_side=SIDE)
    assert (figure[FRAME_PX - 1, FRAME_PX:-FRAME_PX] == PREDICTION_COLOUR).all()


def test_the_slice_is_enlarged_without_smoothing() -> None:
    image = np.random.default_rng(5).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    figure = draw_overlay(image, None, min_side=SIDE)
    picture = figure[FRAME_PX:-FRAME_PX, FRAME_PX:-FRAME_PX]  # neither title nor legend: no strip
    np.testing.assert_array_equal(picture, np.kron(image, np.ones((FACTOR, FACTOR, 1), np.uint8)))


@pytest.mark.parametrize(("min_side", "factor"), [(1, 1), (56, 1), (57, 2), (640, 12)])
def test_the_longer_side_reaches_min_side_by_a_whole_factor(min_side: int, factor: int) -> None:
    height, width = draw_overlay(grey(), None, min_side=min_side).shape[:2]
    assert (width - factor * WIDTH) == (height - factor * HEIGHT) > 0


def test_one_channel_is_shown_in_grey() -> None:
    image = np.stack([np.full((HEIGHT, WIDTH), value, np.uint8) for value in (10, 120, 200)], axis=-1)
    assert where(draw_overlay(image, None, min_side=SIDE, channel=1), (120, 120, 120)).all()
    assert where(draw_overlay(image, None, min_side=SIDE), (10, 120, 200)).all()
    assert where(draw_overlay(image[..., 2:], None, min_side=SIDE), (200, 200, 200)).all()


def test_the_legend_has_the_colours_of_what_is_drawn() -> None:
    masks = square(10, 20, 5), square(12, 20, 5)
    strip = legend(draw_overlay(grey(), *masks, min_side=SIDE))
    assert has(strip, PREDICTION_COLOUR) and has(strip, REFERENCE_COLOUR) and has(strip, TEXT_COLOUR)
    strip = legend(draw_overlay(grey(), masks[0], min_side=SIDE))
    assert has(strip, PREDICTION_COLOUR) and not has(strip, REFERENCE_COLOUR)


def test_an_empty_mask_has_no_outline_and_is_called_empty() -> None:
    drawn, empty = (draw_overlay(grey(), square(0, 0, side), min_side=640) for side in (5, 0))
    picture_height = drawn.shape[0] - legend_height(drawn)
    assert not has(empty[:picture_height], PREDICTION_COLOUR)
    ink = [(figure[picture_height:] == TEXT_COLOUR).all(axis=-1).sum() for figure in (drawn, empty)]
    assert ink[1] > ink[0]  # "prediction (empty)" is longer


def legend_height(figure: np.ndarray) -> int:
    return figure.shape[0] - draw_overlay(grey(), None, min_side=640).shape[0]


@pytest.mark.parametrize(
    "title",
    [
        "Åsa Öberg · coupe n° 7 · Žižka",
        "脳 7",
        "two\nlines\tand a tab",
        "not text: \udcff",
        "nul \x00",
        " ",
        "$a_b$ %s {x}",
    ],
)
def test_odd_titles_are_drawn(title: str) -> None:
    figure = draw_overlay(grey(), square(5, 5, 5), title=title)
    assert figure.dtype == np.uint8 and figure.shape[2] == 3


@pytest.mark.parametrize("title", ["word " * 200, "unbroken_" * 100])
def test_a_long_title_stays_within_the_figure_and_keeps_both_ends(title: str) -> None:
    mask = square(5, 5, 5)
    short, long = (draw_overlay(grey(), mask, title=text) for text in ("Mx", "M" + title + "x"))
    assert long.shape == short.shape
    strip = long[-60:]
    assert (strip[:, -6:] == PAPER_COLOUR).all()
    first = np.s_[-60:-32, :24]  # the strip's upper line, its first letter
    np.testing.assert_array_equal(long[first][:, :20], short[first][:, :20])


def test_a_narrow_slice_has_room_for_its_legend() -> None:
    mask = np.ones((300, 4), np.uint8)
    figure = draw_overlay(np.zeros((300, 4, 1), np.uint8), mask, mask, title="narrow")
    assert figure.shape[1] > 200
    assert (figure[:600, :20] == PAPER_COLOUR).all()


@pytest.mark.parametrize("which", ["prediction", "reference"])
def test_a_mask_of_another_size_is_refused(which: str) -> None:
    masks = {"prediction": square(1, 1, 3), which: np.zeros((WIDTH, HEIGHT), np.uint8)}
    with pytest.raises(InputError, match=f"the {which} is 56x40 pixels .*, the image 40x56"):
        draw_overlay(grey(), **masks)


@pytest.mark.parametrize(("channels", "channel"), [(3, 3), (1, 1), (3, -1)])
def test_a_channel_that_is_not_there_is_refused(channels: int, channel: int) -> None:
    with pytest.raises(UsageError, match=f"no channel {channel}: the image has {channels}"):
        draw_overlay(grey(channels=channels), None, channel=channel)


def test_the_inputs_are_left_as_they_were() -> None:
    image, mask = grey(), square(5, 5, 5)
    draw_overlay(image, mask, mask, title="x")
    assert (image == 90).all() and mask.sum() == 25
