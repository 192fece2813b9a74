"""From counts a slice to the numbers a report prints, each under a name that says how it was averaged.

A slice table has one row for every slice of the reference, in reading order, and the columns SLICE_COLUMNS:
image (str), patient_id (str), slice_index (Int64, may be NA), tp, fp, fn, tn (int64, pixels) and
soft_intersection, soft_prediction, soft_reference (float64, pixels). Other columns are ignored.
"""

import math
from typing import Any

import numpy as np
import pandas as pd

from brainseg_cli.errors import BrainsegError, InputError, UsageError
from brainseg_cli.metrics import counts
from brainseg_cli.metrics.terms import Terms, TermsBuilder
from brainseg_cli.types import Json, Mask, Probs

NAME_COLUMNS = ("image", "patient_id", "slice_index")
COUNT_COLUMNS = ("tp", "fp", "fn", "tn")
SOFT_COLUMNS = ("soft_intersection", "soft_prediction", "soft_reference")
SLICE_COLUMNS = (*NAME_COLUMNS, *COUNT_COLUMNS, *SOFT_COLUMNS)
PIXEL_RATIOS = ("accuracy", "sensitivity", "specificity", "precision")
RATIOS = ("dice", "iou", *PIXEL_RATIOS)

HEADLINE = "dice_patient"
BATCH_SIZE = 40
SMOOTHING = 1.0
TOLERANCE = 1e-9

_BATCHES = f"batches of consecutive slices (as many as counted.batch_size says, {BATCH_SIZE} unless told)"
_BATCH_SUMS = (
    "where I, P and R are a batch's sums of probability x reference, of probability and of reference, "
    f"and the smoothing s is {SMOOTHING:g}"
)
DEFINITIONS: dict[str, str] = {
    "dice_patient": "Counts summed over a patient's slices, dice of the sums, 2tp / (2tp + fp + fn), "
    "mean over the patients that have tumour.",
    "dice_pooled": "Counts summed over everything, dice of the sums.",
    "dice_slice_tumour": "Mean of slice dice over the slices with reference tumour.",
    "dice_slice_all": "Mean of slice dice over all slices, empty-and-empty counted 1, "
    "a false alarm on an empty slice 0.",
    "dice_batch_soft": f"Mean over {_BATCHES} of (2I + s) / (P + R + s), {_BATCH_SUMS}.",
    "iou_patient": "Counts summed over a patient's slices, iou of the sums, tp / (tp + fp + fn), "
    "mean over the patients that have tumour.",
    "iou_pooled": "Counts summed over everything, iou of the sums.",
    "iou_slice_tumour": "Mean of slice iou over the slices with reference tumour.",
    "iou_slice_all": "Mean of slice iou over all slices, empty-and-empty counted 1, a false alarm on an empty slice 0.",
    "iou_batch_soft": f"Mean over {_BATCHES} of (I + s) / (P + R - I + s), {_BATCH_SUMS}.",
    "accuracy": "Share of all pixels, pooled, that reference and prediction agree on.",
    "sensitivity": "Share of the reference's tumour pixels, pooled, that the prediction marks.",
    "specificity": "Share of the reference's background pixels, pooled, that the prediction leaves unmarked.",
    "precision": "Share of the prediction's tumour pixels, pooled, that the reference marks.",
}


def measure_slice(reference: Mask, prediction: Mask, probs: Probs | None = None) -> dict[str, float]:
    """COUNT_COLUMNS and SOFT_COLUMNS of one slice, all arrays (H, W).

    `probs` in [0, 1]; where there are none the prediction stands for them, and the sums are its counts. InputError
    where shapes differ.
    """
    row = counts.compute_counts(reference, prediction)
    if probs is None:
        soft = counts.SoftSums(float(row.tp), float(row.tp + row.fp), float(row.tp + row.fn))
    else:
        soft = counts.compute_soft_sums(reference, probs)
    return row._asdict() | {f"soft_{name}": value for name, value in soft._asdict().items()}


def add_ratios(table: pd.DataFrame) -> pd.DataFrame:
    """A copy of a table that has tp, fp, fn, tn, with the columns RATIOS (float64, in [0, 1]) appended.

    A ratio whose denominator is 0 is NaN. A table without rows gains the columns. InputError where a count
    column is missing.
    """
    _check_columns(table, COUNT_COLUMNS)
    tp, fp, fn, tn = (table[name].to_numpy() for name in COUNT_COLUMNS)
    return table.assign(
        dice=counts.dice(tp, fp, fn),
        iou=counts.iou(tp, fp, fn),
        accuracy=counts.accuracy(tp, fp, fn, tn),
        sensitivity=counts.sensitivity(tp, fn),
        specificity=counts.specificity(tn, fp),
        precision=counts.precision(tp, fp),
    )


def sum_by_patient(slices: pd.DataFrame) -> pd.DataFrame:
    """A slice table to one row a patient, in order of first appearance, whether or not its slices adjoin.

    Columns: patient_id; slices and tumour_slices (how many); reference_px, prediction_px, tp, fp, fn, tn
    (int64, sums); RATIOS (float64, of the sums, NaN where the denominator is 0). No slices, no rows.
    InputError where a column is missing or a needed value absent.
    """
    _check_slices(slices)
    table = slices.assign(
        slices=1,
        tumour_slices=has_tumour(slices).astype("int64"),
        reference_px=slices["tp"] + slices["fn"],
        prediction_px=slices["tp"] + slices["fp"],
    )
    summed = ["slices", "tumour_slices", "reference_px", "prediction_px", *COUNT_COLUMNS]
    return add_ratios(table.groupby("patient_id", sort=False)[summed].sum().reset_index())


def has_tumour(table: pd.DataFrame) -> "pd.Series[bool]":
    """Which rows of a table with tp and fn have tumour in the reference."""
    return (table["tp"] + table["fn"]) > 0


def find_nothing(slices: pd.DataFrame) -> pd.DataFrame:
    """The slice table (SLICE_COLUMNS alone) of a model that marks no pixel: what a score is worth beside.

    No slices, no rows. InputError where a column is missing or a needed value absent.
    """
    _check_slices(slices)
    return slices[list(SLICE_COLUMNS)].assign(
        tp=0,
        fp=0,
        fn=slices["tp"] + slices["fn"],
        tn=slices["tn"] + slices["fp"],
        soft_intersection=0.0,
        soft_prediction=0.0,
    )


def summarise(slices: pd.DataFrame, *, batch_size: int = BATCH_SIZE) -> Json:
    """A slice table to every metric of DEFINITIONS, ready for JSON.

    `metrics` holds a float in [0, 1] a name, or None where nothing defines it (no tumour at all, say);
    `left_out` what an aggregate did not count, and `counted` what there was. Batches are
    `batch_size` consecutive rows, the last may be short; only the two `_batch_soft` depend on row order.
    InputError for a table without slices, a missing column or an absent value; UsageError for a batch size
    below 1; BrainsegError as `check_consistency`.
    """
    _check_slices(slices)
    if slices.empty:
        raise InputError("there is no slice to measure")
    if batch_size < 1:
        raise UsageError(f"a batch of {batch_size} slices is not possible", hint="1 or more")

    measured = add_ratios(slices)
    patients = sum_by_patient(slices)
    batches = _sum_batches(slices, batch_size)
    values = build_overlap_terms(measured, patients).values()
    values |= {f"{name}_batch_soft": _to_json(batches[name].mean()) for name in ("dice", "iou")}
    tumour_slices, tumour_patients = int(has_tumour(measured).sum()), int(has_tumour(patients).sum())
    left_out: dict[str, dict[str, int]] = {}
    for name in ("dice", "iou"):
        left_out[f"{name}_patient"] = {"patients_without_tumour": len(patients) - tumour_patients}
        left_out[f"{name}_slice_tumour"] = {"slices_without_tumour": len(measured) - tumour_slices}

    counted = {
        "patients": len(patients),
        "patients_with_tumour": tumour_patients,
        "slices": len(measured),
        "slices_with_tumour": tumour_slices,
        "slices_with_false_alarm": int(((measured["fp"] > 0) & ~has_tumour(measured)).sum()),
        "slices_empty_and_empty": int(measured["dice"].isna().sum()),
        "batches": len(batches),
        "batch_size": batch_size,
        "pixels": int(slices[list(COUNT_COLUMNS)].to_numpy().sum()),
        "tumour_px": int((slices["tp"] + slices["fn"]).sum()),
        "prediction_px": int((slices["tp"] + slices["fp"]).sum()),
    }
    metrics = {name: values[name] for name in DEFINITIONS}
    summary = {"metrics": metrics, "left_out": left_out, "counted": counted}
    check_consistency(summary)
    return summary


def build_overlap_terms(slices: pd.DataFrame, patients: pd.DataFrame) -> Terms:
    """A slice table with RATIOS, and `sum_by_patient` of it, to every metric of DEFINITIONS but the `_batch_soft`.

    A batch runs over patients as it comes, so nothing of it belongs to one.
    """
    terms = TermsBuilder(patients, slices["patient_id"])
    with_tumour = has_tumour(slices)
    tp, fp, fn, tn = (patients[name].to_numpy(np.float64) for name in COUNT_COLUMNS)
    for name in ("dice", "iou"):
        terms.mean(f"{name}_patient", patients[name].where(has_tumour(patients)))
        terms.slice_mean(f"{name}_slice_tumour", slices[name].where(with_tumour))
        # NaN is a slice empty in both masks; a false alarm on an empty slice is 0 by its own counts
        terms.slice_mean(f"{name}_slice_all", slices[name].fillna(1.0))
    terms.ratio("dice_pooled", 2 * tp, 2 * tp + fp + fn)
    terms.ratio("iou_pooled", tp, tp + fp + fn)
    terms.ratio("accuracy", tp + tn, tp + fp + fn + tn)
    terms.ratio("sensitivity", tp, tp + fn)
    terms.ratio("specificity", tn, tn + fp)
    terms.ratio("precision", tp, tp + fp)
    return terms.build()


def check_consistency(summary: Json) -> None:
    """BrainsegError if a summary's numbers cannot all be true.

    The pooled iou is dice / (2 - dice) to TOLERANCE, and no iou is above the dice of its kind, nor one of the
    two None alone. The signs of two definitions mixed in one table.
    """
    metrics = summary["metrics"]
    for name in (key for key in metrics if key.startswith("dice_")):
        partner = "iou_" + name.removeprefix("dice_")
        of_dice, of_iou = metrics[name], metrics[partner]
        if of_dice is None and of_iou is None:
            continue
        agree = of_dice is not None and of_iou is not None and of_iou <= of_dice + TOLERANCE
        if agree and name == "dice_pooled":
            agree = abs(of_iou - of_dice / (2 - of_dice)) <= TOLERANCE
        if not agree:
            raise BrainsegError(f"the metrics contradict themselves: {name} {of_dice}, {partner} {of_iou}")


def _sum_batches(slices: pd.DataFrame, batch_size: int) -> pd.DataFrame:
    """Soft dice and iou of the sums over each run of `batch_size` rows."""
    starts = np.arange(0, len(slices), batch_size)
    intersection, prediction, reference = (
        np.add.reduceat(slices[name].to_numpy(dtype=np.float64), starts) for name in SOFT_COLUMNS
    )
    both = prediction + reference
    return pd.DataFrame(
        {
            "dice": (2 * intersection + SMOOTHING) / (both + SMOOTHING),
            "iou": (intersection + SMOOTHING) / (both - intersection + SMOOTHING),
        }
    )


def _to_json(value: Any) -> float | None:
    return None if math.isnan(value) else float(value)


def _check_columns(table: pd.DataFrame, needed: tuple[str, ...]) -> None:
    missing = [name for name in needed if name not in table.columns]
    if missing:
        raise InputError(f"the table of slices lacks the columns {', '.join(missing)}")


def _check_slices(slices: pd.DataFrame) -> None:
    # grouping and summing pass over an absent value in silence, and the mean would rise
    _check_columns(slices, SLICE_COLUMNS)
    for name in ("patient_id", *COUNT_COLUMNS, *SOFT_COLUMNS):
        absent = int(slices[name].isna().sum())
        if absent:
            raise InputError(f"the table of slices lacks {name} in {absent} of {len(slices)} rows")
