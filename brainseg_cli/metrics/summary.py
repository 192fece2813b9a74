"""The tables of `measure` to what summary.json says: values, intervals, what nothing scores, what was left out."""

from collections.abc import Collection, Mapping
from dataclasses import replace

import numpy as np
import pandas as pd

from brainseg_cli.metrics import aggregate
from brainseg_cli.metrics.calibration import DEFINITIONS as CALIBRATION_DEFINITIONS
from brainseg_cli.metrics.calibration import PIXELS, TUMOUR, describe_bins
from brainseg_cli.metrics.doubt import RESAMPLES, SEED, Resamples
from brainseg_cli.metrics.lesions import count_by_size, describe_lesions
from brainseg_cli.metrics.measure import Measures, Ruler
from brainseg_cli.metrics.surface import describe_surface
from brainseg_cli.metrics.terms import Terms, TermsBuilder
from brainseg_cli.types import Json

INTERVAL_METHOD = f"95 % percentile bootstrap over patients, {RESAMPLES} resamples, seed {SEED}"


def list_metrics(ruler: Ruler, *, probabilities: bool) -> list[str]:
    """The names that a summary will have, known before anything is measured."""
    return list(_define(ruler, {26}, probabilities=probabilities))


def build_terms(measures: Measures) -> Terms:
    """Every metric but the two `_batch_soft`."""
    slices, patients = measures.slices, measures.patients
    terms = TermsBuilder(patients, slices["patient_id"])
    for name in measures.ruler.names:
        terms.mean(name, patients[name])
        terms.slice_mean(_of_slices(name), slices[name])
    detected = patients["lesions_detected"]
    terms.ratio("lesion_sensitivity", detected, patients["lesions"])
    terms.ratio("lesion_false_alarms_slice", patients["lesion_false_alarms"], patients["slices"])
    terms.mean("lesion_false_alarms_patient", patients["lesion_false_alarms"])
    terms.ratio("lesion_dice", (patients["lesion_dice"] * detected).fillna(0.0), detected)
    if measures.bins is not None:
        pixels = _count_pixels(patients)
        terms.ratio("brier", patients["brier"] * pixels, pixels)
    return aggregate.build_overlap_terms(slices, patients).join(terms.build(measures.bins))


def summarise_measures(measures: Measures, *, batch_size: int = aggregate.BATCH_SIZE) -> Json:
    """What summary.json says of one prediction, ready for JSON; only the two `_batch_soft` depend on `batch_size`.

    `metrics`, `intervals`, `find_nothing` and `definitions` have the names of `list_metrics`, in that order: a float
    or None where nothing defines it, [low, high] or None, what `imagine_nothing` scores, and a text. `left_out` and
    `one_empty` say what a mean passed over and what it counted as a diagonal. `at_half` and `calibration` are None
    without probabilities. UsageError and BrainsegError as `aggregate.summarise`.
    """
    overlap = aggregate.summarise(measures.slices, batch_size=batch_size)
    terms, nothing = build_terms(measures), imagine_nothing(measures)
    values = overlap["metrics"] | terms.values()
    intervals = terms.intervals(Resamples(len(measures.patients)))
    worth = aggregate.summarise(nothing.slices, batch_size=batch_size)["metrics"] | build_terms(nothing).values()
    connectivities = set(measures.patients["lesion_connectivity"].tolist())
    definitions = _define(measures.ruler, connectivities, probabilities=measures.bins is not None)
    left_out, one_empty = _count_empty(measures)
    at_half = calibration = None
    if measures.halves is not None:
        at_half = aggregate.summarise(measures.halves, batch_size=batch_size)["metrics"]
    if measures.bins is not None:
        bins = describe_bins(measures.bins.sum(axis=0))
        calibration = {"ece": values["ece"], "brier": values["brier"], "bins": bins}
    return {
        "unit": measures.ruler.unit,
        "spacing_mm": list(measures.ruler.spacing_mm) if measures.ruler.spacing_mm else None,
        "tolerances": list(measures.ruler.tolerances),
        "metrics": {name: values[name] for name in definitions},
        "intervals": {name: intervals.get(name) for name in definitions},
        "interval_method": INTERVAL_METHOD,
        "find_nothing": {name: worth[name] for name in definitions},
        "at_half": at_half,
        "left_out": overlap["left_out"] | left_out,
        "one_empty": one_empty,
        "counted": overlap["counted"],
        "definitions": definitions,
        "lesions": _sum_lesions(measures),
        "calibration": calibration,
    }


def imagine_nothing(measures: Measures) -> Measures:
    """The measures of a prediction without tumour, on the same references: what a score is worth beside.

    Where there are probabilities they are 0 everywhere. `lesions` and `halves` are left as they were.
    """
    ruler, owners = measures.ruler, measures.slices["patient_id"]
    slices = aggregate.add_ratios(aggregate.find_nothing(measures.slices))
    row_step, column_step = ruler.in_plane or (1.0, 1.0)
    squares = (measures.slices["height"] * row_step) ** 2 + (measures.slices["width"] * column_step) ** 2
    for name in ruler.names:
        slices[name] = _score_missed(name, squares**0.5).where(aggregate.has_tumour(slices))
    patients = aggregate.sum_by_patient(slices)
    patients = patients.merge(measures.patients[["patient_id", "lesions", "lesion_connectivity"]], on="patient_id")
    patients = patients.assign(lesions_detected=0, lesions_predicted=0, lesion_false_alarms=0, lesion_dice=np.nan)
    if ruler.spacing_mm is None:
        means = slices.groupby(owners, sort=False)[ruler.names].mean()
        patients[ruler.names] = means.reset_index(drop=True)
    else:
        depths = patients["slices"] * ruler.spacing_mm[2]
        squares = squares.groupby(owners, sort=False).first().reset_index(drop=True) + depths**2
        for name in ruler.names:
            patients[name] = _score_missed(name, squares**0.5).where(aggregate.has_tumour(patients))
    bins = None
    if measures.bins is not None:
        patients["brier"] = patients["reference_px"] / _count_pixels(patients)
        bins = np.zeros_like(measures.bins)
        bins[:, 0, PIXELS] = measures.bins[..., PIXELS].sum(axis=1)
        bins[:, 0, TUMOUR] = measures.bins[..., TUMOUR].sum(axis=1)
    return replace(measures, slices=slices, patients=patients, bins=bins)


def _of_slices(name: str) -> str:
    """hd95_px, of patients, to hd95_slice_px."""
    kind, _, unit = name.partition("_")
    return f"{kind}_slice_{unit}"


def _count_pixels(patients: pd.DataFrame) -> "pd.Series[float]":
    return patients[list(aggregate.COUNT_COLUMNS)].sum(axis=1)


def _score_missed(name: str, diagonal: "pd.Series[float]") -> "pd.Series[float]":
    """What a distance is where the tumour was not found at all: no share of the surface, else the diagonal."""
    return 0.0 * diagonal if name.startswith("nsd") else diagonal


def _count_empty(measures: Measures) -> tuple[dict[str, dict[str, int]], dict[str, Json]]:
    """What the means leave out, and where distances count as the diagonal since one of the masks is empty."""
    of_slices = _count_one_empty(measures.slices, "slices")
    # in pixels a patient's distance is a mean over slices, and it is in these that a mask is empty
    of_patients = _count_one_empty(measures.patients, "patients") if measures.ruler.spacing_mm else of_slices
    left_out: dict[str, dict[str, int]] = {}
    one_empty: dict[str, Json] = {}
    for name in measures.ruler.names:
        left_out[name] = {"patients_empty_in_both": int(measures.patients[name].isna().sum())}
        slices = {"slices_empty_in_both": int(measures.slices[name].isna().sum())}
        left_out[_of_slices(name)] = slices
        if measures.ruler.spacing_mm is None:
            left_out[name] = slices | left_out[name]
        one_empty[name], one_empty[_of_slices(name)] = dict(of_patients), dict(of_slices)
    missed = measures.patients["lesions"] - measures.patients["lesions_detected"]
    left_out["lesion_dice"] = {"lesions_missed": int(missed.sum())}
    return left_out, one_empty


def _count_one_empty(table: pd.DataFrame, of: str) -> Json:
    reference, prediction = table["tp"] + table["fn"] > 0, table["tp"] + table["fp"] > 0
    return {
        "missed": int((reference & ~prediction).sum()),
        "false_alarm": int((~reference & prediction).sum()),
        "of": of,
    }


def _sum_lesions(measures: Measures) -> Json:
    """`connectivity` says of how many patients the slices are a volume (26) and of how many they are not (8)."""
    patients, lesions = measures.patients, measures.lesions
    return {
        "connectivity": {str(key): int(n) for key, n in patients["lesion_connectivity"].value_counts().items()},
        "reference": int(patients["lesions"].sum()),
        "detected": int(patients["lesions_detected"].sum()),
        "predicted": int(patients["lesions_predicted"].sum()),
        "false_alarms": int(patients["lesion_false_alarms"].sum()),
        "by_size": count_by_size(*(lesions[name].to_numpy() for name in ("size_px", "detected", "dice"))),
    }


def _define(ruler: Ruler, connectivities: Collection[int], *, probabilities: bool) -> dict[str, str]:
    lesions = describe_lesions(26 if 26 in connectivities else 8)
    if len(connectivities) > 1:
        mixed = " Where a patient's slices are no volume it is an 8-connected component of one slice."
        lesions = {name: text + mixed for name, text in lesions.items()}
    calibration: Mapping[str, str] = CALIBRATION_DEFINITIONS if probabilities else {}
    return {**aggregate.DEFINITIONS, **describe_surface(ruler.unit, ruler.tolerances), **lesions, **calibration}
