"""Intervals and paired tests against scipy's own bootstrap, and against loops that draw and rank one by one."""

from itertools import product

import numpy as np
import pytest
from scipy import stats

from brainseg_cli.metrics.doubt import Resamples, compare_paired, interval_of_ratio


@pytest.mark.parametrize("patients", [8, 40])
def test_a_mean_against_scipy(rng, patients):
    values = rng.beta(8, 2, patients)
    [ours] = interval_of_ratio(Resamples(patients), values[:, None], np.ones((patients, 1)))
    theirs = stats.bootstrap((values,), np.mean, n_resamples=10_000, method="percentile", rng=rng).confidence_interval
    # two independent samples of 10000: a quantile strays by some 2.5 % of the standard error
    assert ours == pytest.approx(list(theirs), abs=0.12 * values.std() / np.sqrt(patients))


def test_a_pooled_ratio_against_scipy(rng):
    size = rng.integers(0, 3000, 25).astype(float)
    hits = np.floor(size * rng.beta(8, 2, 25))

    def ratio(above, below, axis):
        return above.sum(axis=axis) / below.sum(axis=axis)

    [ours] = interval_of_ratio(Resamples(25), hits[:, None], size[:, None])
    theirs = stats.bootstrap((hits, size), ratio, paired=True, n_resamples=10_000, method="percentile", rng=rng)
    assert ours == pytest.approx(list(theirs.confidence_interval), abs=0.12 * theirs.standard_error)


def test_a_difference_against_scipy(rng):
    a = rng.beta(8, 2, 30)
    b = np.clip(a + rng.normal(0.02, 0.05, 30), 0, 1)
    drawn = Resamples(30).sums(np.stack([a, b], axis=1)) / 30
    theirs = stats.bootstrap((a - b,), np.mean, n_resamples=10_000, method="percentile", rng=rng)
    ours = np.quantile(drawn[:, 0] - drawn[:, 1], [0.025, 0.975])
    assert ours == pytest.approx(list(theirs.confidence_interval), abs=0.12 * theirs.standard_error)


def test_draw_for_draw_against_a_loop(rng):
    """The same draws, taken one patient after another and averaged the plain way."""
    patients, resamples, seed = 11, 400, 5
    values = rng.random(patients)
    values[[2, 7]] = np.nan  # left out
    ratios = []
    for drawn in np.random.default_rng(seed).integers(0, patients, (resamples, patients)):
        chosen = [values[patient] for patient in drawn if not np.isnan(values[patient])]
        ratios.append(sum(chosen) / len(chosen))
    expected = [np.percentile(ratios, 2.5), np.percentile(ratios, 97.5)]
    defined = ~np.isnan(values)
    terms = np.nan_to_num(values)[:, None], defined[:, None].astype(float)
    [found] = interval_of_ratio(Resamples(patients, resamples=resamples, seed=seed), *terms)
    assert found == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("pairs", [3, 10, 50, 120])
def test_wilcoxon_against_scipy(rng, pairs):
    """Drawn from a continuum, so that nothing is equal: exact up to 50, the normal approximation above."""
    a, b = rng.random(pairs), rng.random(pairs)
    method = "exact" if pairs <= 50 else "asymptotic"
    expected = stats.wilcoxon(a, b, method=method).pvalue
    assert compare_paired(a, b, higher_is_better=True)["wilcoxon_p"] == pytest.approx(expected)


def test_ties_do_not_change_what_the_others_say(rng):
    a, b = rng.random(12), rng.random(12)
    same = rng.random(30)
    alone = compare_paired(a, b, higher_is_better=True)
    among = compare_paired(np.append(a, same), np.append(b, same), higher_is_better=True)
    assert among["ties"] == 30 and among["wilcoxon_p"] == alone["wilcoxon_p"]


def test_every_sign_pattern_of_equal_differences(rng):
    """Differences in whole pixels are often equal: p from all 2^n sign patterns of their mean ranks."""
    difference = np.array([1, 1, 2, -1, 3, 3, -2, 5, 1, 4], dtype=float)
    ranks = stats.rankdata(np.abs(difference))
    sums = np.array([ranks[np.array(signs)].sum() for signs in product([False, True], repeat=len(ranks))])
    observed = ranks[difference > 0].sum()
    expected = min(1.0, 2 * min((sums <= observed).mean(), (sums >= observed).mean()))
    start = rng.integers(0, 9, len(difference)).astype(float)
    found = compare_paired(start + difference, start, higher_is_better=False)
    assert found["wilcoxon_p"] == pytest.approx(expected)
