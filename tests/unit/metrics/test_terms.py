import json

import numpy as np
import pandas as pd
import pytest

from brainseg_cli.metrics.calibration import BINS, PIXELS, SUM_PROB, TUMOUR
from brainseg_cli.metrics.doubt import Resamples
from brainseg_cli.metrics.terms import Terms, TermsBuilder

PATIENTS = pd.DataFrame({"patient_id": ["b", "a", "c"]})
OWNERS = pd.Series(["a", "b", "c", "a", "a"])


@pytest.fixture
def terms() -> Terms:
    """b, a and c: a pooled ratio, a mean without c, a mean over slices without b, and one that nobody defines."""
    builder = TermsBuilder(PATIENTS, OWNERS)
    builder.ratio("pooled", [1, 2, 0], [4, 6, 10])
    builder.mean("mean", [0.5, 0.25, np.nan])
    # slices in no order: a has 1, 0 and one left out; b has one left out; c has 0.5
    values = pd.Series([1, np.nan, 0.5, np.nan, 0])
    builder.slice_mean("slices", values)
    builder.mean("nobody", [np.nan] * 3)
    return builder.build()


@pytest.fixture
def bins() -> np.ndarray:
    """b: 8 pixels with a gap of 1; a: 2 with a gap of 1 the other way, in the same bin; c: 10 and no gap."""
    bins = np.zeros((3, BINS, 3))
    bins[0, 3, [PIXELS, SUM_PROB, TUMOUR]] = 8, 2, 1
    bins[1, 3, [PIXELS, SUM_PROB, TUMOUR]] = 2, 0, 1
    bins[2, 0, PIXELS] = 10
    return bins


def test_values_are_one_sum_over_the_other(terms):
    assert terms.names == ["pooled", "mean", "slices", "nobody"]
    assert terms.values() == pytest.approx(
        {"pooled": 3 / 20, "mean": 0.75 / 2, "slices": (1 + 0 + 0.5) / 3, "nobody": None}
    )
    assert [terms.count(name) for name in terms.names] == [3, 2, 2, 0]
    assert json.loads(json.dumps(terms.values())) == terms.values()


def test_rows_are_patients_in_the_order_of_their_table(terms):
    assert terms.numerators.index.tolist() == terms.denominators.index.tolist() == ["b", "a", "c"]
    assert terms.numerators["slices"].tolist() == [0, 1, 0.5]
    assert terms.denominators["slices"].tolist() == [0, 2, 1]
    assert {str(dtype) for side in (terms.numerators, terms.denominators) for dtype in side.dtypes} == {"float64"}


def test_the_calibration_error_is_of_the_summed_bins(terms, bins):
    joined = terms.join(Terms(terms.numerators[[]], terms.denominators[[]], bins))
    assert joined.names == [*terms.names, "ece"]
    # the two gaps in one bin go away in the sum, the mean of 1 / 8, 1 / 2 and 0 would not
    assert joined.values() == terms.values() | {"ece": 0}
    assert joined.count("ece") == 3
    assert joined.select(["b"]).values()["ece"] == pytest.approx(1 / 8)
    assert joined.select(["c", "a"]).values()["ece"] == pytest.approx(1 / 12)


def test_bins_without_pixels_define_no_error(terms):
    assert Terms(terms.numerators, terms.denominators, np.zeros((3, BINS, 3))).values()["ece"] is None


def test_select(terms, bins):
    whole = Terms(terms.numerators, terms.denominators, bins)
    chosen = whole.select(["c", "b"], ["slices", "pooled"])
    assert chosen.names == ["slices", "pooled"] and chosen.bins is None
    assert chosen.numerators.index.tolist() == ["c", "b"]
    assert chosen.values() == pytest.approx({"slices": 0.5, "pooled": 1 / 14})
    assert whole.select(["a"], ["ece", "mean"]).values() == pytest.approx({"mean": 0.25, "ece": 1 / 2})
    assert whole.select(["c"]).values()["mean"] is None
    assert whole.select(["a"], []).names == []
    assert whole.select([]).values() == dict.fromkeys([*terms.names, "ece"])
    assert whole.select(["b", "a", "c"]).values() == whole.values()


def test_what_is_not_there_is_not_selected(terms):
    for patients, names in ((["d"], None), (["a", "d"], ["pooled"]), (["a"], ["other"]), (["a"], ["ece"])):
        with pytest.raises(KeyError):
            terms.select(patients, names)
    with pytest.raises(KeyError):
        terms.resample("ece", Resamples(3, resamples=5))


def test_join_keeps_both(terms, bins):
    builder = TermsBuilder(PATIENTS, OWNERS)
    builder.mean("other", [1, 2, 3])
    other = builder.build()
    for one, two in ((terms, other), (other, terms)):
        joined = one.join(two)
        assert joined.names == [*one.names, *two.names]
        assert joined.values() == one.values() | two.values()
    with_bins = Terms(terms.numerators, terms.denominators, bins)
    assert with_bins.join(other).bins is other.join(with_bins).bins is bins


def draw(resamples: int) -> np.ndarray:
    """Which of three patients each resample draws."""
    return np.random.default_rng(0).integers(0, 3, (resamples, 3))


def test_resamples_are_of_patients_and_the_same_for_every_metric(terms, bins):
    whole, drawn = Terms(terms.numerators, terms.denominators, bins), draw(500)
    resamples = Resamples(3, resamples=500)
    for name in terms.names:
        above, below = (side[name].to_numpy()[drawn].sum(axis=1) for side in (terms.numerators, terms.denominators))
        expected = [a / b if b else np.nan for a, b in zip(above, below, strict=True)]
        np.testing.assert_allclose(whole.resample(name, resamples), expected, rtol=1e-12)
    gaps = np.abs(bins[drawn][..., SUM_PROB].sum(axis=1) - bins[drawn][..., TUMOUR].sum(axis=1)).sum(axis=1)
    expected = gaps / bins[drawn][..., PIXELS].sum(axis=(1, 2))
    np.testing.assert_allclose(whole.resample("ece", resamples), expected, rtol=1e-12)
    # a metric and twice the metric, drawn alike
    double = Terms(2 * terms.numerators, terms.denominators)
    difference = double.resample("pooled", resamples) - 2 * terms.resample("pooled", resamples)
    assert not difference.any()


def test_intervals(terms, bins):
    found = Terms(terms.numerators, terms.denominators, bins).intervals(Resamples(3))
    assert list(found) == [*terms.names, "ece"]
    # each patient alone comes up 1 time in 27, more than a tail; c alone is the smallest of pooled, a alone the largest
    assert found["pooled"] == pytest.approx([0, 2 / 6])
    assert found["mean"] == [0.25, 0.5]
    assert found["slices"] == [0.5, 0.5]  # a is 1 / 2, too
    assert found["nobody"] is None
    assert found["ece"] == pytest.approx([0, 1 / 2])


def test_no_interval_for_fewer_than_two_patients(terms, bins):
    whole = Terms(terms.numerators, terms.denominators, bins)
    assert whole.select(["b"]).intervals(Resamples(1)) == dict.fromkeys(whole.names)
    pair = whole.select(["b", "c"]).intervals(Resamples(2))
    assert {name for name, interval in pair.items() if interval} == {"pooled", "ece"}
    assert whole.select([]).intervals(Resamples(0)) == dict.fromkeys(whole.names)
