"""Tints, errors and the zoom: which pixel has which colour, worked out by hand, and what is refused."""

import itertools
from typing import Any, get_args

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from brainseg_cli.errors import InputError, UsageError
from brainseg_cli.figures.overlay import HALO_COLOUR, PREDICTION_COLOUR, REFERENCE_COLOUR, draw_overlay
from brainseg_cli.figures.scene import (
    BOTH_COLOUR,
    FALSE_ALARM_COLOUR,
    HIT_COLOUR,
    MISSED_COLOUR,
    Colour,
    Entry,
    Scene,
    build_scene,
    find_zoom,
    name_colours,
)
from brainseg_cli.types import Style

HEIGHT, WIDTH, FACTOR, FRAME_PX = 40, 56, 3, 2
SIDE = FACTOR * WIDTH
STYLES: tuple[Style, ...] = get_args(Style)
MASK = arrays(np.uint8, (HEIGHT, WIDTH), elements=st.integers(0, 1), fill=st.just(0))


def box(top: int, left: int, height: int, width: int) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[top : top + height, left : left + width] = 1
    return mask


def grey(value: int = 80, channels: int = 3) -> np.ndarray:
    return np.full((HEIGHT, WIDTH, channels), value, np.uint8)


def draw(*masks: np.ndarray | None, image: np.ndarray | None = None, **options: Any) -> np.ndarray:
    """The picture without its frame and the strip, three pixels for one of the slice."""
    figure = draw_overlay(grey() if image is None else image, *masks, min_side=SIDE, **options)
    left = (figure.shape[1] - FACTOR * WIDTH) // 2  # a wide legend leaves paper on both sides
    return figure[FRAME_PX : FRAME_PX + FACTOR * HEIGHT, left : left + FACTOR * WIDTH]


def centres(picture: np.ndarray) -> np.ndarray:
    """The middle of each enlarged pixel, which no line of this width reaches."""
    return picture[1::FACTOR, 1::FACTOR]


def enlarge(mask: np.ndarray) -> np.ndarray:
    return np.kron(mask, np.ones((FACTOR, FACTOR), mask.dtype))


def scene(prediction: np.ndarray | None, reference: np.ndarray | None, style: Style, **options: Any) -> Scene:
    chosen: dict[str, Any] = {"alpha": 0.45, "channel": None, "zoom": False} | options
    return build_scene(grey(), prediction, reference, style=style, **chosen)


def test_a_fill_mixes_a_quarter_of_each_colour_in() -> None:
    prediction, reference = box(5, 10, 12, 12), box(9, 16, 12, 12)
    expected = grey()
    # 0.75 * 80 + 0.25 * colour, halves to the even number
    expected[prediction == 1] = (118, 100, 60)
    expected[reference == 1] = (82, 105, 118)
    expected[(prediction & reference) == 1] = (100, 102, 89)
    np.testing.assert_array_equal(centres(draw(prediction, reference, style="fill", alpha=0.25)), expected)


def test_the_colour_of_both_lies_between_the_two() -> None:
    halfway = (np.array(PREDICTION_COLOUR) + REFERENCE_COLOUR) / 2
    assert np.abs(halfway - BOTH_COLOUR).max() <= 0.5


@pytest.mark.parametrize("which", ["prediction", "reference"])
def test_one_mask_alone_is_filled_in_its_colour(which: str) -> None:
    mask = box(5, 10, 6, 7)
    colour = {"prediction": PREDICTION_COLOUR, "reference": REFERENCE_COLOUR}[which]
    masks = (mask, None) if which == "prediction" else (None, mask)
    drawn = draw(*masks, style="fill", alpha=1)
    np.testing.assert_array_equal((drawn == colour).all(axis=-1) & (enlarge(mask) == 1), enlarge(mask) == 1)


def test_a_fill_has_the_outlines_of_the_contours_without_their_halo() -> None:
    masks = box(5, 10, 12, 12), box(9, 16, 12, 12)
    contour, fill = draw(*masks), draw(*masks, style="fill", alpha=0.25)
    for colour in (PREDICTION_COLOUR, REFERENCE_COLOUR):
        np.testing.assert_array_equal((contour == colour).all(axis=-1), (fill == colour).all(axis=-1))
    assert (contour == HALO_COLOUR).all(axis=-1).any() and not (fill == HALO_COLOUR).all(axis=-1).any()


def test_contours_know_no_alpha() -> None:
    masks = box(5, 10, 12, 12), box(9, 16, 12, 12)
    np.testing.assert_array_equal(draw(*masks, alpha=0.1), draw(*masks, alpha=1))


def test_errors_are_hits_misses_and_false_alarms() -> None:
    prediction, reference = box(5, 10, 12, 12), box(9, 16, 12, 12)
    expected = grey()
    # half of 80 and half of the colour, halves to the even number
    expected[5:17, 10:22] = (160, 154, 73)  # the prediction
    expected[9:21, 16:28] = (146, 87, 40)  # the reference
    expected[9:17, 16:22] = (83, 130, 156)
    np.testing.assert_array_equal(centres(draw(prediction, reference, style="errors", alpha=0.5)), expected)


def test_the_line_of_an_error_runs_along_the_inside_of_its_edge() -> None:
    drawn = draw(box(10, 20, 5, 4), box(0, 0, 0, 0), style="errors", alpha=0.25)
    line = (drawn == FALSE_ALARM_COLOUR).all(axis=-1)
    expected = np.zeros_like(line)
    expected[30:45, 60:72] = True
    expected[31:44, 61:71] = False
    np.testing.assert_array_equal(line, expected)
    assert (drawn[30:45, 60:72] != 80).any(axis=-1).all() and (
        drawn[~enlarge(box(10, 20, 5, 4)).astype(bool)] == 80
    ).all()


@settings(max_examples=20, deadline=None)
@given(prediction=MASK, reference=MASK)
def test_every_pixel_has_the_colour_of_its_error_and_no_other(prediction: np.ndarray, reference: np.ndarray) -> None:
    drawn = draw(prediction, reference, image=grey(0), style="errors", alpha=1)
    table = np.array([(0, 0, 0), FALSE_ALARM_COLOUR, MISSED_COLOUR, HIT_COLOUR])
    np.testing.assert_array_equal(drawn, table[enlarge(prediction + 2 * reference)])


def test_errors_are_counted_in_the_legend_zoomed_or_not() -> None:
    # 12 x 12 each, 8 x 6 shared
    expected = [
        Entry("hit 48 px", HIT_COLOUR),
        Entry("missed 96 px", MISSED_COLOUR),
        Entry("false alarm 96 px", FALSE_ALARM_COLOUR),
    ]
    for zoom in (False, True):
        assert scene(box(5, 10, 12, 12), box(9, 16, 12, 12), "errors", zoom=zoom).legend == expected
    labels = [entry.label for entry in scene(box(0, 0, 0, 0), box(0, 0, 0, 0), "errors").legend]
    assert labels == ["hit 0 px", "missed 0 px", "false alarm 0 px"]


@pytest.mark.parametrize(
    ("prediction", "reference", "labels"),
    [
        (box(0, 0, 4, 4), box(2, 2, 4, 4), ["reference", "prediction", "both"]),
        (box(0, 0, 2, 2), box(2, 2, 4, 4), ["reference", "prediction"]),
        (box(0, 0, 0, 0), box(2, 2, 4, 4), ["reference", "prediction (empty)"]),
        (box(0, 0, 2, 2), None, ["prediction"]),
        (None, box(0, 0, 0, 0), ["reference (empty)"]),
        (None, None, []),
    ],
)
def test_the_legend_of_a_fill(prediction: np.ndarray | None, reference: np.ndarray | None, labels: list[str]) -> None:
    assert [entry.label for entry in scene(prediction, reference, "fill").legend] == labels


@pytest.mark.parametrize("style", STYLES)
def test_a_shared_legend_has_the_colours_of_the_figures(style: Style) -> None:
    own = scene(box(0, 0, 4, 4), box(2, 2, 4, 4), style).legend
    shared = name_colours(style)
    assert [entry.colour for entry in shared] == [entry.colour for entry in own]
    assert all(mine.label.startswith(entry.label) for mine, entry in zip(own, shared, strict=True))
    if style != "errors":
        assert name_colours(style, reference=False) == scene(box(0, 0, 4, 4), None, style).legend


# Machado, Oliveira and Fernandes 2009, on linear RGB: no, red-, green- and blue-blindness
VISIONS = {
    "common": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def seen(colour: np.ndarray, vision: str) -> np.ndarray:
    """CIE Lab of an sRGB colour as it is seen: one just notices a distance of 2."""
    share = colour / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    linear = np.clip(linear @ np.array(VISIONS[vision]).T, 0, 1)
    srgb = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    return cv2.cvtColor(srgb.astype(np.float32)[None, None], cv2.COLOR_RGB2LAB)[0, 0]


@pytest.mark.parametrize("vision", VISIONS)
@pytest.mark.parametrize("shade", [40, 90, 140, 200])
def test_the_tints_of_errors_are_told_apart_in_every_colour_vision(vision: str, shade: int) -> None:
    bare = np.full(3, float(shade))
    tints = [0.55 * bare + 0.45 * np.array(colour) for colour in (HIT_COLOUR, MISSED_COLOUR, FALSE_ALARM_COLOUR)]
    for one, other in itertools.combinations([seen(colour, vision) for colour in (bare, *tints)], 2):
        assert np.linalg.norm(one - other) > 10


@pytest.mark.parametrize(
    ("top", "left", "height", "width", "rows", "columns"),
    [
        (10, 20, 5, 5, (2, 23), (12, 33)),  # 8 px on each side of 5
        (10, 20, 5, 3, (2, 23), (11, 32)),  # a square around the middle
        (0, 0, 1, 1, (0, 17), (0, 17)),  # shifted where the slice ends
        (39, 55, 1, 1, (23, 40), (39, 56)),
        (10, 10, 3, 33, (0, 40), (1, 52)),  # a quarter of 33 takes 9 px
        (5, 10, 20, 40, (0, 40), (0, 56)),  # larger than the slice
        (2, 26, 36, 2, (0, 40), (0, 54)),  # 36 + 2 * 9: all rows, not all columns
    ],
)
def test_the_zoom_is_a_square_around_the_tumour(
    top: int, left: int, height: int, width: int, rows: tuple[int, int], columns: tuple[int, int]
) -> None:
    assert find_zoom([box(top, left, height, width)]) == (slice(*rows), slice(*columns))


def test_the_margin_of_a_large_tumour_is_a_quarter() -> None:
    mask = np.zeros((300, 280), np.uint8)
    mask[100:200, 100:161] = 1
    assert find_zoom([mask]) == (slice(75, 225), slice(55, 205))


def test_the_zoom_holds_the_tumour_of_both_masks() -> None:
    assert find_zoom([box(5, 5, 1, 1), box(15, 10, 1, 1)]) == (slice(0, 27), slice(0, 27))


@settings(max_examples=50, deadline=None)
@given(masks=st.lists(MASK, min_size=1, max_size=2))
def test_no_tumour_is_lost_by_the_zoom(masks: list[np.ndarray]) -> None:
    window = find_zoom(masks)
    for mask in masks:
        assert mask[window].sum() == mask.sum()
    height, width = masks[0][window].shape
    assert height in (width, HEIGHT) or width == WIDTH


def test_without_tumour_the_zoom_is_the_whole_slice() -> None:
    assert box(0, 0, 1, 1)[find_zoom([box(0, 0, 0, 0)])].shape == (HEIGHT, WIDTH)
    np.testing.assert_array_equal(draw(None, zoom=True), draw(None))


@pytest.mark.parametrize("style", STYLES)
def test_a_zoomed_figure_is_that_of_the_cut_slice(style: Style) -> None:
    image = np.random.default_rng(3).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    prediction, reference = box(8, 20, 6, 6), box(11, 24, 6, 6)
    window = np.s_[0:26, 12:38]  # 9 rows from 8 on, 10 columns from 20 on: a square of 10 + 2 * 8
    zoomed = draw_overlay(image, prediction, reference, style=style, zoom=True, title="x")
    cut = draw_overlay(image[window], prediction[window], reference[window], style=style, title="x")
    np.testing.assert_array_equal(zoomed, cut)


def test_without_a_legend_and_a_title_there_is_only_the_picture() -> None:
    figure = draw_overlay(grey(), box(5, 5, 5, 5), min_side=SIDE, legend=False)
    assert figure.shape == (FACTOR * HEIGHT + 2 * FRAME_PX, FACTOR * WIDTH + 2 * FRAME_PX, 3)
    titled = draw_overlay(grey(), box(5, 5, 5, 5), min_side=SIDE, legend=False, title="x")
    assert titled.shape[0] > figure.shape[0]
    np.testing.assert_array_equal(titled[: len(figure)], figure)


@pytest.mark.parametrize("style", STYLES)
def test_the_arrays_drawn_are_left_as_they_were(style: Style) -> None:
    image, prediction, reference = grey(channels=1), box(5, 5, 9, 9), box(7, 7, 9, 9)
    before = [array.copy() for array in (image, prediction, reference)]
    one, other = (draw_overlay(image, prediction, reference, style=style, channel=0, zoom=True) for _ in range(2))
    np.testing.assert_array_equal(one, other)
    for array, old in zip((image, prediction, reference), before, strict=True):
        np.testing.assert_array_equal(array, old)


@pytest.mark.parametrize("style", STYLES)
def test_a_mask_of_255_is_drawn_as_one_of_1(style: Style) -> None:
    masks = box(5, 5, 9, 9), box(7, 7, 9, 9)
    np.testing.assert_array_equal(draw(*(255 * mask for mask in masks), style=style), draw(*masks, style=style))


@pytest.mark.parametrize("alpha", [0, -0.1, 1.01, float("nan"), float("inf")])
def test_an_alpha_outside_its_range_is_refused(alpha: float) -> None:
    with pytest.raises(UsageError, match=r"alpha of .* \(above 0, at most 1\)"):
        draw(box(1, 1, 2, 2), style="fill", alpha=alpha)


@pytest.mark.parametrize("lacking", ["prediction", "reference"])
def test_errors_want_both_masks(lacking: str) -> None:
    masks = (None, box(1, 1, 2, 2)) if lacking == "prediction" else (box(1, 1, 2, 2), None)
    with pytest.raises(UsageError, match=f"without a {lacking}"):
        draw(*masks, style="errors")


def test_another_style_is_refused() -> None:
    with pytest.raises(UsageError, match=r"no style heat \(contour, fill, errors\)"):
        draw(box(1, 1, 2, 2), style="heat")


@pytest.mark.parametrize("shape", [(40, 56), (40, 56, 2), (40, 56, 4), (0, 56, 3), (1, 40, 56, 3)])
def test_an_array_that_is_no_image_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"image of shape \(.*\) cannot be drawn"):
        draw_overlay(np.zeros(shape, np.uint8), None)


def test_colours_of_one_figure_are_unlike_each_other() -> None:
    for style in STYLES:
        colours: list[Colour] = [entry.colour for entry in name_colours(style)]
        assert len(set(colours)) == len(colours)
