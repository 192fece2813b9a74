"""What one slice's prediction says without a reference: how much tumour, where, how sure, and whether members agree."""

import itertools
from collections.abc import Sequence

import numpy as np

from brainseg_cli.errors import InputError
from brainseg_cli.metrics import counts
from brainseg_cli.metrics.masks import check_probs
from brainseg_cli.types import Json, Mask, Probs


def describe_finding(mask: Mask, probs: Probs, *, pixel_mm: tuple[float, float] | None = None) -> Json:
    """A mask (H, W), not 0 is tumour, and its probabilities (H, W) in [0, 1], as numbers that JSON can hold.

    In this order:

        tumour       whether any pixel is
        area_px      how many are
        area_mm2     that in mm2 where `pixel_mm`, a pixel's height and width in mm, is given; else None
        max_prob     largest probability of the whole slice
        mean_prob    mean probability over the tumour's pixels; None without tumour
        centroid_px  [row, column], mean over the tumour's pixels, 0 the middle of the first; None without tumour
        box_px       [top, left, bottom, right], half-open as slices are; None without tumour
        entropy      binary entropy -p log2(p) - (1 - p) log2(1 - p), mean over the whole slice, in bits in [0, 1]

    Areas and probabilities are rounded to 4 places, the centroid to 2, the entropy to 6. Arrays without pixels have
    None for max_prob and entropy. InputError where the shapes differ or have other than 2 axes, and for a
    probability outside [0, 1] or NaN.
    """
    if mask.ndim != 2 or mask.shape != probs.shape:
        raise InputError(f"the mask is {mask.shape}, its probabilities {probs.shape}; both are (H, W) of a slice")
    check_probs(mask, probs)
    rows, columns = np.nonzero(mask)
    area_px = rows.size
    found: Json = {"mean_prob": None, "centroid_px": None, "box_px": None}
    if area_px:
        found = {
            "mean_prob": round(float(probs[rows, columns].mean(dtype=np.float64)), 4),
            "centroid_px": [round(float(rows.mean()), 2), round(float(columns.mean()), 2)],
            "box_px": [int(rows.min()), int(columns.min()), int(rows.max()) + 1, int(columns.max()) + 1],
        }
    return {
        "tumour": area_px > 0,
        "area_px": area_px,
        "area_mm2": None if pixel_mm is None else round(area_px * pixel_mm[0] * pixel_mm[1], 4),
        "max_prob": round(float(probs.max()), 4) if probs.size else None,
        **found,
        "entropy": round(_mean_entropy(probs), 6) if probs.size else None,
    }


def measure_disagreement(masks: Sequence[Mask]) -> float | None:
    """1 - the mean dice of every pair of an ensemble's masks (H, W), in [0, 1], to 4 places; None for less than two.

    0 where all are the same; two masks without tumour are. InputError where the shapes differ or an array is no
    mask but floating-point.
    """
    pairs = [counts.compute_counts(one, other) for one, other in itertools.combinations(masks, 2)]
    if not pairs:
        return None
    tp, fp, fn, _ = np.transpose(pairs)
    agreement = np.nan_to_num(counts.dice(tp, fp, fn), nan=1.0)
    return round(1 - float(agreement.mean()), 4)


def _mean_entropy(probs: Probs) -> float:
    p = probs[(probs > 0) & (probs < 1)]  # a pixel that is certain adds 0
    bits = p * -np.log2(p) + (1 - p) * -np.log2(1 - p)
    return float(bits.sum(dtype=np.float64)) / probs.size
