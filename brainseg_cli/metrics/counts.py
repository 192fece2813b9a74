"""Pixel counts of a reference against a prediction, and the ratios of counts. Every overlap starts here."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from brainseg_cli.metrics.masks import check_masks, check_probs
from brainseg_cli.types import Mask, Probs

Ratio = npt.NDArray[np.float64]
"""float64, shaped as the counts it was made of (0-d for plain integers); NaN where the denominator is 0."""


class Counts(NamedTuple):
    """Pixels by reference and prediction; their sum is the size of the mask."""

    tp: int
    fp: int
    fn: int
    tn: int


class SoftSums(NamedTuple):
    """Sums over pixels for the soft dice; intersection is at most the smaller of the other two."""

    intersection: float
    prediction: float
    reference: float


def compute_counts(reference: Mask, prediction: Mask) -> Counts:
    """Count the pixels of two masks of one shape, bool or integer, 0 background and anything else tumour.

    Arrays without pixels give four zeros. InputError as `check_masks`.
    """
    check_masks(reference, prediction)
    in_reference, in_prediction = reference != 0, prediction != 0
    reference_px, prediction_px = np.count_nonzero(in_reference), np.count_nonzero(in_prediction)
    tp = np.count_nonzero(in_reference & in_prediction)
    fp, fn = prediction_px - tp, reference_px - tp
    return Counts(int(tp), int(fp), int(fn), int(reference.size - tp - fp - fn))


def compute_soft_sums(reference: Mask, probs: Probs | Mask) -> SoftSums:
    """Sum p * r, p and r over the pixels of a mask r (not 0 is tumour) and probabilities p of its shape.

    A mask in {0, 1} may stand for the probabilities. Sums are float64, in pixels. Arrays without pixels give
    three zeros. InputError as `check_probs`.
    """
    check_probs(reference, probs)
    in_reference = reference != 0
    return SoftSums(
        intersection=float(np.sum(probs[in_reference], dtype=np.float64)),
        prediction=float(np.sum(probs, dtype=np.float64)),
        reference=float(np.count_nonzero(in_reference)),
    )


def dice(tp: npt.ArrayLike, fp: npt.ArrayLike, fn: npt.ArrayLike) -> Ratio:
    """2tp / (2tp + fp + fn), in [0, 1]; NaN where neither mask has tumour. Dice 1945."""
    tp, fp, fn = _as_float(tp, fp, fn)
    return _divide(2 * tp, 2 * tp + fp + fn)


def iou(tp: npt.ArrayLike, fp: npt.ArrayLike, fn: npt.ArrayLike) -> Ratio:
    """tp / (tp + fp + fn), in [0, 1]; NaN where neither mask has tumour. Jaccard 1912."""
    tp, fp, fn = _as_float(tp, fp, fn)
    return _divide(tp, tp + fp + fn)


def accuracy(tp: npt.ArrayLike, fp: npt.ArrayLike, fn: npt.ArrayLike, tn: npt.ArrayLike) -> Ratio:
    """(tp + tn) / all pixels, in [0, 1]; NaN where there is no pixel."""
    tp, fp, fn, tn = _as_float(tp, fp, fn, tn)
    return _divide(tp + tn, tp + fp + fn + tn)


def sensitivity(tp: npt.ArrayLike, fn: npt.ArrayLike) -> Ratio:
    """tp / (tp + fn), in [0, 1]; NaN where the reference has no tumour."""
    tp, fn = _as_float(tp, fn)
    return _divide(tp, tp + fn)


def specificity(tn: npt.ArrayLike, fp: npt.ArrayLike) -> Ratio:
    """tn / (tn + fp), in [0, 1]; NaN where the reference has no background."""
    tn, fp = _as_float(tn, fp)
    return _divide(tn, tn + fp)


def precision(tp: npt.ArrayLike, fp: npt.ArrayLike) -> Ratio:
    """tp / (tp + fp), in [0, 1]; NaN where the prediction has no tumour."""
    tp, fp = _as_float(tp, fp)
    return _divide(tp, tp + fp)


def _as_float(*counts: npt.ArrayLike) -> list[Ratio]:
    # float64 holds every integer up to 2**53; a narrow integer type would overflow in 2tp
    return [np.asarray(count, dtype=np.float64) for count in counts]


def _divide(numerator: Ratio, denominator: Ratio) -> Ratio:
    ratio: Ratio = np.full(np.shape(denominator), np.nan)
    np.divide(numerator, denominator, out=ratio, where=denominator != 0)
    return ratio
