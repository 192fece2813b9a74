"""Geometry and intensity of what the network sees, each with its inverse. No torch here.

Geometry: a slice, or the head in it, is scaled to fit a square, its aspect kept, centred, padded with 0.
Intensity works on batches of NumPy arrays and of torch tensors alike, so that a GPU can do it after the
uint8 pixels have crossed the bus.
"""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from brainseg_cli.config import PreprocessConfig
from brainseg_cli.types import Image, Mask, Probs

MIN_STD = 0.02
"""Least standard deviation (of pixels in [0, 1]) that z-scoring divides by: 5 grey levels of 255. A blank
slice stays blank instead of becoming noise."""


HEAD_MARGIN = 0.03
"""Of the head's longer side, left around it."""
LEAST_WINDOW = 0.5
"""Of the image's longer side: a slice near the crown, where the head is small, is not blown up further."""
LEAST_PART = 0.03
"""Of the largest bright part's area: smaller ones are specks."""


@dataclass(frozen=True)
class Window:
    """A part of an image: rows top to top + height, columns left to left + width."""

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True)
class Fit:
    """How the window of an (H, W) image lies in the square of side `size`: scaled to fit, its aspect kept, centred.

    Made by `fit_image`; the same Fit takes the mask there and the probabilities back.
    """

    shape: tuple[int, int]
    window: Window
    size: int

    def image(self, image: Image) -> Image:
        """(H, W, C) uint8 to (size, size, C) uint8; averaged where it shrinks, else interpolated."""
        placed = self._place(image, cv2.INTER_AREA if self._shrinks else cv2.INTER_LINEAR)
        return placed if placed.ndim == 3 else placed[..., None]  # cv2 drops a single channel

    def mask(self, mask: Mask) -> Mask:
        """(H, W) in {0, 1} to (size, size) in {0, 1}; where it shrinks, a pixel half covered is 1."""
        if not self._shrinks:
            return self._place(mask, cv2.INTER_NEAREST_EXACT)
        return (self._place(mask.astype(np.float32), cv2.INTER_AREA) >= 0.5).astype(np.uint8)

    def restore(self, probs: Probs) -> Probs:
        """(size, size) float32 back to (H, W): the padding cut off, interpolated; 0 outside the window."""
        top, left, rows, columns = self._box
        inner = probs[top : top + rows, left : left + columns]
        if (rows, columns) != (self.window.height, self.window.width):
            interpolation = cv2.INTER_LINEAR if self._shrinks else cv2.INTER_AREA
            resized = cv2.resize(inner, (self.window.width, self.window.height), interpolation=interpolation)
            inner = resized.astype(np.float32, copy=False)
        if inner.shape == self.shape:
            return inner
        whole = np.zeros(self.shape, np.float32)
        whole[self._rows, self._columns] = inner
        return whole

    @property
    def _shrinks(self) -> bool:
        return max(self.window.height, self.window.width) > self.size

    @property
    def _box(self) -> tuple[int, int, int, int]:
        """top, left, rows, columns of the scaled window within the square."""
        scale = self.size / max(self.window.height, self.window.width)
        rows, columns = max(1, round(self.window.height * scale)), max(1, round(self.window.width * scale))
        return (self.size - rows) // 2, (self.size - columns) // 2, rows, columns

    @property
    def _rows(self) -> slice:
        return slice(self.window.top, self.window.top + self.window.height)

    @property
    def _columns(self) -> slice:
        return slice(self.window.left, self.window.left + self.window.width)

    def _place(self, array: np.ndarray, interpolation: int) -> np.ndarray:
        top, left, rows, columns = self._box
        inner = array[self._rows, self._columns]
        if (rows, columns) != inner.shape[:2]:
            inner = cv2.resize(inner, (columns, rows), interpolation=interpolation)
        if (rows, columns) == (self.size, self.size):
            return inner
        square = np.zeros((self.size, self.size, *array.shape[2:]), array.dtype)
        square[top : top + rows, left : left + columns] = inner.reshape(rows, columns, *array.shape[2:])
        return square


def fit_image(image: Image, config: PreprocessConfig) -> Fit:
    """Where an (H, W, C) uint8 image goes: all of it, or with `crop = "head"` the head in it."""
    height, width = image.shape[:2]
    window = find_head(image) if config.crop == "head" else Window(0, 0, height, width)
    return Fit((height, width), window, config.size)


def find_head(image: Image) -> Window:
    """The box of the bright parts of an (H, W, C) uint8 slice, with a margin; all of a slice without any.

    Bright is above half of Otsu's threshold (1979), in the median of three channels so that one channel with
    a grey background does not count. The window is no smaller than LEAST_WINDOW of the image's longer side.
    """
    height, width = image.shape[:2]
    grey = _median_channel(image)
    threshold, _ = cv2.threshold(grey, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    bright = (grey > max(threshold / 2, 1)).astype(np.uint8)
    reach = max(3, min(height, width) // 50) | 1  # speckle and thin lines of the background
    opened = cv2.morphologyEx(bright, cv2.MORPH_OPEN, np.ones((reach, reach), np.uint8))
    count, _, stats, _ = cv2.connectedComponentsWithStats(opened)
    if count < 2:
        return Window(0, 0, height, width)
    areas = stats[1:, cv2.CC_STAT_AREA]
    parts = stats[1:][areas >= LEAST_PART * areas.max()]  # the scalp may lie apart from the brain
    left, top = int(parts[:, cv2.CC_STAT_LEFT].min()), int(parts[:, cv2.CC_STAT_TOP].min())
    columns = int((parts[:, cv2.CC_STAT_LEFT] + parts[:, cv2.CC_STAT_WIDTH]).max()) - left
    rows = int((parts[:, cv2.CC_STAT_TOP] + parts[:, cv2.CC_STAT_HEIGHT]).max()) - top
    margin = 2 * round(HEAD_MARGIN * max(rows, columns))
    least = round(LEAST_WINDOW * max(height, width))
    top, rows = _widen(top, rows, max(rows + margin, least), height)
    left, columns = _widen(left, columns, max(columns + margin, least), width)
    return Window(top, left, rows, columns)


def _median_channel(image: Image) -> npt.NDArray[np.uint8]:
    if image.shape[2] == 1:
        return np.ascontiguousarray(image[..., 0])
    a, b, c = cv2.split(image)
    return np.maximum(np.minimum(a, b), np.minimum(np.maximum(a, b), c))


def _widen(start: int, length: int, wanted: int, limit: int) -> tuple[int, int]:
    """A stretch of `wanted` around the same middle, pushed back inside 0 to `limit`."""
    wanted = min(wanted, limit)
    return min(max(start - (wanted - length) // 2, 0), limit - wanted), wanted


def scale_intensity(pixels: Any, config: PreprocessConfig) -> Any:
    """(N, C, H, W) float pixels in [0, 255], NumPy or torch, to what the network sees; the same type.

    `unit` divides by 255. `zscore` then brings each channel of each slice to mean 0 and standard deviation
    1 (population), the latter no less than MIN_STD.
    """
    unit = pixels / 255.0
    if config.intensity == "unit":
        return unit
    mean, spread = _moments(unit)
    return (unit - mean) / spread


def restore_intensity(scaled: Any, pixels: Any, config: PreprocessConfig) -> Any:
    """The inverse of `scale_intensity`, given the `pixels` whose statistics it used; to float rounding."""
    if config.intensity == "unit":
        return scaled * 255.0
    mean, spread = _moments(pixels / 255.0)
    return (scaled * spread + mean) * 255.0


def _moments(unit: Any) -> tuple[Any, Any]:
    mean = unit.mean((-2, -1), keepdims=True)
    variance = ((unit - mean) ** 2).mean((-2, -1), keepdims=True)
    return mean, (variance**0.5).clip(MIN_STD)
