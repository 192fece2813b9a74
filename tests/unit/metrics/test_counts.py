import numpy as np
import pytest

from brainseg_cli.errors import InputError
from brainseg_cli.metrics import counts
from brainseg_cli.metrics.counts import Counts, SoftSums, compute_counts, compute_soft_sums

REFERENCE = np.array([[1, 1, 0, 0, 0], [1, 0, 0, 0, 0], [0, 0, 0, 0, 0]], np.uint8)
PREDICTION = np.array([[1, 0, 0, 0, 1], [1, 0, 0, 0, 1], [0, 0, 0, 0, 0]], np.uint8)
EMPTY = np.zeros((3, 5), np.uint8)
FULL = np.ones((3, 5), np.uint8)


@pytest.mark.parametrize(
    ("reference", "prediction", "expected"),
    [
        (REFERENCE, PREDICTION, Counts(tp=2, fp=2, fn=1, tn=10)),
        (PREDICTION, REFERENCE, Counts(tp=2, fp=1, fn=2, tn=10)),
        (REFERENCE, REFERENCE, Counts(tp=3, fp=0, fn=0, tn=12)),
        (REFERENCE, EMPTY, Counts(tp=0, fp=0, fn=3, tn=12)),
        (EMPTY, PREDICTION, Counts(tp=0, fp=4, fn=0, tn=11)),
        (EMPTY, EMPTY, Counts(tp=0, fp=0, fn=0, tn=15)),
        (FULL, FULL, Counts(tp=15, fp=0, fn=0, tn=0)),
        (EMPTY[:0], EMPTY[:0], Counts(tp=0, fp=0, fn=0, tn=0)),
    ],
)
def test_counts_drawn_by_hand(reference, prediction, expected):
    found = compute_counts(reference, prediction)
    assert found == expected
    assert all(type(count) is int for count in found)


def test_bool_and_255_read_as_the_same_mask():
    expected = compute_counts(REFERENCE, PREDICTION)
    assert compute_counts(REFERENCE.astype(bool), PREDICTION.astype(bool)) == expected
    assert compute_counts(REFERENCE * np.uint8(255), PREDICTION) == expected


def test_a_mask_larger_than_its_dtype_counts_is_counted():
    assert compute_counts(np.ones((300, 301), np.uint8), np.ones((300, 301), np.uint8)).tp == 90300


@pytest.mark.parametrize("measure", [compute_counts, compute_soft_sums])
def test_shapes_that_broadcast_are_still_refused(measure):
    with pytest.raises(InputError, match=r"\(3, 5\).*\(1, 5\)"):
        measure(REFERENCE, PREDICTION[:1])


def test_probabilities_are_not_a_mask():
    with pytest.raises(InputError, match="prediction holds float32"):
        compute_counts(REFERENCE, PREDICTION.astype(np.float32))


def test_soft_sums_drawn_by_hand():
    probs = np.zeros((3, 5), np.float32)
    probs[0, 0], probs[0, 1], probs[2, 4] = 0.75, 0.5, 0.25
    assert compute_soft_sums(REFERENCE, probs) == SoftSums(1.25, 1.5, 3.0)
    assert compute_soft_sums(EMPTY, probs) == SoftSums(0.0, 1.5, 0.0)
    assert compute_soft_sums(EMPTY[:0], probs[:0]) == SoftSums(0.0, 0.0, 0.0)


def test_soft_sums_of_a_mask_are_its_counts():
    assert compute_soft_sums(REFERENCE, PREDICTION) == SoftSums(intersection=2, prediction=4, reference=3)


def test_soft_sums_do_not_lose_small_probabilities():
    probs = np.full((2048, 2049), 0.1, np.float32)
    expected = probs.size * float(np.float32(0.1))
    assert compute_soft_sums(np.ones(probs.shape, np.uint8), probs).intersection == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("fault", [1.5, -0.1, np.nan, 255.0])
def test_values_that_are_no_probabilities_are_refused(fault):
    probs = np.full((3, 5), 0.5, np.float32)
    probs[1, 2] = fault
    with pytest.raises(InputError, match=r"within \[0, 1\]"):
        compute_soft_sums(REFERENCE, probs)


def test_ratios_drawn_by_hand():
    tp, fp, fn, tn = compute_counts(REFERENCE, PREDICTION)
    assert counts.dice(tp, fp, fn) == pytest.approx(4 / 7)
    assert counts.iou(tp, fp, fn) == pytest.approx(2 / 5)
    assert counts.accuracy(tp, fp, fn, tn) == pytest.approx(12 / 15)
    assert counts.sensitivity(tp, fn) == pytest.approx(2 / 3)
    assert counts.specificity(tn, fp) == pytest.approx(10 / 12)
    assert counts.precision(tp, fp) == pytest.approx(2 / 4)


def test_a_denominator_of_zero_gives_nan_and_leaves_its_neighbours():
    zero, one = np.array([0, 1]), np.array([0, 3])
    np.testing.assert_array_equal(counts.dice(zero, zero, one), [np.nan, 2 / 6])
    np.testing.assert_array_equal(counts.iou(zero, zero, one), [np.nan, 1 / 5])
    np.testing.assert_array_equal(counts.accuracy(zero, zero, one, zero), [np.nan, 2 / 6])
    np.testing.assert_array_equal(counts.sensitivity(zero, one), [np.nan, 1 / 4])
    np.testing.assert_array_equal(counts.specificity(zero, one), [np.nan, 1 / 4])
    np.testing.assert_array_equal(counts.precision(zero, one), [np.nan, 1 / 4])


def test_a_missed_or_an_invented_tumour_is_zero_not_nan():
    assert counts.dice(0, 0, 7) == 0
    assert counts.dice(0, 7, 0) == 0
    assert counts.iou([0, 0], [0, 7], [7, 0]).tolist() == [0, 0]


def test_narrow_integers_do_not_overflow():
    tp = np.array([200], np.uint8)
    assert counts.dice(tp, np.array([100], np.uint8), np.array([100], np.uint8)) == pytest.approx(400 / 600)
