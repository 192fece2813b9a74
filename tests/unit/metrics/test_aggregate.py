import json
import math

import pandas as pd
import pytest

from brainseg_cli.errors import BrainsegError, InputError, UsageError
from brainseg_cli.metrics.aggregate import (
    DEFINITIONS,
    HEADLINE,
    RATIOS,
    SLICE_COLUMNS,
    add_ratios,
    check_consistency,
    find_nothing,
    sum_by_patient,
    summarise,
)


def build_slices(*rows):
    """(patient_id, tp, fp, fn, tn) each; probabilities as the mask has them."""
    table = [
        (f"{patient}_{n}.png", patient, n, tp, fp, fn, tn, float(tp), float(tp + fp), float(tp + fn))
        for n, (patient, tp, fp, fn, tn) in enumerate(rows)
    ]
    return pd.DataFrame(table, columns=list(SLICE_COLUMNS)).astype({"slice_index": "Int64"})


SLICES = build_slices(
    ("b", 6, 2, 2, 90),  # dice 12/16, iou 6/10
    ("b", 0, 0, 0, 100),  # empty and empty
    ("a", 0, 0, 4, 96),  # missed
    ("b", 0, 5, 0, 95),  # a false alarm
    ("c", 0, 3, 0, 97),  # a false alarm in a patient without tumour
    ("a", 10, 0, 0, 90),  # found whole
)


def test_every_aggregate_by_hand():
    metrics = summarise(SLICES, batch_size=4)["metrics"]
    assert metrics == pytest.approx(
        {
            # b: tp 6, fp 7, fn 2; a: tp 10, fp 0, fn 4; c has no tumour
            "dice_patient": (12 / 21 + 20 / 24) / 2,
            "iou_patient": (6 / 15 + 10 / 14) / 2,
            # tp 16, fp 10, fn 6, tn 568
            "dice_pooled": 32 / 48,
            "iou_pooled": 16 / 32,
            "dice_slice_tumour": (12 / 16 + 0 + 1) / 3,
            "iou_slice_tumour": (6 / 10 + 0 + 1) / 3,
            "dice_slice_all": (12 / 16 + 1 + 0 + 0 + 0 + 1) / 6,
            "iou_slice_all": (6 / 10 + 1 + 0 + 0 + 0 + 1) / 6,
            # first four: I 6, P 13, R 12; last two: I 10, P 13, R 10
            "dice_batch_soft": (13 / 26 + 21 / 24) / 2,
            "iou_batch_soft": (7 / 20 + 11 / 14) / 2,
            "accuracy": 584 / 600,
            "sensitivity": 16 / 22,
            "specificity": 568 / 578,
            "precision": 16 / 26,
        }
    )


def test_what_is_left_out_is_counted():
    summary = summarise(SLICES, batch_size=4)
    assert summary["left_out"] == {
        "dice_patient": {"patients_without_tumour": 1},
        "iou_patient": {"patients_without_tumour": 1},
        "dice_slice_tumour": {"slices_without_tumour": 3},
        "iou_slice_tumour": {"slices_without_tumour": 3},
    }
    assert summary["counted"] == {
        "patients": 3,
        "patients_with_tumour": 2,
        "slices": 6,
        "slices_with_tumour": 3,
        "slices_with_false_alarm": 2,
        "slices_empty_and_empty": 1,
        "batches": 2,
        "batch_size": 4,
        "pixels": 600,
        "tumour_px": 22,
        "prediction_px": 26,
    }


def test_every_metric_has_its_definition_and_the_headline_is_one():
    assert set(summarise(SLICES)["metrics"]) == set(DEFINITIONS)
    assert HEADLINE in DEFINITIONS
    assert all(sentence.endswith(".") and sentence.count(". ") == 0 for sentence in DEFINITIONS.values())


def test_soft_dice_reads_the_probabilities_not_the_counts():
    slices = build_slices(("a", 1, 0, 0, 3)).assign(soft_intersection=0.5, soft_prediction=0.75)
    metrics = summarise(slices)["metrics"]
    assert metrics["dice_batch_soft"] == pytest.approx((2 * 0.5 + 1) / (0.75 + 1 + 1))
    assert metrics["iou_batch_soft"] == pytest.approx((0.5 + 1) / (0.75 + 1 - 0.5 + 1))
    assert metrics["dice_pooled"] == 1


def test_batches_are_of_forty_unless_told():
    slices = build_slices(*[("a", 1, 0, 0, 3)] * 40, ("a", 0, 0, 1, 3))
    summary = summarise(slices)
    assert (summary["counted"]["batches"], summary["counted"]["batch_size"]) == (2, 40)
    # a whole first batch, and a short second one where one pixel was missed: (0 + 1) / (0 + 1 + 1)
    assert summary["metrics"]["dice_batch_soft"] == pytest.approx((1 + 1 / 2) / 2)


def test_nothing_to_find_and_nothing_found():
    summary = summarise(build_slices(("a", 0, 0, 0, 9), ("b", 0, 0, 0, 9)))
    ones = ("dice_slice_all", "iou_slice_all", "dice_batch_soft", "iou_batch_soft", "accuracy", "specificity")
    assert summary["metrics"] == {name: 1.0 if name in ones else None for name in DEFINITIONS}
    assert summary["left_out"]["dice_patient"] == {"patients_without_tumour": 2}
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary


def test_nothing_to_find_and_a_false_alarm():
    metrics = summarise(build_slices(("a", 0, 1, 0, 8)))["metrics"]
    assert metrics["dice_patient"] is None
    assert metrics["dice_slice_tumour"] is None
    assert metrics["sensitivity"] is None
    assert metrics["dice_slice_all"] == metrics["dice_pooled"] == metrics["iou_pooled"] == 0
    assert metrics["precision"] == 0
    assert metrics["specificity"] == pytest.approx(8 / 9)


def test_tumour_everywhere_leaves_specificity_undefined():
    metrics = summarise(build_slices(("a", 9, 0, 0, 0)))["metrics"]
    assert metrics.pop("specificity") is None
    assert set(metrics.values()) == {1.0}


def test_a_summary_is_ready_for_json_and_shows_no_nan():
    text = json.dumps(summarise(find_nothing(SLICES)), allow_nan=False)
    assert json.loads(text)["metrics"]["precision"] is None


def test_patients_in_order_of_first_appearance():
    patients = sum_by_patient(SLICES)
    assert patients["patient_id"].tolist() == ["b", "a", "c"]
    assert patients["slices"].tolist() == [3, 2, 1]
    assert patients["tumour_slices"].tolist() == [1, 2, 0]
    assert patients["reference_px"].tolist() == [8, 14, 0]
    assert patients["prediction_px"].tolist() == [13, 10, 3]
    assert patients[["tp", "fp", "fn", "tn"]].to_numpy().tolist() == [
        [6, 7, 2, 285],
        [10, 0, 4, 186],
        [0, 3, 0, 97],
    ]
    assert patients["dice"].tolist() == pytest.approx([12 / 21, 20 / 24, 0])
    assert math.isnan(patients["sensitivity"].iloc[2])
    assert patients["tp"].dtype == "int64"


def test_ratios_are_appended_to_a_copy():
    measured = add_ratios(SLICES)
    assert list(measured.columns) == [*SLICE_COLUMNS, *RATIOS]
    assert list(SLICES.columns) == list(SLICE_COLUMNS)
    assert measured["dice"].tolist() == pytest.approx([12 / 16, math.nan, 0, 0, 0, 1], nan_ok=True)
    assert measured["precision"].tolist() == pytest.approx([6 / 8, math.nan, math.nan, 0, 0, 1], nan_ok=True)
    assert measured["accuracy"].tolist() == pytest.approx([0.96, 1, 0.96, 0.95, 0.97, 1])


def test_the_model_that_finds_nothing():
    nothing = find_nothing(add_ratios(SLICES))
    assert list(nothing.columns) == list(SLICE_COLUMNS)
    assert nothing["fn"].tolist() == [8, 0, 4, 0, 0, 10]
    assert nothing["tn"].tolist() == [92, 100, 96, 100, 100, 90]
    for name in ("tp", "fp", "soft_intersection", "soft_prediction"):
        assert nothing[name].tolist() == [0] * 6
    assert nothing["soft_reference"].tolist() == SLICES["soft_reference"].tolist()
    assert (nothing.dtypes == SLICES.dtypes).all()


def test_a_table_without_slices():
    none = SLICES.iloc[:0]
    with pytest.raises(InputError, match="no slice to measure"):
        summarise(none)
    assert sum_by_patient(none).empty
    assert find_nothing(none).empty
    assert list(add_ratios(none).columns) == [*SLICE_COLUMNS, *RATIOS]


def test_slices_without_number_are_measured():
    slices = SLICES.assign(slice_index=pd.array([pd.NA] * 6, dtype="Int64"))
    assert summarise(slices) == summarise(SLICES)


@pytest.mark.parametrize("measure", [sum_by_patient, find_nothing, summarise])
def test_an_incomplete_table_is_refused(measure):
    with pytest.raises(InputError, match=r"lacks the columns fp, soft_reference$"):
        measure(SLICES.drop(columns=["fp", "soft_reference"]))
    with pytest.raises(InputError, match="lacks patient_id in 1 of 6 rows"):
        measure(SLICES.assign(patient_id=["b", "b", "a", None, "c", "a"]))
    with pytest.raises(InputError, match="lacks soft_prediction in 6 of 6 rows"):
        measure(SLICES.assign(soft_prediction=math.nan))


@pytest.mark.parametrize("batch_size", [0, -1])
def test_a_batch_holds_a_slice_at_least(batch_size):
    with pytest.raises(UsageError, match="batch"):
        summarise(SLICES, batch_size=batch_size)


@pytest.mark.parametrize(
    "fault",
    [
        {"iou_pooled": 16 / 32 + 2e-9},
        {"iou_pooled": None},
        {"dice_patient": None},
        {"dice_slice_all": 0.2},  # below its iou: the table seen in print
        {"iou_batch_soft": 0.9},
    ],
)
def test_a_contradiction_fails_the_run(fault):
    summary = summarise(SLICES)
    check_consistency(summary)
    summary["metrics"] |= fault
    with pytest.raises(BrainsegError, match="the metrics contradict themselves"):
        check_consistency(summary)


def test_summarise_checks_itself():
    # probabilities that share more with the reference than they hold: a soft iou above its dice
    with pytest.raises(BrainsegError, match="contradict themselves: dice_batch_soft"):
        summarise(build_slices(("a", 1, 0, 0, 3)).assign(soft_intersection=1.9))
