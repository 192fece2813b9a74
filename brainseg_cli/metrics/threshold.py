"""What every threshold would score, from one look at the probabilities, and the one to choose."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from brainseg_cli.errors import InputError
from brainseg_cli.metrics import counts
from brainseg_cli.metrics.masks import check_probs
from brainseg_cli.types import Json, Mask, Probs

_HUNDREDTHS = range(1, 100)
THRESHOLDS: npt.NDArray[np.float32] = np.array([n / 100 for n in _HUNDREDTHS], dtype=np.float32)
"""0.01 to 0.99 in float32: what `probs >= 0.37` compares float32 probabilities with."""

PixelCounts = npt.NDArray[np.int64]


def count_at_thresholds(reference: Mask, probs: Probs) -> tuple[PixelCounts, PixelCounts]:
    """tp and fp, int64 (99,) each, of the mask `probs >= threshold` at each of THRESHOLDS.

    `reference` is a mask (not 0 is tumour), `probs` float32 in [0, 1] of its shape. Arrays without pixels give zeros.
    InputError as `check_probs`, and for another type than float32, in which a threshold is another number.
    """
    check_probs(reference, probs)
    if probs.dtype != np.float32:
        raise InputError(f"the probabilities are {probs.dtype}, not float32")
    likely = probs >= THRESHOLDS[0]  # few: the rest of a slice is in no mask at all
    in_reference = reference[likely] != 0
    last = np.searchsorted(THRESHOLDS, probs[likely], side="right") - 1  # the highest threshold a pixel reaches
    tp, fp = (
        np.bincount(last[side], minlength=len(THRESHOLDS))[::-1].cumsum()[::-1]
        for side in (in_reference, ~in_reference)
    )
    return tp, fp


def sweep(tp: npt.ArrayLike, fp: npt.ArrayLike, reference_px: npt.ArrayLike) -> list[Json]:
    """A row for each of THRESHOLDS: threshold, dice_patient and dice_pooled, in [0, 1], as in aggregate.DEFINITIONS.

    `tp` and `fp` are sums over each patient's slices at every threshold, (P, 99), `reference_px` (P,) the patients'
    tumour pixels. dice_patient is None where no patient has tumour, dice_pooled where nobody has any, nor is given
    any; without patients (P = 0) both are None. InputError where the shapes do not fit.
    """
    tp, fp, reference_px = (np.asarray(each, dtype=np.int64) for each in (tp, fp, reference_px))
    expected = (len(reference_px), len(THRESHOLDS))
    if tp.shape != expected or fp.shape != expected:
        raise InputError(f"counts at thresholds are {tp.shape} and {fp.shape}, not {expected}")
    has_tumour = reference_px > 0
    of_patients = counts.dice(tp, fp, reference_px[:, None] - tp)[has_tumour]
    pooled = counts.dice(tp.sum(axis=0), fp.sum(axis=0), reference_px.sum() - tp.sum(axis=0))
    rows: list[Json] = []
    for at, hundredth in enumerate(_HUNDREDTHS):
        patient_dice = float(of_patients[:, at].mean()) if has_tumour.any() else None
        pooled_dice = None if np.isnan(pooled[at]) else float(pooled[at])
        rows.append({"threshold": hundredth / 100, "dice_patient": patient_dice, "dice_pooled": pooled_dice})
    return rows


def choose_threshold(rows: Sequence[Json]) -> float | None:
    """The threshold of the largest dice_patient among the rows of `sweep`.

    Of several the nearest to 0.5, of two as near the lower. None where no row defines it.
    """
    defined = [row for row in rows if row["dice_patient"] is not None]
    if not defined:
        return None
    # whole hundredths, since 0.5 - 0.46 and 0.54 - 0.5 are not one float
    best = min(
        defined, key=lambda row: (-row["dice_patient"], abs(round(100 * row["threshold"]) - 50), row["threshold"])
    )
    return float(best["threshold"])
