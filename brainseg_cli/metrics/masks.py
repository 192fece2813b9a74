"""What every metric asks of masks and probabilities before it measures them, and where in a mask there is tumour."""

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from brainseg_cli.errors import InputError
from brainseg_cli.types import Mask, Probs


def check_masks(reference: npt.NDArray[Any], prediction: npt.NDArray[Any]) -> None:
    """InputError where the shapes differ, or where one is not a mask (bool or integer) but floating-point.

    Probabilities have to meet a threshold first. Arrays without pixels pass.
    """
    if reference.shape != prediction.shape:
        raise InputError(f"the reference is {reference.shape}, the prediction {prediction.shape}")
    for name, mask in (("reference", reference), ("prediction", prediction)):
        if mask.dtype.kind not in "bui":
            raise InputError(f"the {name} holds {mask.dtype} values and is not a mask")


def check_probs(reference: Mask, probs: Probs | Mask) -> None:
    """InputError where the shapes differ, or a probability is outside [0, 1] or NaN. Arrays without pixels pass."""
    if reference.shape != probs.shape:
        raise InputError(f"the reference is {reference.shape}, the probabilities {probs.shape}")
    # written so that a NaN fails it too
    if probs.size and not (probs.min() >= 0 and probs.max() <= 1):
        raise InputError(f"probabilities run from {probs.min()} to {probs.max()}, not within [0, 1]")


def has_tumour(mask: Mask) -> bool:
    """Whether a mask (H, W) has any pixel that is not 0: in a fraction of the time that NumPy takes."""
    return bool(mask.size and cv2.hasNonZero(mask))


def find_box(mask: npt.NDArray[np.bool_ | np.uint8]) -> tuple[slice, ...]:
    """The smallest box around the tumour (not 0) of a mask, a slice an axis; of no extent where there is none."""
    if mask.ndim == 2 and mask.size and mask.flags.c_contiguous:  # a slice: OpenCV passes over it once
        left, top, width, height = cv2.boundingRect(mask.view(np.uint8))
        return slice(top, top + height), slice(left, left + width)
    if mask.ndim == 0:
        return ()
    filled = np.flatnonzero(mask.any(axis=tuple(range(1, mask.ndim))))
    first = slice(int(filled[0]), int(filled[-1]) + 1) if filled.size else slice(0, 0)
    return first, *find_box(np.asarray(mask.any(axis=0)))
