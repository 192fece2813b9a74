"""Geometry and intensity of what the network sees, each with its inverse. No torch here.

Geometry: an (H, W) slice is scaled to fit a square of `size`, its aspect kept, centred, padded with 0.
Intensity works on batches of NumPy arrays and of torch tensors alike, so that a GPU can do it after the
uint8 pixels have crossed the bus.
"""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from brainseg_cli.config import PreprocessConfig
from brainseg_cli.types import Image, Mask, Probs

MIN_STD = 0.02
"""Least standard deviation (of pixels in [0, 1]) that z-scoring divides by: 5 grey levels of 255. A blank
slice stays blank instead of becoming noise."""


@dataclass(frozen=True)
class Fit:
    """Where an image of (height, width) lies in the square of side `size`."""

    height: int
    width: int
    size: int

    @classmethod
    def of(cls, array: Image | Mask, size: int) -> "Fit":
        """For an array whose first two axes are rows and columns."""
        return cls(array.shape[0], array.shape[1], size)

    @property
    def box(self) -> tuple[int, int, int, int]:
        """top, left, rows, columns of the scaled image within the square."""
        scale = self.size / max(self.height, self.width)
        rows = max(1, round(self.height * scale))
        columns = max(1, round(self.width * scale))
        return (self.size - rows) // 2, (self.size - columns) // 2, rows, columns

    def _place(self, array: np.ndarray, interpolation: int) -> np.ndarray:
        top, left, rows, columns = self.box
        if (rows, columns) != array.shape[:2]:
            array = cv2.resize(array, (columns, rows), interpolation=interpolation)
        if (rows, columns) == (self.size, self.size):
            return array
        square = np.zeros((self.size, self.size, *array.shape[2:]), array.dtype)
        square[top : top + rows, left : left + columns] = array
        return square

    def image(self, image: Image) -> Image:
        """(H, W, C) uint8 to (size, size, C) uint8; averaged where it shrinks, else interpolated."""
        shrinks = max(self.height, self.width) > self.size
        placed = self._place(image, cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
        return placed if placed.ndim == 3 else placed[..., None]  # cv2 drops a single channel

    def mask(self, mask: Mask) -> Mask:
        """(H, W) in {0, 1} to (size, size) in {0, 1}; where it shrinks, a pixel half covered is 1."""
        if max(self.height, self.width) <= self.size:
            return self._place(mask, cv2.INTER_NEAREST_EXACT)
        covered = self._place(mask.astype(np.float32), cv2.INTER_AREA)
        return (covered >= 0.5).astype(np.uint8)

    def restore(self, probs: Probs) -> Probs:
        """(size, size) float32 back to (H, W): the padding cut off, interpolated."""
        top, left, rows, columns = self.box
        inner = probs[top : top + rows, left : left + columns]
        if (rows, columns) == (self.height, self.width):
            return inner
        interpolation = cv2.INTER_AREA if rows > self.height else cv2.INTER_LINEAR
        restored = cv2.resize(inner, (self.width, self.height), interpolation=interpolation)
        return restored.astype(np.float32, copy=False)


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
