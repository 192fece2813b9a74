import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from brainseg_cli.errors import InputError
from brainseg_cli.metrics.calibration import (
    BINS,
    DEFINITIONS,
    PIXELS,
    SUM_PROB,
    TUMOUR,
    bin_probs,
    check_probs,
    compute_ece,
    describe_bins,
    sum_squared_error,
)

laws = settings(max_examples=60, deadline=None)
SHAPE = (5, 7)
masks = hnp.arrays(np.uint8, SHAPE, elements=st.integers(0, 1))
probs_drawn = hnp.arrays(np.float32, SHAPE, elements=st.floats(0, 1, width=32))

REFERENCE = np.array([[0, 0, 1, 1, 1, 0]], np.uint8)
PROBS = np.array([[0.0, 0.0625, 0.0625, 0.5, 1.0, 0.96875]], np.float32)
"""Bins of 1/15 = 0.0667: three pixels in the first, one in the eighth, two in the last."""


def test_bins_drawn_by_hand():
    bins = bin_probs(REFERENCE, PROBS)
    assert bins.shape == (BINS, 3) and bins.dtype == np.float64
    expected = np.zeros((BINS, 3))
    expected[0] = 3, 0.125, 1
    expected[7] = 1, 0.5, 1
    expected[14] = 2, 1.96875, 1
    np.testing.assert_array_equal(bins, expected)


def test_ece_and_squared_error_drawn_by_hand():
    gaps = (1 - 0.125) + (1 - 0.5) + (1.96875 - 1)
    assert compute_ece(bin_probs(REFERENCE, PROBS)) == pytest.approx(gaps / 6)
    assert sum_squared_error(REFERENCE, PROBS) == 0.0625**2 + 0.9375**2 + 0.5**2 + 0.96875**2


def test_rows_of_a_reliability_figure():
    rows = describe_bins(bin_probs(REFERENCE, PROBS))
    assert len(rows) == BINS
    assert rows[0] == {"low": 0, "high": 1 / 15, "pixels": 3, "mean_prob": 0.125 / 3, "tumour_share": 1 / 3}
    assert rows[1] == {"low": 1 / 15, "high": 2 / 15, "pixels": 0, "mean_prob": None, "tumour_share": None}
    assert rows[14] == {"low": 14 / 15, "high": 1, "pixels": 2, "mean_prob": 0.984375, "tumour_share": 0.5}
    assert all(type(row["pixels"]) is int for row in rows)
    assert [row["low"] for row in rows[1:]] == [row["high"] for row in rows[:-1]]


def test_the_nearest_float_on_either_side_of_an_edge():
    """No float32 but 0 and 1 is an edge itself, so that the bin of each is beyond doubt."""
    for k in range(1, BINS):
        near = np.float32(k / BINS)
        around = np.array([np.nextafter(near, np.float32(0)), near, np.nextafter(near, np.float32(1))])
        expected = np.zeros(BINS)
        for value in around:  # in whole numbers: a float is a fraction
            above, below = float(value).as_integer_ratio()
            expected[BINS * above // below] += 1
        np.testing.assert_array_equal(bin_probs(np.zeros(3, np.uint8), around)[:, PIXELS], expected)


def test_a_sure_and_right_prediction_errs_in_nothing():
    reference = np.eye(4, 6, dtype=np.uint8)
    for probs in (reference, reference.astype(np.float32), reference.astype(bool)):
        assert compute_ece(bin_probs(reference, probs)) == sum_squared_error(reference, probs) == 0
        assert compute_ece(bin_probs(1 - reference, probs)) == 1
        assert sum_squared_error(1 - reference, probs) == reference.size


def test_bool_and_255_read_as_the_same_mask():
    for reference in (REFERENCE * np.uint8(255), REFERENCE.astype(bool)):
        np.testing.assert_array_equal(bin_probs(reference, PROBS), bin_probs(REFERENCE, PROBS))
        assert sum_squared_error(reference, PROBS) == sum_squared_error(REFERENCE, PROBS)


def test_no_pixels():
    bins = bin_probs(REFERENCE[:0], PROBS[:0])
    np.testing.assert_array_equal(bins, np.zeros((BINS, 3)))
    assert np.isnan(compute_ece(bins))
    assert sum_squared_error(REFERENCE[:0], PROBS[:0]) == 0
    assert all(row["pixels"] == 0 and row["mean_prob"] is None for row in describe_bins(bins))


def test_ece_of_many_at_once_is_that_of_each(rng):
    pairs = [(rng.random(SHAPE) < 0.3, rng.random(SHAPE, dtype=np.float32)) for _ in range(6)]
    each = np.stack([bin_probs(*pair) for pair in pairs] + [np.zeros((BINS, 3))] * 2)
    together = compute_ece(each.reshape(2, 4, BINS, 3))
    assert together.shape == (2, 4)
    np.testing.assert_array_equal(together.ravel(), [compute_ece(bins) for bins in each])
    assert np.isnan(together[1, 2:]).all() and not np.isnan(together.ravel()[:6]).any()


def test_small_probabilities_are_not_lost_beside_large_ones():
    probs = np.full((256, 256), 1e-9, np.float32)
    probs[:100] = 0.99
    reference = np.zeros(probs.shape, np.uint8)
    small = float(np.float32(1e-9))
    assert bin_probs(reference, probs)[0, SUM_PROB] == pytest.approx(156 * 256 * small, rel=1e-12)
    assert sum_squared_error(probs > 0.5, probs) == pytest.approx(
        25600 * (1 - float(np.float32(0.99))) ** 2 + 156 * 256 * small**2, rel=1e-12
    )


@pytest.mark.parametrize("measure", [check_probs, bin_probs, sum_squared_error])
def test_what_are_no_probabilities_of_the_mask_is_refused(measure):
    with pytest.raises(InputError, match=r"\(1, 6\).*\(1, 1\)"):
        measure(REFERENCE, PROBS[:, :1])
    for fault in (1.5, -0.1, np.nan, np.inf):
        probs = PROBS.copy()
        probs[0, 2] = fault
        with pytest.raises(InputError, match=r"within \[0, 1\]"):
            measure(REFERENCE, probs)


def test_definitions_say_what_finding_nothing_scores():
    reference, nothing = np.eye(4, 6, dtype=np.uint8), np.zeros((4, 6), np.float32)
    assert compute_ece(bin_probs(reference, nothing)) == sum_squared_error(reference, nothing) / 24 == 4 / 24
    assert DEFINITIONS.keys() == {"ece", "brier"}
    assert all("finding nothing" in text and "Background included" in text for text in DEFINITIONS.values())


@laws
@given(st.lists(st.tuples(masks, probs_drawn), min_size=1, max_size=4))
def test_bins_and_errors_of_slices_add_up(pairs):
    references, probs = (np.concatenate(side) for side in zip(*pairs, strict=True))
    together = bin_probs(references, probs)
    np.testing.assert_allclose(sum(bin_probs(r, p) for r, p in pairs), together, rtol=1e-12, atol=1e-300)
    assert sum(sum_squared_error(r, p) for r, p in pairs) == pytest.approx(sum_squared_error(references, probs))
    assert together[:, PIXELS].sum() == probs.size
    assert together[:, TUMOUR].sum() == references.sum()
    assert together[:, SUM_PROB].sum() == pytest.approx(np.sum(probs, dtype=np.float64))


@laws
@given(masks, probs_drawn)
def test_ece_is_a_share_and_at_least_the_gap_of_the_means(reference, probs):
    ece = compute_ece(bin_probs(reference, probs))
    assert abs(float(np.mean(probs, dtype=np.float64)) - reference.mean()) - 1e-12 <= ece <= 1
    rows = describe_bins(bin_probs(reference, probs))
    for row in (row for row in rows if row["pixels"]):
        assert row["low"] - 1e-12 <= row["mean_prob"] <= row["high"] + 1e-12
