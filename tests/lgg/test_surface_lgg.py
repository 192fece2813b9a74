"""hd95, assd and nsd of real masks, moved and changed, against MONAI and surface-distance."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import surface_distance as deepmind
from scipy import ndimage

from brainseg_cli.io.images import read_mask
from brainseg_cli.metrics.surface import assd, compute_diagonal, compute_surface_distances, hd95, measure_surface, nsd

# what the two libraries say of their own code, and of masks that are empty
pytestmark = [
    pytest.mark.lgg,
    pytest.mark.filterwarnings("ignore:monai.metrics.utils get_mask_edges:FutureWarning"),
    pytest.mark.filterwarnings("ignore:the (prediction|ground truth) of class 0 is all 0:UserWarning"),
    pytest.mark.filterwarnings("ignore:Please import .* from the .scipy.ndimage. namespace:DeprecationWarning"),
]

PAIRS = 500
TOLERANCES = (1, 2)
SPACING = (0.9, 1.1, 5.5)  # made up, and no two alike: the files have none
CHANGES = {
    "shifted": lambda mask, _: np.roll(mask, (3, -5), axis=(0, 1)),
    "dilated": lambda mask, _: ndimage.binary_dilation(mask, iterations=2).astype(np.uint8),
    "eroded": lambda mask, _: ndimage.binary_erosion(mask, iterations=2).astype(np.uint8),
    "emptied": lambda mask, _: np.zeros_like(mask),
    "neighbour": lambda _, neighbour: neighbour,
}


@pytest.fixture(scope="module")
def volumes(lgg: Path):
    """Each patient's masks in scan order, uint8 (256, 256, slices)."""
    folders = sorted(folder for folder in lgg.iterdir() if folder.is_dir())
    paths = [sorted(folder.glob("*_mask.tif"), key=lambda path: int(path.stem.rsplit("_", 2)[1])) for folder in folders]
    return [np.stack([read_mask(path) for path in of_patient], axis=-1) for of_patient in paths]


@pytest.fixture(scope="module")
def pairs(volumes):
    """(change, reference, prediction): slices with tumour from every patient in turn, evenly along each patient."""

    def draw(volume):
        filled = np.flatnonzero(volume.any(axis=(0, 1)))
        rounds = -(-PAIRS // len(volumes))
        return filled[np.linspace(0, len(filled) - 1, rounds).round().astype(int)]

    drawn = []
    for turn, slices in enumerate(zip(*map(draw, volumes), strict=True)):
        for patient, (volume, at) in enumerate(zip(volumes, slices, strict=True)):
            name = list(CHANGES)[(turn + patient) % len(CHANGES)]
            reference = volume[..., at]
            neighbour = volume[..., at + 1 if at + 1 < volume.shape[-1] else at - 1]
            changed = CHANGES[name](reference, neighbour)
            # every other turn the changed one is the reference: a tumour emptied away is then one invented
            drawn.append((name, reference, changed) if turn % 2 else (name, changed, reference))
    assert len(drawn) >= PAIRS
    return drawn[:PAIRS]


@pytest.fixture(scope="module")
def measure_by_monai():
    """`measure_surface` as MONAI has it, the percentile of its distances in float64; imported here: it brings torch."""
    import torch
    from monai.metrics import compute_average_surface_distance, compute_surface_dice
    from monai.metrics.utils import get_edge_surface_distance

    def measure(reference, prediction, spacing=None):
        prediction, reference = (torch.as_tensor(mask.copy())[None, None].float() for mask in (prediction, reference))
        given = {"include_background": True, "spacing": spacing}
        _, distances, _ = get_edge_surface_distance(prediction[0, 0], reference[0, 0], spacing=spacing, symmetric=True)
        measured = {
            "hd95": max(torch.quantile(directed.double(), 0.95) for directed in distances),
            "assd": compute_average_surface_distance(prediction, reference, symmetric=True, **given),
        }
        for tolerance in TOLERANCES:
            measured[f"nsd_{tolerance:g}"] = compute_surface_dice(prediction, reference, [tolerance], **given)
        return {name: value.item() for name, value in measured.items()}

    return measure


def check_against_monai(measure_by_monai, reference, prediction, spacing):
    ours = measure_surface(reference, prediction, tolerances=TOLERANCES, spacing=spacing)
    if reference.any() and prediction.any():
        # its distances are float32
        assert ours == pytest.approx(measure_by_monai(reference, prediction, spacing), rel=1e-6, abs=1e-6)
    else:
        diagonal = compute_diagonal(reference.shape, spacing)
        assert ours == {"hd95": diagonal, "assd": diagonal, "nsd_1": 0, "nsd_2": 0}


def check_against_surface_distance(reference, prediction, spacing):
    ours = compute_surface_distances(reference, prediction, spacing)
    equal_areas = {
        "distances_gt_to_pred": np.sort(ours.reference),
        "distances_pred_to_gt": np.sort(ours.prediction),
        "surfel_areas_gt": np.ones(len(ours.reference)),
        "surfel_areas_pred": np.ones(len(ours.prediction)),
    }
    n, m = len(ours.reference), len(ours.prediction)
    one, other = deepmind.compute_average_surface_distance(equal_areas)
    assert assd(ours) == pytest.approx((n * one + m * other) / (n + m), abs=1e-6)
    for tolerance in TOLERANCES:
        expected = deepmind.compute_surface_dice_at_tolerance(equal_areas, tolerance)
        assert nsd(ours, tolerance) == pytest.approx(expected, abs=1e-6)
    # one of the two neighbours we interpolate between (tests/oracle says why)
    low, high = (max(np.percentile(d, 95, method=which) for d in ours) for which in ("lower", "higher"))
    assert low <= deepmind.compute_robust_hausdorff(equal_areas, 95) <= high
    assert low <= hd95(ours) <= high

    # with its own surface, between the pixels: off by a pixel's diagonal at most
    steps = spacing or (1,) * reference.ndim
    theirs = deepmind.compute_surface_distances(reference > 0, prediction > 0, steps)
    largest = max(directed.max() for directed in ours)
    assert abs(deepmind.compute_robust_hausdorff(theirs, 100) - largest) <= math.hypot(*steps) + 1e-9


def test_the_pairs_are_of_every_patient_and_kind(volumes, pairs):
    kinds = [name for name, _, _ in pairs]
    assert {name: kinds.count(name) for name in CHANGES} == dict.fromkeys(CHANGES, PAIRS // len(CHANGES))
    missed = sum(reference.any() and not prediction.any() for _, reference, prediction in pairs)
    invented = sum(prediction.any() and not reference.any() for _, reference, prediction in pairs)
    assert missed >= 40 and invented >= 40
    assert sum(reference.any() and prediction.any() for _, reference, prediction in pairs) >= 300


def test_monai_agrees_on_every_pair(pairs, measure_by_monai):
    for (_, reference, prediction), spacing in zip(pairs, itertools.cycle([None, SPACING[:2]]), strict=False):
        check_against_monai(measure_by_monai, reference, prediction, spacing)


def test_surface_distance_agrees_on_every_pair(pairs):
    compared = 0
    for (_, reference, prediction), spacing in zip(pairs, itertools.cycle([None, SPACING[:2]]), strict=False):
        if reference.any() and prediction.any():
            check_against_surface_distance(reference, prediction, spacing)
            compared += 1
    assert compared >= 300


@pytest.mark.parametrize("change", ["shifted", "dilated", "eroded"])
def test_both_agree_on_volumes(volumes, measure_by_monai, change):
    for volume in volumes[5::25]:
        changed = np.stack([CHANGES[change](volume[..., at], None) for at in range(volume.shape[-1])], axis=-1)
        check_against_monai(measure_by_monai, volume, changed, SPACING)
        check_against_surface_distance(volume, changed, SPACING)
