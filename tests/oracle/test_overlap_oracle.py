"""Counts, ratios and aggregates against scikit-learn, which derives them from label vectors its own way."""

import cv2
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    f1_score,
    jaccard_score,
    precision_score,
    recall_score,
)

from brainseg_cli.io.images import read_mask
from brainseg_cli.metrics.aggregate import SLICE_COLUMNS, add_ratios, find_nothing, sum_by_patient, summarise
from brainseg_cli.metrics.counts import compute_counts, compute_soft_sums

EMPTY_SLICES = {2855: 1870, 3929: 2556}  # slices to slices without tumour: 80 patients, and all 110


def build_slices(pairs):
    """(patient_id, reference, prediction) each."""
    rows = [
        (f"{n}.png", patient, n, *compute_counts(r, p), *compute_soft_sums(r, p))
        for n, (patient, r, p) in enumerate(pairs)
    ]
    return pd.DataFrame(rows, columns=list(SLICE_COLUMNS)).astype({"slice_index": "Int64"})


def join(pairs):
    """Two label vectors of all pixels."""
    references, predictions = zip(*((r.ravel(), p.ravel()) for _, r, p in pairs), strict=True)
    return np.concatenate(references), np.concatenate(predictions)


def score_pair(reference, prediction):
    """What scikit-learn says of two label vectors, NaN where a denominator is 0."""
    undefined = {"zero_division": np.nan}
    overlap = reference.any() or prediction.any()
    return {
        "dice": f1_score(reference, prediction, **undefined),
        # jaccard_score knows no NaN
        "iou": jaccard_score(reference, prediction) if overlap else np.nan,
        "accuracy": accuracy_score(reference, prediction),
        "sensitivity": recall_score(reference, prediction, **undefined),
        "specificity": recall_score(reference, prediction, pos_label=0, **undefined),
        "precision": precision_score(reference, prediction, **undefined),
    }


def check_against_sklearn(pairs):
    slices = build_slices(pairs)
    joined = join(pairs)
    measured = add_ratios(slices)
    for row, (_, reference, prediction) in zip(measured.to_dict("records"), pairs, strict=True):
        matrix = confusion_matrix(reference.ravel(), prediction.ravel(), labels=[0, 1])
        assert [[row["tn"], row["fp"]], [row["fn"], row["tp"]]] == matrix.tolist()
        expected = score_pair(reference.ravel(), prediction.ravel())
        assert {name: row[name] for name in expected} == pytest.approx(expected, nan_ok=True)

    metrics = summarise(slices)["metrics"]
    pooled = score_pair(*joined)
    for name, value in pooled.items():
        found = metrics[name if name in metrics else f"{name}_pooled"]
        assert found == pytest.approx(value)

    patients = {}
    for patient in dict.fromkeys(patient for patient, _, _ in pairs):
        patients[patient] = join([pair for pair in pairs if pair[0] == patient])
    table = sum_by_patient(slices).set_index("patient_id")
    assert table["dice"].to_dict() == pytest.approx(
        {p: score_pair(*vectors)["dice"] for p, vectors in patients.items()}, nan_ok=True
    )
    for name, score in (("dice", f1_score), ("iou", jaccard_score)):
        of_patients = [score(r, p) for r, p in patients.values() if r.any()]
        of_slices = [score(r.ravel(), p.ravel()) for _, r, p in pairs if r.any()]
        of_all = [score(r.ravel(), p.ravel(), zero_division=1.0) for _, r, p in pairs]
        assert metrics[f"{name}_patient"] == pytest.approx(np.mean(of_patients))
        assert metrics[f"{name}_slice_tumour"] == pytest.approx(np.mean(of_slices))
        assert metrics[f"{name}_slice_all"] == pytest.approx(np.mean(of_all))


@pytest.mark.parametrize("seed", range(4))
def test_random_masks_agree(seed):
    rng = np.random.default_rng(seed)
    pairs = [
        (
            f"p{n % 3}",
            (rng.random((11, 17)) < tumour).astype(np.uint8),
            (rng.random((11, 17)) < found).astype(np.uint8),
        )
        for n, (tumour, found) in enumerate([(0.5, 0.4), (0, 0.2), (0, 0), (0.3, 0), (1, 1), (0.02, 0.02), (1, 0.9)])
    ]
    check_against_sklearn([*pairs, ("healthy", np.zeros((11, 17), np.uint8), np.eye(11, 17, dtype=np.uint8))])


def test_soft_overlap_of_a_batch_is_that_of_its_concatenation():
    rng = np.random.default_rng(0)
    references = (rng.random((7, 11, 17)) < 0.3).astype(np.uint8)
    probs = rng.random((7, 11, 17), dtype=np.float32)
    slices = build_slices([("p", r, r) for r in references])
    sums = [compute_soft_sums(r, p) for r, p in zip(references, probs, strict=True)]
    slices[["soft_intersection", "soft_prediction", "soft_reference"]] = sums
    metrics = summarise(slices, batch_size=3)["metrics"]

    # as the notebooks write it, on flat float64 batches
    of_dice, of_iou = [], []
    for start in (0, 3, 6):
        r = references[start : start + 3].ravel().astype(np.float64)
        p = probs[start : start + 3].ravel().astype(np.float64)
        of_dice.append((2 * (r * p).sum() + 1) / (r.sum() + p.sum() + 1))
        of_iou.append(((r * p).sum() + 1) / ((r + p - r * p).sum() + 1))
    assert metrics["dice_batch_soft"] == pytest.approx(np.mean(of_dice), rel=1e-12)
    assert metrics["iou_batch_soft"] == pytest.approx(np.mean(of_iou), rel=1e-12)


@pytest.mark.lgg
def test_real_masks_shifted_dilated_and_emptied_agree(lgg):
    changes = [
        lambda mask: np.roll(mask, (3, -5), axis=(0, 1)),
        lambda mask: cv2.dilate(mask, np.ones((5, 5), np.uint8)),
        np.zeros_like,
        lambda mask: mask,
    ]
    pairs = []
    for folder in sorted(path for path in lgg.iterdir() if path.is_dir())[:3]:
        masks = [read_mask(path) for path in sorted(folder.glob("*_mask.tif"))]
        with_tumour = [mask for mask in masks if mask.any()][:4]
        without = next(mask for mask in masks if not mask.any())
        pairs += [(folder.name, mask, change(mask)) for mask, change in zip(with_tumour, changes, strict=False)]
        pairs += [(folder.name, without, without), (folder.name, without, with_tumour[0])]
    assert len(pairs) == 18
    check_against_sklearn(pairs)


@pytest.mark.lgg
def test_what_finding_nothing_scores_on_the_real_set(lgg):
    references = {path: read_mask(path) for path in sorted(lgg.glob("*/*_mask.tif"))}
    if len(references) not in EMPTY_SLICES:
        pytest.skip(f"{len(references)} slices are neither the 80 nor the 110 patients")
    slices = build_slices([(path.parent.name, mask, np.zeros_like(mask)) for path, mask in references.items()])
    pd.testing.assert_frame_equal(find_nothing(slices), slices)

    summary = summarise(slices)
    assert summary["metrics"]["dice_slice_all"] == pytest.approx(EMPTY_SLICES[len(slices)] / len(slices))
    assert summary["metrics"]["accuracy"] == pytest.approx(0.99, abs=0.002)
    assert summary["metrics"]["dice_patient"] == summary["metrics"]["dice_pooled"] == 0
    assert summary["counted"]["patients"] == {2855: 80, 3929: 110}[len(slices)]
    assert summary["counted"]["slices_empty_and_empty"] == EMPTY_SLICES[len(slices)]
