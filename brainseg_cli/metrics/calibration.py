"""Do the probabilities mean what they say: sums by bin, the expected calibration error and the Brier score."""

import numpy as np
import numpy.typing as npt

from brainseg_cli.metrics.masks import check_probs
from brainseg_cli.types import Json, Mask, Probs

BINS = 15
PIXELS, SUM_PROB, TUMOUR = 0, 1, 2

ReliabilitySums = npt.NDArray[np.float64]
"""(..., BINS, 3) float64: for each bin its pixels, their sum of probability, and how many of them are tumour."""

DEFINITIONS: dict[str, str] = {
    "ece": f"Expected calibration error: pixels in {BINS} bins of equal width by their probability of tumour, the gap "
    "between a bin's mean probability and its share of tumour, mean over all pixels. Background included, hence "
    "small: compare it with finding nothing, whose ece is the share of tumour pixels.",
    "brier": "Brier score: mean over all pixels of (probability - reference) squared. Background included, hence "
    "small: compare it with finding nothing, whose score is the share of tumour pixels.",
}


def bin_probs(reference: Mask, probs: Probs | Mask) -> ReliabilitySums:
    """The reliability sums, (BINS, 3) float64, of a mask (not 0 is tumour) and probabilities of its shape.

    Bins are [k / BINS, (k + 1) / BINS), the last one closed. They add: the sums of several slices are those of all
    their pixels. Arrays without pixels give zeros. A mask in {0, 1} may stand for the probabilities. InputError as
    `check_probs`.
    """
    check_probs(reference, probs)
    bins = np.zeros((BINS, 3))
    # most pixels are almost surely background: the first bin is what the few others leave
    first = probs < 1 / BINS
    others = ~first
    chosen, in_reference = probs[others].astype(np.float64), reference[others] != 0
    # float64 holds 15 times a float32 without rounding, so that no pixel is put on the wrong side of an edge
    at = np.minimum(chosen * BINS, BINS - 1).astype(np.intp)
    bins[:, PIXELS] = np.bincount(at, minlength=BINS)
    bins[:, SUM_PROB] = np.bincount(at, chosen, minlength=BINS)
    bins[:, TUMOUR] = np.bincount(at[in_reference], minlength=BINS)
    bins[0, PIXELS] += np.count_nonzero(first)
    bins[0, SUM_PROB] += np.sum(probs * first, dtype=np.float64)
    bins[0, TUMOUR] += np.count_nonzero(reference) - np.count_nonzero(in_reference)
    return bins


def compute_ece(bins: ReliabilitySums) -> npt.NDArray[np.float64]:
    """Sum over bins of |sum of probability - tumour pixels|, over all pixels: (..., BINS, 3) to (...), in [0, 1].

    NaN where there are no pixels. It is the mean gap between probability and share of tumour, weighted by the bins'
    pixels: Naeini, Cooper and Hauskrecht 2015, of the probability of tumour rather than of the likelier class.
    """
    gaps = np.abs(bins[..., SUM_PROB] - bins[..., TUMOUR]).sum(axis=-1)
    pixels = bins[..., PIXELS].sum(axis=-1)
    ece = np.full(pixels.shape, np.nan)
    np.divide(gaps, pixels, out=ece, where=pixels > 0)
    return ece


def sum_squared_error(reference: Mask, probs: Probs | Mask) -> float:
    """Sum over pixels of (p - r)^2, float64, r being 1 where the mask is not 0; over all pixels it is Brier's score.

    Arrays without pixels give 0. A mask in {0, 1} may stand for the probabilities. InputError as `check_probs`.
    Brier 1950, for one class of two.
    """
    check_probs(reference, probs)
    error = probs.astype(np.float64)
    error[reference != 0] -= 1
    return float(np.vdot(error, error))


def describe_bins(bins: ReliabilitySums) -> list[Json]:
    """The reliability sums (BINS, 3) as rows: low, high (edges), pixels, mean_prob and tumour_share.

    The last two are in [0, 1], and None in a bin without pixels.
    """
    rows: list[Json] = []
    for at, (pixels, sum_prob, tumour) in enumerate(bins.tolist()):
        mean_prob, tumour_share = (sum_prob / pixels, tumour / pixels) if pixels else (None, None)
        edges = {"low": at / BINS, "high": (at + 1) / BINS}
        rows.append({**edges, "pixels": int(pixels), "mean_prob": mean_prob, "tumour_share": tumour_share})
    return rows
