"""Where a slice lies in the network's square, what its head is, and what its intensities become."""

from dataclasses import astuple

import numpy as np
import pytest
import torch

from brainseg_cli.config import PreprocessConfig
from brainseg_cli.preprocess import (
    MIN_STD,
    Fit,
    Window,
    find_head,
    fit_image,
    restore_intensity,
    scale_intensity,
)

WHOLE = PreprocessConfig(size=64, crop="none")
HEAD = PreprocessConfig(size=64, crop="head")


def draw_disc(height: int, width: int, centre: tuple[int, int], radius: int, channels: int = 3) -> np.ndarray:
    """A bright disc on a dark ground with a little noise, (H, W, C) uint8."""
    rows, columns = np.ogrid[:height, :width]
    disc = (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 <= radius**2
    image = np.random.default_rng(0).integers(0, 2, (height, width, channels), np.uint8)
    image[disc] += np.uint8(150)
    return image


# geometry


@pytest.mark.parametrize(
    ("shape", "rows", "columns"),
    [
        ((32, 64), slice(16, 48), slice(0, 64)),  # wide: at the full width, centred
        ((64, 32), slice(0, 64), slice(16, 48)),
        ((16, 32), slice(16, 48), slice(0, 64)),  # enlarged
        ((128, 96), slice(0, 64), slice(8, 56)),  # shrunk
        ((64, 64), slice(0, 64), slice(0, 64)),
        ((64, 63), slice(0, 64), slice(0, 63)),  # the odd column goes to the right
    ],
)
def test_aspect_is_kept_and_the_rest_is_nothing(shape: tuple[int, int], rows: slice, columns: slice) -> None:
    image = np.full((*shape, 3), 200, np.uint8)
    placed = fit_image(image, WHOLE).image(image)
    expected = np.zeros((64, 64, 3), np.uint8)
    expected[rows, columns] = 200
    np.testing.assert_array_equal(placed, expected)
    mask = fit_image(image, WHOLE).mask(np.ones(shape, np.uint8))
    np.testing.assert_array_equal(mask, expected[..., 0] // 200)


def test_rows_stay_rows_and_channels_channels(rng: np.random.Generator) -> None:
    image = rng.integers(0, 256, (20, 64, 3), np.uint8)
    np.testing.assert_array_equal(fit_image(image, WHOLE).image(image)[22:42], image)
    half = image.repeat(2, 0).repeat(2, 1)  # 40 x 128
    np.testing.assert_array_equal(fit_image(half, WHOLE).image(half)[22:42], image)  # the mean of equal pixels


def test_what_shrinks_is_averaged() -> None:
    image = np.zeros((128, 128, 1), np.uint8)
    image[::2] = 100
    np.testing.assert_array_equal(fit_image(image, WHOLE).image(image), np.full((64, 64, 1), 50, np.uint8))


def test_a_shrunk_pixel_is_tumour_from_half_of_it_on() -> None:
    mask = np.zeros((128, 128), np.uint8)
    mask[0, 0] = 1  # a quarter of its square
    mask[0, 10:12] = 1  # a half
    mask[0:2, 20:22] = [[1, 1], [0, 1]]  # three quarters
    placed = fit_image(mask[..., None], WHOLE).mask(mask)
    assert placed[0, [0, 5, 10]].tolist() == [0, 1, 1]
    assert placed.sum() == 2


def test_nor_is_it_from_four_ninths_on_but_from_five() -> None:
    mask = np.zeros((192, 192), np.uint8)
    mask[0:2, 0:2] = mask[0:2, 30:32] = mask[2, 30] = 1
    placed = fit_image(mask[..., None], WHOLE).mask(mask)
    assert (placed[0, 10], placed.sum()) == (1, 1)


def test_an_enlarged_mask_takes_the_pixel_under_each_centre() -> None:
    mask = np.zeros((48, 48), np.uint8)
    mask[:, 1] = 1  # three quarters to four: centres at 0.375, 1.125, 1.875, 2.625
    placed = fit_image(mask[..., None], WHOLE).mask(mask)
    assert np.flatnonzero(placed.any(0)).tolist() == [1, 2] and placed.sum() == 2 * 64


def test_probabilities_of_an_enlarged_image_are_averaged(rng: np.random.Generator) -> None:
    probs = rng.random((64, 64), np.float32)
    fit = fit_image(np.zeros((16, 16, 1), np.uint8), WHOLE)
    np.testing.assert_allclose(fit.restore(probs), probs.reshape(16, 4, 16, 4).mean((1, 3)), atol=1e-6)


def test_one_channel_stays_a_channel() -> None:
    for shape in [(20, 30, 1), (64, 64, 1), (64, 10, 1), (200, 100, 1)]:
        image = np.ones(shape, np.uint8)
        assert fit_image(image, WHOLE).image(image).shape == (64, 64, 1)


def test_a_line_of_pixels_is_not_lost() -> None:
    image = np.full((1, 300, 3), 9, np.uint8)
    fit = fit_image(image, WHOLE)
    assert (fit.image(image)[31] == 9).all() and fit.image(image).sum() == 9 * 3 * 64
    assert fit.restore(np.ones((64, 64), np.float32)).shape == (1, 300)


def test_only_the_window_is_shown_and_only_there_is_anything_found(rng: np.random.Generator) -> None:
    image = rng.integers(0, 256, (50, 80, 3), np.uint8)
    fit = Fit((50, 80), Window(3, 11, 32, 64), 64)
    np.testing.assert_array_equal(fit.image(image)[16:48], image[3:35, 11:75])
    mask = np.ones((50, 80), np.uint8)
    assert fit.mask(mask).sum() == 32 * 64
    back = fit.restore(np.ones((64, 64), np.float32))
    assert back.shape == (50, 80) and back.sum() == 32 * 64 and (back[3:35, 11:75] == 1).all()


def test_nothing_that_is_given_is_changed(rng: np.random.Generator) -> None:
    image, probs = rng.integers(0, 256, (64, 64, 3), np.uint8), rng.random((64, 64), np.float32)
    image.setflags(write=False)
    probs.setflags(write=False)
    for config in (WHOLE, HEAD):
        fit = fit_image(image, config)
        fit.image(image), fit.mask(image[..., 0] & 1), fit.restore(probs)


# the head


@pytest.mark.parametrize("channels", [1, 3])
def test_the_head_is_found_with_a_margin(channels: int) -> None:
    window = find_head(draw_disc(200, 160, (110, 70), 55, channels))
    assert 55 - 8 <= window.top <= 55 and 15 - 8 <= window.left <= 15
    assert 111 <= window.height <= 111 + 16 and 111 <= window.width <= 111 + 16
    assert window.top + window.height > 165 and window.left + window.width > 125


def test_a_small_head_is_not_blown_up_further_than_to_half_the_image() -> None:
    window = find_head(draw_disc(200, 160, (110, 80), 12))
    assert (window.height, window.width) == (100, 100)
    assert abs(window.top + 50 - 110) <= 2 and abs(window.left + 50 - 80) <= 2


def test_a_head_at_the_edge_stays_within_the_image() -> None:
    image = draw_disc(100, 140, (5, 130), 40)
    window = find_head(image)
    assert window.top == 0 and window.left + window.width == 140
    assert window.height >= 46 and window.width >= 51


@pytest.mark.parametrize("level", [0, 1, 90, 255])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_blank_slice_is_all_window(level: int, channels: int) -> None:
    image = np.full((30, 50, channels), level, np.uint8)
    assert find_head(image) == Window(0, 0, 30, 50)


def test_one_grey_channel_speckle_and_a_smaller_thing_do_not_count() -> None:
    plain = draw_disc(200, 200, (100, 100), 60)
    cluttered = plain.copy()
    cluttered[..., 1] = np.maximum(cluttered[..., 1], 120)
    cluttered[2:200:17, 3] = 255  # single pixels
    cluttered[185:195, 185:195] = 255
    np.testing.assert_allclose(astuple(find_head(cluttered)), astuple(find_head(plain)), atol=2)


def test_cropped_or_not_is_what_the_configuration_says() -> None:
    image = draw_disc(200, 160, (110, 70), 40)
    assert fit_image(image, WHOLE) == Fit((200, 160), Window(0, 0, 200, 160), 64)
    assert fit_image(image, HEAD) == Fit((200, 160), find_head(image), 64)
    assert (fit_image(image, HEAD).image(image) > 100).sum() > 1.5 * (fit_image(image, WHOLE).image(image) > 100).sum()


# intensity


def test_unit_is_a_255th() -> None:
    pixels = np.array([0, 51, 255], np.float32).reshape(1, 1, 1, 3)
    config = PreprocessConfig(intensity="unit")
    np.testing.assert_allclose(scale_intensity(pixels, config).ravel(), [0, 0.2, 1], rtol=1e-6)
    np.testing.assert_allclose(restore_intensity(scale_intensity(pixels, config), pixels, config), pixels, rtol=1e-6)


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_zscore_is_of_each_channel_of_each_slice(library: str, rng: np.random.Generator) -> None:
    pixels = rng.integers(0, 256, (2, 3, 5, 7)).astype(np.float32)
    given = pixels if library == "numpy" else torch.from_numpy(pixels)
    scaled = np.asarray(scale_intensity(given, PreprocessConfig(intensity="zscore")))
    mean = pixels.mean((2, 3), keepdims=True, dtype=np.float64)
    std = pixels.std((2, 3), keepdims=True, dtype=np.float64)
    np.testing.assert_allclose(scaled, (pixels - mean) / std, atol=1e-5)


def test_an_almost_blank_slice_is_divided_by_the_least_spread() -> None:
    pixels = np.zeros((1, 1, 10, 10), np.float32)
    pixels[0, 0, 0, 0] = 5
    scaled = scale_intensity(pixels, PreprocessConfig(intensity="zscore"))
    np.testing.assert_allclose(scaled[0, 0, 0, 0], (5 - 0.05) / 255 / MIN_STD, rtol=1e-5)
    assert np.abs(scaled).max() < 1
