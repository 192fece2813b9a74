"""What holds for every pair of masks, whatever is drawn on them."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from brainseg_cli.metrics.aggregate import SLICE_COLUMNS, add_ratios, find_nothing, sum_by_patient, summarise
from brainseg_cli.metrics.counts import compute_counts, compute_soft_sums, dice, iou

laws = settings(max_examples=60, deadline=None)
table_laws = settings(max_examples=20, deadline=None)

SHAPE = (5, 7)
masks = st.one_of(
    hnp.arrays(np.uint8, SHAPE, elements=st.integers(0, 1)),
    st.just(np.zeros(SHAPE, np.uint8)),
    st.just(np.ones(SHAPE, np.uint8)),
)
probs = hnp.arrays(np.float32, SHAPE, elements=st.floats(0, 1, width=32))
slices_drawn = st.lists(st.tuples(st.sampled_from("abc"), masks, masks, probs), min_size=1, max_size=7)


def build_slices(drawn):
    rows = []
    for n, (patient, reference, prediction, probability) in enumerate(drawn):
        sums = compute_soft_sums(reference, probability)
        rows.append((f"{n}.png", patient, n, *compute_counts(reference, prediction), *sums))
    return pd.DataFrame(rows, columns=list(SLICE_COLUMNS)).astype({"slice_index": "Int64"})


def overlap(reference, prediction):
    tp, fp, fn, _ = compute_counts(reference, prediction)
    return float(dice(tp, fp, fn)), float(iou(tp, fp, fn))


@laws
@given(masks, masks)
def test_every_pixel_is_counted_once(reference, prediction):
    counts = compute_counts(reference, prediction)
    assert sum(counts) == reference.size
    assert min(counts) >= 0
    assert counts.tp + counts.fn == reference.sum()
    assert counts.tp + counts.fp == prediction.sum()


@laws
@given(masks, masks)
def test_overlap_is_symmetric_bounded_and_iou_follows_from_dice(reference, prediction):
    of_dice, of_iou = overlap(reference, prediction)
    if not reference.any() and not prediction.any():
        assert np.isnan([of_dice, of_iou]).all()
        return
    assert (of_dice, of_iou) == overlap(prediction, reference)
    assert 0 <= of_iou <= of_dice <= 1
    assert of_iou == pytest.approx(of_dice / (2 - of_dice), abs=1e-12)
    assert (of_dice == 1) == bool((reference == prediction).all())


@laws
@given(masks, masks, st.integers(-9, 9), st.sampled_from([None, 0, 1, (0, 1)]))
def test_shifting_or_flipping_both_masks_changes_nothing(reference, prediction, shift, flip):
    def move(mask):
        wide = np.roll(np.pad(mask, 9), (shift, -shift), axis=(0, 1))
        return wide if flip is None else np.flip(wide, flip)

    np.testing.assert_equal(
        overlap(move(reference), move(prediction)), overlap(reference, prediction)
    )  # NaN equals NaN here
    assert compute_soft_sums(move(reference), move(prediction)) == compute_soft_sums(reference, prediction)


@laws
@given(masks, probs)
def test_soft_sums_share_no_more_than_each_holds(reference, probability):
    sums = compute_soft_sums(reference, probability)
    assert 0 <= sums.intersection <= min(sums.prediction, sums.reference) + 1e-9


@table_laws
@given(slices_drawn)
def test_pooled_is_the_overlap_of_all_slices_laid_end_to_end(drawn):
    metrics = summarise(build_slices(drawn))["metrics"]
    found = [metrics["dice_pooled"], metrics["iou_pooled"]]
    joined = overlap(np.concatenate([d[1] for d in drawn]), np.concatenate([d[2] for d in drawn]))
    assert [np.nan if value is None else value for value in found] == pytest.approx(joined, nan_ok=True)


@table_laws
@given(slices_drawn, st.integers(1, 8))
def test_every_metric_is_in_range_and_no_iou_is_above_its_dice(drawn, batch_size):
    metrics = summarise(build_slices(drawn), batch_size=batch_size)["metrics"]
    assert all(value is None or 0 <= value <= 1 + 1e-9 for value in metrics.values())
    for kind in ("patient", "pooled", "slice_tumour", "slice_all", "batch_soft"):
        of_dice, of_iou = metrics[f"dice_{kind}"], metrics[f"iou_{kind}"]
        assert (of_dice is None and of_iou is None) or of_iou <= of_dice + 1e-9


@table_laws
@given(slices_drawn, st.randoms(use_true_random=False))
def test_the_order_of_slices_matters_to_batches_alone(drawn, random):
    shuffled = random.sample(drawn, len(drawn))
    before = summarise(build_slices(drawn), batch_size=2)
    after = summarise(build_slices(shuffled), batch_size=2)
    assert before["counted"] == after["counted"]
    assert before["left_out"] == after["left_out"]
    for name, value in before["metrics"].items():
        if not name.endswith("batch_soft"):
            assert after["metrics"][name] == (value if value is None else pytest.approx(value, rel=1e-12))


@table_laws
@given(slices_drawn)
def test_summing_by_patient_loses_no_pixel(drawn):
    slices = build_slices(drawn)
    patients = sum_by_patient(slices)
    assert patients["patient_id"].tolist() == list(dict.fromkeys(d[0] for d in drawn))
    for name in ("tp", "fp", "fn", "tn"):
        assert patients[name].sum() == slices[name].sum()
    assert patients["slices"].sum() == len(drawn)
    assert patients["tumour_slices"].sum() == sum(bool(d[1].any()) for d in drawn)


@table_laws
@given(slices_drawn)
def test_a_patient_of_one_slice_scores_as_the_slice_does(drawn):
    slices = build_slices(drawn).assign(patient_id=[f"p{n}" for n in range(len(drawn))])
    metrics = summarise(slices)["metrics"]
    assert metrics["dice_patient"] == metrics["dice_slice_tumour"]
    pd.testing.assert_series_equal(sum_by_patient(slices)["dice"], add_ratios(slices)["dice"])


@table_laws
@given(slices_drawn)
def test_what_finding_nothing_scores(drawn):
    slices = build_slices(drawn)
    references = np.stack([d[1] for d in drawn])
    nothing = find_nothing(slices)
    counted = [
        (patient, reference, np.zeros_like(reference), np.zeros(SHAPE, np.float32))
        for patient, reference, _, _ in drawn
    ]
    pd.testing.assert_frame_equal(nothing, build_slices(counted))
    metrics = summarise(nothing)["metrics"]
    assert metrics["dice_patient"] == (0 if references.any() else None)
    assert metrics["sensitivity"] == metrics["dice_pooled"] == metrics["dice_patient"]
    assert metrics["dice_slice_all"] == pytest.approx(1 - references.any(axis=(1, 2)).mean())
    assert metrics["accuracy"] == pytest.approx(1 - references.mean())
    assert metrics["precision"] is None
