"""Geometry and intensity, there and back, for images of any size.

A mask that went into the network's square and back (`restore`, then >= 0.5) is the same, pixel for pixel,
where the longer side of the window divides the square's, and wherever the square is at least three times it.
In between a pixel that stands alone may be lost, since nearest neighbours give some pixels more area than
others; and where the window shrinks, what is finer than a pixel of the square is lost. What holds at any
size: a pixel whose surroundings are all alike comes back as it was.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from brainseg_cli.config import PreprocessConfig
from brainseg_cli.preprocess import (
    LEAST_WINDOW,
    MIN_STD,
    Fit,
    Window,
    find_head,
    fit_image,
    restore_intensity,
    scale_intensity,
)

laws = settings(max_examples=60, deadline=None)

sizes = st.sampled_from([32, 64, 96])
sides = st.tuples(st.integers(1, 110), st.integers(1, 110))
crops = st.sampled_from(["none", "head"])


@st.composite
def images(draw: st.DrawFn) -> npt.NDArray[np.uint8]:
    """(H, W, C) uint8: noise, or a bright box on a dark ground, which has a head to find; read-only."""
    height, width = draw(sides)
    channels = draw(st.sampled_from([1, 3]))
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    image = rng.integers(0, draw(st.sampled_from([1, 10, 256])), (height, width, channels), np.uint8)
    if draw(st.booleans()):
        top, left = rng.integers(0, height), rng.integers(0, width)
        image[top : top + rng.integers(1, 60), left : left + rng.integers(1, 60)] = 200
    image.setflags(write=False)
    return image


@st.composite
def windows(draw: st.DrawFn, longer: int) -> tuple[tuple[int, int], Window]:
    """The shape of an image, and a window in it whose longer side is this long."""
    sides = draw(st.permutations([longer, draw(st.integers(1, longer))]))
    top, left, below, right = (draw(st.integers(0, 9)) for _ in range(4))
    return (top + sides[0] + below, left + sides[1] + right), Window(top, left, *sides)


def inner(window: Window) -> tuple[slice, slice]:
    """Its rows and columns."""
    return slice(window.top, window.top + window.height), slice(window.left, window.left + window.width)


def draw_mask(shape: tuple[int, int], window: Window, seed: int, share: float) -> npt.NDArray[np.uint8]:
    """Tumour pixels at random, none outside the window."""
    rng = np.random.default_rng(seed)
    mask = np.zeros(shape, np.uint8)
    mask[inner(window)] = rng.random((window.height, window.width)) < share
    return mask


def there_and_back(fit: Fit, mask: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    return (fit.restore(fit.mask(mask).astype(np.float32)) >= 0.5).astype(np.uint8)


shares = st.sampled_from([0.0, 0.03, 0.5, 0.97, 1.0])
seeds = st.integers(0, 9999)


# geometry


@laws
@given(images(), sizes, crops)
def test_an_image_becomes_a_square_of_its_own_kind(image: npt.NDArray[np.uint8], size: int, crop: Any) -> None:
    fit = fit_image(image, PreprocessConfig(size=size, crop=crop))
    placed = fit.image(image)
    assert placed.shape == (size, size, image.shape[2]) and placed.dtype == np.uint8
    assert placed.max() <= image.max()  # nothing overshoots
    mask = fit.mask((image[..., 0] > 100).astype(np.uint8))
    assert mask.shape == (size, size) and mask.dtype == np.uint8 and set(np.unique(mask)) <= {0, 1}
    assert fit_image(image, PreprocessConfig(size=size, crop=crop)) == fit


@laws
@given(images())
def test_a_head_lies_within_its_image(image: npt.NDArray[np.uint8]) -> None:
    height, width = image.shape[:2]
    window = find_head(image)
    assert 0 <= window.top <= window.top + window.height <= height
    assert 0 <= window.left <= window.left + window.width <= width
    least = round(LEAST_WINDOW * max(height, width))
    assert window.height >= min(height, least) and window.width >= min(width, least)
    assert min(window.height, window.width) >= 1


@laws
@given(sides, sizes, seeds)
def test_every_channel_goes_the_same_way_as_it_would_alone(shape: tuple[int, int], size: int, seed: int) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (*shape, 3), np.uint8)
    fit = fit_image(image, PreprocessConfig(size=size, crop="none"))
    alone = np.concatenate([fit.image(np.ascontiguousarray(image[..., c : c + 1])) for c in range(3)], axis=2)
    np.testing.assert_allclose(fit.image(image).astype(int), alone.astype(int), atol=1)


@laws
@given(st.data(), sizes, st.sampled_from([1, 2, 4, 8, 16, 32]), seeds, shares)
def test_a_mask_comes_back_exactly_where_its_side_divides_the_squares(
    data: st.DataObject, size: int, times: int, seed: int, share: float
) -> None:
    shape, window = data.draw(windows(size // times))
    mask = draw_mask(shape, window, seed, share)
    np.testing.assert_array_equal(there_and_back(Fit(shape, window, size), mask), mask)


@laws
@given(st.data(), sizes, seeds, shares)
def test_a_mask_comes_back_exactly_from_a_square_at_least_three_times_as_long(
    data: st.DataObject, size: int, seed: int, share: float
) -> None:
    shape, window = data.draw(windows(data.draw(st.integers(1, size // 3))))
    mask = draw_mask(shape, window, seed, share)
    np.testing.assert_array_equal(there_and_back(Fit(shape, window, size), mask), mask)


@laws
@given(st.integers(1, 150).flatmap(windows), sizes, seeds, st.integers(1, 12), shares)
def test_at_any_size_what_is_alike_all_around_comes_back(
    at: tuple[tuple[int, int], Window], size: int, seed: int, coarse: int, share: float
) -> None:
    shape, window = at
    inside = inner(window)
    mask = np.zeros(shape, np.uint8)
    patches = np.random.default_rng(seed).random((window.height // coarse + 1, window.width // coarse + 1)) < share
    mask[inside] = patches.repeat(coarse, 0).repeat(coarse, 1)[: window.height, : window.width]
    shrinks_by = max(window.height, window.width) / size
    reach = 1 if shrinks_by <= 1 else int(np.ceil(2.25 * shrinks_by)) + 1  # a pixel of the square, and its neighbour's
    least, most = (
        f(mask[inside], 2 * reach + 1, mode="nearest") for f in (ndimage.minimum_filter, ndimage.maximum_filter)
    )
    alike = least == most
    back = there_and_back(Fit(shape, window, size), mask)
    np.testing.assert_array_equal(back[inside][alike], mask[inside][alike])


@laws
@given(st.integers(1, 150).flatmap(windows), sizes, seeds)
def test_probabilities_stay_probabilities_and_are_nothing_outside_the_window(
    at: tuple[tuple[int, int], Window], size: int, seed: int
) -> None:
    shape, window = at
    probs = np.random.default_rng(seed).random((size, size), np.float32)
    back = Fit(shape, window, size).restore(probs)
    assert back.shape == shape and back.dtype == np.float32
    inside = inner(window)
    assert back[inside].min() >= probs.min() - 1e-6 and back[inside].max() <= probs.max() + 1e-6
    back = back.copy()
    back[inside] = 0
    assert not back.any()


@laws
@given(st.integers(1, 150).flatmap(windows), sizes, st.sampled_from([0.0, 0.25, 1.0]))
def test_one_probability_everywhere_is_the_same_one_afterwards(
    at: tuple[tuple[int, int], Window], size: int, level: float
) -> None:
    shape, window = at
    inside = inner(window)
    back = Fit(shape, window, size).restore(np.full((size, size), level, np.float32))
    np.testing.assert_allclose(back[inside], level, atol=1e-6)


# intensity

batches = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 3), st.sampled_from([1, 3]), st.integers(1, 9), st.integers(1, 9)),
    elements=st.integers(0, 255).map(float) | st.floats(0, 255, width=32),
)
intensities = st.sampled_from(["unit", "zscore"])


@laws
@given(batches, intensities)
def test_intensity_comes_back_and_is_the_same_in_numpy_and_torch(
    pixels: npt.NDArray[np.float32], intensity: Any
) -> None:
    config = PreprocessConfig(intensity=intensity)
    scaled = scale_intensity(pixels, config)
    assert scaled.dtype == np.float32 and scaled.shape == pixels.shape and np.isfinite(scaled).all()
    np.testing.assert_allclose(restore_intensity(scaled, pixels, config), pixels, atol=1e-3)
    tensor = torch.from_numpy(pixels)
    on_torch = scale_intensity(tensor, config)
    assert on_torch.dtype == torch.float32
    np.testing.assert_allclose(on_torch.numpy(), scaled, atol=1e-4)
    np.testing.assert_allclose(restore_intensity(on_torch, tensor, config).numpy(), pixels, atol=1e-3)


@laws
@given(batches)
def test_every_channel_of_every_slice_is_scaled_by_itself(pixels: npt.NDArray[np.float32]) -> None:
    scaled = scale_intensity(pixels, PreprocessConfig(intensity="zscore"))
    spread = pixels.astype(np.float64).std((-2, -1)) / 255
    np.testing.assert_allclose(scaled.mean((-2, -1)), 0, atol=1e-4)
    np.testing.assert_allclose(scaled.std((-2, -1)), spread / np.maximum(spread, MIN_STD), atol=1e-3)
    for n in range(len(pixels)):
        alone = scale_intensity(pixels[n : n + 1], PreprocessConfig(intensity="zscore"))
        np.testing.assert_array_equal(alone, scaled[n : n + 1])


@laws
@given(st.floats(0, 255, width=32), intensities, st.sampled_from([1, 64]))
def test_a_blank_slice_stays_blank(level: float, intensity: Any, side: int) -> None:
    scaled = scale_intensity(np.full((2, 3, side, side), level, np.float32), PreprocessConfig(intensity=intensity))
    np.testing.assert_allclose(scaled, level / 255 if intensity == "unit" else 0, atol=1e-4)
