import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from brainseg_cli.errors import InputError
from brainseg_cli.metrics.counts import compute_counts
from brainseg_cli.metrics.threshold import THRESHOLDS, choose_threshold, count_at_thresholds, sweep
from brainseg_cli.models.segmenter import apply_threshold

laws = settings(max_examples=60, deadline=None)
SHAPE = (5, 7)
WRITTEN = [float(f"0.{n:02d}") for n in range(1, 100)]
"""As a person writes them, and as a run keeps the one it chose."""

on_and_beside = st.sampled_from(WRITTEN).map(np.float32).flatmap(
    lambda t: st.sampled_from([float(t), float(np.nextafter(t, np.float32(0))), float(np.nextafter(t, np.float32(1)))])
)  # fmt: skip
probs_drawn = hnp.arrays(np.float32, SHAPE, elements=st.one_of(on_and_beside, st.floats(0, 1, width=32)))
masks = hnp.arrays(np.uint8, SHAPE, elements=st.integers(0, 1))


def count_one_by_one(reference, probs):
    counts = [compute_counts(reference, apply_threshold(probs, threshold)) for threshold in WRITTEN]
    return [each.tp for each in counts], [each.fp for each in counts]


def test_counts_drawn_by_hand():
    reference = np.array([[1, 1, 0, 0, 0]], np.uint8)
    probs = np.array([[0.755, 0.205, 0.505, 0.009, 1.0]], np.float32)
    tp, fp = count_at_thresholds(reference, probs)
    assert tp.dtype == fp.dtype == np.int64
    assert tp.tolist() == [2] * 20 + [1] * 55 + [0] * 24  # to 0.20, to 0.75, beyond
    assert fp.tolist() == [2] * 50 + [1] * 49  # to 0.50, beyond


def test_a_probability_on_a_threshold_is_in_its_mask():
    at = np.arange(1, 100)
    everything = np.ones(99, np.uint8)
    for probs, expected in (
        (THRESHOLDS, 100 - at),  # the n-th threshold keeps itself and those above
        (np.nextafter(THRESHOLDS, np.float32(0)), 99 - at),
        (np.nextafter(THRESHOLDS, np.float32(1)), 100 - at),
    ):
        tp, fp = count_at_thresholds(everything, probs)
        np.testing.assert_array_equal(tp, expected)
        assert not fp.any()
        assert (tp.tolist(), fp.tolist()) == count_one_by_one(everything, probs)


@laws
@given(masks, probs_drawn)
def test_counts_are_those_of_every_mask(reference, probs):
    tp, fp = count_at_thresholds(reference, probs)
    assert (tp.tolist(), fp.tolist()) == count_one_by_one(reference, probs)
    assert (np.diff(tp) <= 0).all() and (np.diff(fp) <= 0).all()


def test_bool_and_255_read_as_the_same_mask(rng):
    reference, probs = (rng.random(SHAPE) < 0.4), rng.random(SHAPE, dtype=np.float32)
    expected = count_at_thresholds(reference, probs)
    np.testing.assert_array_equal(count_at_thresholds(reference * np.uint8(255), probs), expected)


@pytest.mark.parametrize("size", [0, 6])
def test_nothing_likely_counts_nothing(size):
    tp, fp = count_at_thresholds(np.ones(size, np.uint8), np.full(size, 0.0099, np.float32))
    assert tp.tolist() == fp.tolist() == [0] * 99


def test_what_are_no_probabilities_of_the_mask_is_refused():
    reference, probs = np.ones(SHAPE, np.uint8), np.full(SHAPE, 0.5, np.float32)
    with pytest.raises(InputError, match=r"\(5, 7\).*\(1, 7\)"):
        count_at_thresholds(reference, probs[:1])
    with pytest.raises(InputError, match="float64, not float32"):
        count_at_thresholds(reference, probs.astype(np.float64))
    with pytest.raises(InputError, match=r"within \[0, 1\]"):
        count_at_thresholds(reference, np.where(np.eye(*SHAPE) > 0, np.float32(np.nan), probs))


def lay_out(*steps):
    """A count at every threshold: `(until, count)`, until a hundredth and with it."""
    return np.concatenate([np.full(until - start, count) for start, until, count in steps])


def test_sweep_drawn_by_hand():
    tp = [lay_out((0, 40, 10), (40, 99, 6)), np.full(99, 1), np.zeros(99)]
    fp = [np.zeros(99), lay_out((0, 60, 2), (60, 99, 0)), lay_out((0, 30, 5), (30, 99, 0))]
    rows = sweep(np.array(tp), np.array(fp), [10, 1, 0])  # the third patient has no tumour
    assert [row["threshold"] for row in rows] == WRITTEN
    for first, last, of_patient, of_all in (
        (1, 30, (1 + 2 / 4) / 2, 22 / (22 + 7)),
        (31, 40, (1 + 2 / 4) / 2, 22 / (22 + 2)),
        (41, 60, (12 / 16 + 2 / 4) / 2, 14 / (14 + 2 + 4)),
        (61, 99, (12 / 16 + 1) / 2, 14 / (14 + 4)),
    ):
        for row in rows[first - 1 : last]:
            assert row["dice_patient"] == pytest.approx(of_patient)
            assert row["dice_pooled"] == pytest.approx(of_all)
    assert choose_threshold(rows) == 0.61  # of 0.61 to 0.99 the nearest to 0.5


def test_a_sweep_of_the_healthy_defines_no_choice():
    fp = np.tile(lay_out((0, 50, 3), (50, 99, 0)), (2, 1))
    rows = sweep(np.zeros((2, 99)), fp, [0, 0])
    assert all(row["dice_patient"] is None for row in rows)
    assert [row["dice_pooled"] for row in rows] == [0.0] * 50 + [None] * 49
    assert choose_threshold(rows) is None


def test_a_sweep_of_nobody():
    rows = sweep(np.zeros((0, 99)), np.zeros((0, 99)), [])
    assert len(rows) == 99 and choose_threshold(rows) is None
    assert all(row["dice_patient"] is None and row["dice_pooled"] is None for row in rows)
    assert choose_threshold([]) is None


def test_counts_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match=r"\(2, 99\) and \(2, 98\), not \(2, 99\)"):
        sweep(np.zeros((2, 99)), np.zeros((2, 98)), [1, 2])
    with pytest.raises(InputError, match=r"not \(3, 99\)"):
        sweep(np.zeros((2, 99)), np.zeros((2, 99)), [1, 2, 3])


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ({0.2: 0.8, 0.5: 0.79, 0.9: 0.7}, 0.2),
        ({0.2: 0.8, 0.6: 0.8, 0.9: 0.8}, 0.6),
        ({0.49: 0.8, 0.51: 0.8}, 0.49),
        ({0.51: 0.8, 0.49: 0.8}, 0.49),
        ({0.3: None, 0.7: 0.1}, 0.7),
        (dict.fromkeys(WRITTEN, 0.0), 0.5),
    ],
)
def test_the_best_and_of_the_best_the_nearest_to_half(scores, expected):
    rows = [{"threshold": at, "dice_patient": score, "dice_pooled": 0.9} for at, score in scores.items()]
    assert choose_threshold(rows) == expected


@pytest.mark.parametrize("hundredths", range(1, 50))
def test_of_two_as_near_to_half_the_lower(hundredths):
    pair = [WRITTEN[100 - hundredths - 1], WRITTEN[hundredths - 1]]
    assert pair[0] - 0.5 == pytest.approx(0.5 - pair[1])
    rows = [{"threshold": at, "dice_patient": 0.8, "dice_pooled": 0.9} for at in pair]
    assert choose_threshold(rows) == pair[1]
