"""Resamples, their intervals, and two results side by side: by hand, and by whether the truth is inside."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brainseg_cli.metrics import doubt
from brainseg_cli.metrics.doubt import Resamples, compare_paired, interval_of_ratio, percentile_interval

HIGHER = {"higher_is_better": True}


def test_a_resample_draws_as_many_patients_as_there_are():
    sums = Resamples(7, resamples=500).sums(np.eye(7))
    assert sums.shape == (500, 7)
    assert (sums.sum(axis=1) == 7).all()
    assert (sums == np.round(sums)).all() and sums.min() == 0 and sums.max() > 1


def test_each_patient_is_drawn_once_a_resample_on_average():
    means = Resamples(20, resamples=10_000).sums(np.eye(20)).mean(axis=0)
    # the variance of a count is 1 - 1/20: five standard errors of the mean
    assert np.abs(means - 1).max() < 5 * np.sqrt(0.95 / 10_000)


def test_the_same_patients_are_drawn_whatever_is_summed():
    resamples = Resamples(9, resamples=300)
    values = np.arange(18.0).reshape(9, 2)
    together = resamples.sums(values)
    assert (resamples.sums(values[:, 1:]) == together[:, 1:]).all()
    assert (Resamples(9, resamples=300).sums(values) == together).all()
    assert (Resamples(9, resamples=300, seed=1).sums(values) != together).any()


@pytest.mark.parametrize("at_once, kept_bytes", [(8, 0), (20, 1 << 20), (1 << 18, 0)])
def test_how_the_work_is_cut_changes_no_draw(monkeypatch, at_once, kept_bytes):
    expected = Resamples(5, resamples=101).sums(np.eye(5))
    monkeypatch.setattr(doubt, "AT_ONCE", at_once)
    monkeypatch.setattr(doubt, "KEPT_BYTES", kept_bytes)
    resamples = Resamples(5, resamples=101)
    for _ in range(2):
        assert (resamples.sums(np.eye(5)) == expected).all()


def test_sums_without_patients_or_columns():
    assert Resamples(0, resamples=4).sums(np.empty((0, 3))).tolist() == [[0.0] * 3] * 4
    assert Resamples(3, resamples=4).sums(np.empty((3, 0))).shape == (4, 0)


@pytest.mark.parametrize("terms", [np.zeros((4, 1)), np.zeros(3), [[0.0], [np.nan], [1.0]], [[np.inf], [0.0], [1.0]]])
def test_terms_that_are_not_the_patients_are_refused(terms):
    with pytest.raises(ValueError, match="term"):
        Resamples(3, resamples=2).sums(terms)


@pytest.mark.parametrize("patients, resamples", [(-1, 10), (3, 0)])
def test_what_cannot_be_drawn_is_refused(patients, resamples):
    with pytest.raises(ValueError, match="cannot be drawn"):
        Resamples(patients, resamples=resamples)


def test_the_middle_95_percent_of_0_to_1000():
    values = np.random.default_rng(0).permutation(1001).astype(float)
    assert percentile_interval(values) == pytest.approx([25.0, 975.0])
    assert percentile_interval(values, level=0.5) == pytest.approx([250.0, 750.0])


def test_undefined_resamples_are_left_out_until_they_are_most():
    assert percentile_interval([np.nan, 2.0, np.nan, 2.0]) == [2.0, 2.0]
    assert percentile_interval([np.nan, 2.0, np.nan]) is None
    assert percentile_interval([np.nan]) is None
    assert percentile_interval([]) is None


def test_two_patients_give_a_quarter_a_half_and_a_quarter():
    # 0 and 1 are each the mean of a quarter of the resamples, 0.5 of the half: both ends are whole patients
    [interval] = interval_of_ratio(Resamples(2), [[0.0], [1.0]], [[1.0], [1.0]])
    assert interval == [0.0, 1.0]
    [narrow] = interval_of_ratio(Resamples(2), [[0.0], [1.0]], [[1.0], [1.0]], level=0.4)
    assert narrow == [0.5, 0.5]


def test_a_pooled_ratio_weighs_patients_by_their_denominator():
    # (0 a + 90 b) / (10 a + 90 b), a and b being how often each is drawn of two: 0, 0.9 or 1
    drawn = Resamples(2).sums([[0.0, 10.0], [90.0, 90.0]])
    assert set((drawn[:, 0] / drawn[:, 1]).tolist()) == {0.0, 0.9, 1.0}


def test_metrics_are_apart_and_need_two_patients_each():
    above = [[0.5, 1.0, 0.0, 0.0], [0.5, 0.0, 0.0, 3.0], [0.5, 0.0, 0.0, 1.0]]
    below = [[1.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 4.0], [1.0, 0.0, 0.0, 4.0]]
    always, one_patient, nobody, two_of_three = interval_of_ratio(Resamples(3), above, below)
    assert always == [0.5, 0.5]
    assert one_patient is None and nobody is None
    assert two_of_three == [0.25, 0.75]


def test_no_patients_and_no_metrics():
    assert interval_of_ratio(Resamples(0), np.empty((0, 2)), np.empty((0, 2))) == [None, None]
    assert interval_of_ratio(Resamples(3), np.empty((3, 0)), np.empty((3, 0))) == []
    with pytest.raises(ValueError, match="differ in shape"):
        interval_of_ratio(Resamples(3), np.zeros((3, 2)), np.zeros((3, 1)))


@pytest.mark.parametrize("kind", ["mean", "pooled"])
def test_the_interval_holds_the_truth_about_as_often_as_it_says(rng, kind):
    """30 patients, 400 times: 95 % less what the percentile bootstrap lacks, and what 400 draws may stray."""
    size = rng.integers(50, 2000, (30, 400)).astype(float)
    share = rng.beta(8, 2, (30, 400))  # of mean 0.8, whatever the size
    above, below = (share, np.ones_like(share)) if kind == "mean" else (share * size, size)
    intervals = interval_of_ratio(Resamples(30, resamples=1000), above, below)
    held = np.mean([low <= 0.8 <= high for low, high in intervals])
    assert 0.88 <= held <= 0.99


def test_an_interval_over_slices_would_be_too_narrow(rng):
    """Why patients are drawn: ten alike slices a patient are no ten patients."""
    values = np.repeat(rng.normal(0.8, 0.1, (12, 200)), 10, axis=0) + rng.normal(0, 0.01, (120, 200))
    slices = interval_of_ratio(Resamples(120, resamples=500), values, np.ones_like(values))
    by_patient = values.reshape(12, 10, 200).sum(axis=1)
    patients = interval_of_ratio(Resamples(12, resamples=500), by_patient, np.full_like(by_patient, 10))
    held = [np.mean([low <= 0.8 <= high for low, high in intervals]) for intervals in (slices, patients)]
    assert held[0] < 0.6 < 0.8 < held[1]


def test_a_pairing_by_hand():
    a = [0.9, 0.8, 0.5, 0.7, np.nan, 0.3]
    b = [0.6, 0.8, 0.6, 0.5, 0.9, np.nan]
    found = compare_paired(a, b, **HIGHER)
    assert {key: found[key] for key in ("pairs", "wins", "ties", "losses")} == {
        "pairs": 4,
        "wins": 2,
        "ties": 1,
        "losses": 1,
    }
    # differences 0.3, 0, -0.1, 0.2
    assert found["mean_difference"] == pytest.approx(0.1)
    assert found["median_difference"] == pytest.approx(0.1)
    # ranks 3, 1, 2 of three; the negative ones sum to 1: sums of 0 or 1 are 2 of 8 sign patterns, both sides 4
    assert found["wilcoxon_p"] == pytest.approx(4 / 8)


def test_lower_is_better_turns_wins_and_not_differences():
    higher, lower = (compare_paired([5.0, 1.0, 9.0], [2.0, 3.0, 8.0], higher_is_better=up) for up in (True, False))
    assert (higher["wins"], higher["losses"]) == (lower["losses"], lower["wins"]) == (2, 1)
    assert higher["mean_difference"] == lower["mean_difference"] == pytest.approx(2 / 3)
    assert higher["wilcoxon_p"] == lower["wilcoxon_p"]


def test_rounding_makes_no_winner():
    found = compare_paired([0.1 + 0.2, 0.5], [0.3, 0.5], **HIGHER)
    assert (found["wins"], found["ties"], found["wilcoxon_p"]) == (0, 2, None)


def test_five_wins_of_five_are_one_in_sixteen():
    assert compare_paired([2.0, 3.0, 4.0, 5.0, 6.0], np.ones(5), **HIGHER)["wilcoxon_p"] == pytest.approx(2 / 32)
    # equal differences: all 32 sign patterns are still alike
    assert compare_paired([2.0] * 5, np.ones(5), **HIGHER)["wilcoxon_p"] == pytest.approx(2 / 32)


@pytest.mark.parametrize("a, b", [([], []), ([np.nan], [1.0]), ([np.nan, 0.4], [0.2, np.nan])])
def test_nobody_to_pair(a, b):
    assert compare_paired(a, b, **HIGHER) == {
        "pairs": 0,
        "wins": 0,
        "ties": 0,
        "losses": 0,
        "mean_difference": None,
        "median_difference": None,
        "wilcoxon_p": None,
    }


def test_other_patients_are_refused():
    with pytest.raises(ValueError, match="not the same patients"):
        compare_paired([1.0], [1.0, 2.0], **HIGHER)


steps = st.none() | st.integers(-8, 8)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(steps, steps), max_size=20))
def test_turning_a_and_b_around_turns_the_result(pairs):
    a, b = (np.array([np.nan if pair[at] is None else pair[at] / 8 for pair in pairs]) for at in (0, 1))
    there, back = compare_paired(a, b, **HIGHER), compare_paired(b, a, **HIGHER)
    assert there["pairs"] == there["wins"] + there["ties"] + there["losses"]
    assert (there["wins"], there["losses"]) == (back["losses"], back["wins"])
    if there["pairs"]:
        assert there["mean_difference"] == pytest.approx(-back["mean_difference"])
        assert there["median_difference"] == pytest.approx(-back["median_difference"])
    if there["wins"] + there["losses"]:
        assert there["wilcoxon_p"] == pytest.approx(back["wilcoxon_p"]) and 0 < there["wilcoxon_p"] <= 1
    else:
        assert there["wilcoxon_p"] is None
