"""Calibration and the sweep of thresholds against scikit-learn."""

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, f1_score

from brainseg_cli.metrics.calibration import BINS, bin_probs, compute_ece, describe_bins, sum_squared_error
from brainseg_cli.metrics.threshold import count_at_thresholds, sweep

SHAPE = (23, 31)


def make_slice(rng, sharpness, tumour):
    """A mask and probabilities that know something of it; 0, 1 and the floats about every edge are among them."""
    reference = (rng.random(SHAPE) < tumour).astype(np.uint8)
    probs = 1 / (1 + np.exp(-rng.normal(sharpness * (2.0 * reference - 1.2), 1.5)))
    edges = (np.arange(BINS + 1) / BINS).astype(np.float32)
    special = [edges, np.nextafter(edges, np.float32(0)), np.nextafter(edges, np.float32(1))]
    probs = probs.astype(np.float32)
    probs.flat[: 3 * len(edges)] = np.clip(np.concatenate(special), 0, 1)
    return reference, probs


@pytest.fixture(params=[(0.2, 0.4), (2, 0.05), (6, 0.01), (1, 0)], ids=str)
def pair(request, rng):
    return make_slice(rng, *request.param)


def test_brier_score(pair):
    reference, probs = pair
    expected = brier_score_loss(reference.ravel(), probs.ravel().astype(np.float64), pos_label=1)
    assert sum_squared_error(reference, probs) / reference.size == pytest.approx(expected, rel=1e-12)


def test_reliability_and_calibration_error(pair):
    reference, probs = pair[0].ravel(), pair[1].ravel().astype(np.float64)
    bins = bin_probs(*pair)
    shares, means = calibration_curve(reference, probs, n_bins=BINS, strategy="uniform")
    filled = [row for row in describe_bins(bins) if row["pixels"]]
    assert [row["tumour_share"] for row in filled] == pytest.approx(shares.tolist())
    assert [row["mean_prob"] for row in filled] == pytest.approx(means.tolist())
    # scikit-learn keeps its bins' sizes to itself
    pixels, _ = np.histogram(probs, bins=np.linspace(0, 1, BINS + 1))
    assert bins[:, 0].tolist() == pixels.tolist()
    assert compute_ece(bins) == pytest.approx(np.average(np.abs(shares - means), weights=pixels[pixels > 0]))


def test_the_sweep_is_f1_at_every_threshold(rng):
    patients = [
        [make_slice(rng, *kind) for kind in slices]
        for slices in ([(1, 0.1), (3, 0.2)], [(2, 0.02)], [(1, 0), (4, 0)], [(5, 0.3)])
    ]
    counts = np.array([np.sum([count_at_thresholds(*pair) for pair in slices], axis=0) for slices in patients])
    rows = sweep(counts[:, 0], counts[:, 1], [sum(int(r.sum()) for r, _ in slices) for slices in patients])

    def f1(slices, threshold):
        return f1_score(
            np.concatenate([r.ravel() for r, _ in slices]),
            np.concatenate([(p >= threshold).ravel() for _, p in slices]),
            zero_division=np.nan,
        )

    for row in rows[::7]:
        of_patients = [f1(slices, row["threshold"]) for slices in patients if any(r.any() for r, _ in slices)]
        assert len(of_patients) == 3
        assert row["dice_patient"] == pytest.approx(np.mean(of_patients))
        assert row["dice_pooled"] == pytest.approx(
            f1([pair for slices in patients for pair in slices], row["threshold"])
        )
