"""Patients against patients: subgroups of one evaluation, and two predictions of the same references."""

from collections.abc import Mapping

import pandas as pd

from brainseg_cli.errors import InputError
from brainseg_cli.metrics.aggregate import HEADLINE
from brainseg_cli.metrics.doubt import Resamples, compare_paired, percentile_interval
from brainseg_cli.metrics.measure import Measures
from brainseg_cli.metrics.summary import build_terms
from brainseg_cli.metrics.terms import LOWER_IS_BETTER, Terms
from brainseg_cli.types import Json

Grouping = Mapping[str, str]
"""patient_id -> the group's label; a patient without one stands in no group."""


def summarise_groups(measures: Measures, groupings: Mapping[str, Grouping]) -> dict[str, list[Json]]:
    """For each grouping its groups, in the order of the grouping, with a few metrics and their intervals.

    A group of which nobody was measured is left out, and a metric that a group does not define is None.
    """
    names = ["dice_patient", "dice_pooled", "dice_slice_tumour", measures.ruler.names[0], "lesion_sensitivity"]
    patients = measures.patients.set_index("patient_id")
    terms = build_terms(measures).select(patients.index.tolist(), names)
    return {
        grouping: [_summarise_group(label, terms.select(members), patients.loc[members]) for label, members in found]
        for grouping, found in ((name, _members(groups, patients.index)) for name, groups in groupings.items())
    }


def compare(a: Measures, b: Measures, groupings: Mapping[str, Grouping]) -> Json:
    """Two predictions of the same slices: metrics, patients, by_patient and by_group, each difference a - b.

    Metrics are those that both sides have. The interval of a difference draws the same patients for both; it is None
    where fewer than two patients contribute to either. InputError unless both measure the same slices in one order
    against the same references.
    """
    # as many tumour pixels in each: not proof that it is one reference, but another rarely passes
    slices = [side.slices[["image", "patient_id"]].assign(px=side.slices["tp"] + side.slices["fn"]) for side in (a, b)]
    if not slices[0].equals(slices[1]):
        raise InputError("the two do not measure the same slices against the same references: nothing can be paired")
    terms = build_terms(a), build_terms(b)
    with_tumour = a.patients["reference_px"] > 0
    columns = {"dice_patient": "dice", "iou_patient": "iou"} | {name: name for name in a.ruler.names}
    patients = {}
    for name, column in columns.items():
        # the two means are of patients with tumour; a distance is NaN where it is not defined
        counted = with_tumour | (name == column)
        sides = [side.patients[column].where(counted) for side in (a, b)]
        patients[name] = compare_paired(*sides, higher_is_better=not name.startswith(LOWER_IS_BETTER))
    return {
        "metrics": _compare_terms(*terms),
        "patients": patients,
        "by_patient": _list_patients(a, b, with_tumour),
        "by_group": {grouping: _compare_groups(*terms, groups) for grouping, groups in groupings.items()},
    }


def _summarise_group(label: str, terms: Terms, patients: pd.DataFrame) -> Json:
    return {
        "group": label,
        "patients": len(patients),
        "patients_with_tumour": int((patients["reference_px"] > 0).sum()),
        "slices": int(patients["slices"].sum()),
        "metrics": terms.values(),
        "intervals": terms.intervals(Resamples(len(patients))),
    }


def _compare_terms(a: Terms, b: Terms) -> dict[str, Json]:
    """Each metric of both sides: a, b, their difference, and its interval."""
    of_a, of_b, resamples = a.values(), b.values(), Resamples(len(a.numerators))
    rows: dict[str, Json] = {}
    for name in (name for name in of_a if name in of_b):
        one, other = of_a[name], of_b[name]
        interval = None
        if min(a.count(name), b.count(name)) > 1:
            interval = percentile_interval(a.resample(name, resamples) - b.resample(name, resamples))
        difference = None if one is None or other is None else one - other
        rows[name] = {"a": one, "b": other, "difference": difference, "interval": interval}
    return rows


def _compare_groups(a: Terms, b: Terms, groups: Grouping) -> list[Json]:
    """dice_patient of each group on both sides; a group without tumour has none."""
    rows = []
    for label, members in _members(groups, a.numerators.index):
        row = _compare_terms(*(side.select(members, [HEADLINE]) for side in (a, b)))[HEADLINE]
        rows.append({"group": label, "patients": len(members), **row})
    return rows


def _list_patients(a: Measures, b: Measures, with_tumour: "pd.Series[bool]") -> list[Json]:
    """The patients with tumour by the difference of their dice, where `a` loses most first."""
    patients, of_a, of_b = (
        column[with_tumour].tolist() for column in (a.patients["patient_id"], a.patients["dice"], b.patients["dice"])
    )
    rows: list[Json] = [
        {"patient_id": patient_id, "a": one, "b": other, "difference": one - other}
        for patient_id, one, other in zip(patients, of_a, of_b, strict=True)
    ]
    return sorted(rows, key=lambda row: row["difference"])


def _members(groups: Grouping, patients: pd.Index) -> list[tuple[str, list[str]]]:
    """The groups in the order in which `groups` has them, each with those of its patients that were measured."""
    members: dict[str, list[str]] = {label: [] for label in groups.values()}
    for patient_id in patients:
        if patient_id in groups:
            members[groups[patient_id]].append(patient_id)
    return [(label, found) for label, found in members.items() if found]
