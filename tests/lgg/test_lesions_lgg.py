"""Lesions of the real masks: what must come out of a prediction whose relation to the reference is known."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from brainseg_cli.io.images import read_mask
from brainseg_cli.metrics.lesions import Lesions, compute_lesions, count_by_size

pytestmark = pytest.mark.lgg

PATIENTS = 8


@pytest.fixture(scope="module")
def volumes(lgg: Path) -> list[np.ndarray]:
    """(slices, 256, 256) uint8, patients from all over the list, slices in the order of their number."""
    folders = sorted(path for path in lgg.iterdir() if path.is_dir())
    found = []
    for folder in folders[:: max(1, len(folders) // PATIENTS)][:PATIENTS]:
        count = len(list(folder.glob("*_mask.tif")))
        found.append(np.stack([read_mask(folder / f"{folder.name}_{n}_mask.tif") for n in range(1, count + 1)]))
    return found


@pytest.fixture(scope="module", params=["slices", "volumes"])
def references(request: pytest.FixtureRequest, volumes: list[np.ndarray]) -> list[np.ndarray]:
    """The same masks slice by slice, 8-connected, and patient by patient, 26-connected."""
    return volumes if request.param == "volumes" else [mask for volume in volumes for mask in volume]


def compare(references: list[np.ndarray], predictions: list[np.ndarray]) -> list[Lesions]:
    return [compute_lesions(r, p) for r, p in zip(references, predictions, strict=True)]


def test_a_perfect_prediction(references: list[np.ndarray]) -> None:
    for mask, found in zip(references, compare(references, references), strict=True):
        assert found.sizes.sum() == mask.sum() and found.detected.all() and (found.dice == 1).all()
        assert (found.predicted, found.false_alarms) == (len(found.sizes), 0)


def test_finding_nothing(references: list[np.ndarray]) -> None:
    for mask, found in zip(references, compare(references, [np.zeros_like(m) for m in references]), strict=True):
        assert found.sizes.sum() == mask.sum() and not found.detected.any()
        assert (found.predicted, found.false_alarms) == (0, 0)


def test_dilated_slices_find_every_lesion_and_invent_none(volumes: list[np.ndarray]) -> None:
    dilated = [np.stack([cv2.dilate(mask, np.ones((5, 5), np.uint8)) for mask in volume]) for volume in volumes]
    of_volumes = compare(volumes, dilated)
    of_slices = compare([m for v in volumes for m in v], [m for v in dilated for m in v])
    for found in (*of_volumes, *of_slices):
        assert found.detected.all() and found.false_alarms == 0 and found.predicted <= len(found.sizes)
        assert (found.dice < 1).all()
    assert sum(len(found.sizes) for found in of_volumes) < sum(len(found.sizes) for found in of_slices)


def test_shifted_masks(references: list[np.ndarray]) -> None:
    shifted = [np.roll(mask, (3, -5), axis=(-2, -1)) for mask in references]
    forth, back = compare(references, shifted), compare(shifted, references)
    for mask, moved, found, other in zip(references, shifted, forth, back, strict=True):
        # the margin of every slice is free of tumour, so that nothing is torn apart
        assert found.predicted == len(found.sizes) and sorted(found.sizes) == sorted(other.sizes)
        assert found.false_alarms == (~other.detected).sum()
        assert found.detected.any() == bool((mask & moved).any())
        if len(found.sizes) == 1 and found.detected.all():  # then the lesion's dice is the mask's
            assert found.dice[0] == pytest.approx((mask & moved).sum() / mask.sum())
    assert any(len(found.sizes) == 1 and found.detected.all() for found in forth)


def test_lesions_by_size_lose_none(references: list[np.ndarray]) -> None:
    found = compare(references, [np.roll(mask, 9, axis=-1) for mask in references])
    sizes, detected, dice = (
        np.concatenate([getattr(each, name) for each in found]) for name in ("sizes", "detected", "dice")
    )
    rows = count_by_size(sizes, detected, dice)
    assert sum(row["reference"] for row in rows) == len(sizes) and rows[-1]["reference"] > 0
    assert sum(row["detected"] for row in rows) == detected.sum()
    assert sum(row["detected"] * row["dice"] for row in rows if row["detected"]) == pytest.approx(np.nansum(dice))
