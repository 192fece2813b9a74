"""Lesions against a reference that is slow and plain, and against OpenCV's components."""

import cv2
import numpy as np
import pytest

from brainseg_cli.io.images import read_mask
from brainseg_cli.metrics.lesions import compute_lesions


def find_components(mask):
    """Sets of pixels, each grown from its first one in reading order through all neighbours that share a corner."""
    left = dict.fromkeys(zip(*np.nonzero(mask), strict=True))
    around = [np.subtract(step, 1) for step in np.ndindex((3,) * mask.ndim)]
    components = []
    while left:
        component, front = set(), [next(iter(left))]
        while front:
            pixel = front.pop()
            if pixel in left:
                del left[pixel]
                component.add(pixel)
                front += [tuple(np.add(pixel, step)) for step in around]
        components.append(component)
    return components


def match_slowly(reference, prediction):
    """Every lesion against every predicted component."""
    lesions, predicted = find_components(reference), find_components(prediction)
    dice = []
    for lesion in lesions:
        touching = set().union(*(component for component in predicted if component & lesion))
        dice.append(2 * len(lesion & touching) / (len(lesion) + len(touching)) if touching else np.nan)
    false_alarms = sum(not any(component & lesion for lesion in lesions) for component in predicted)
    return [len(lesion) for lesion in lesions], dice, len(predicted), false_alarms


def check_against_slow(reference, prediction):
    found = compute_lesions(reference, prediction)
    sizes, dice, predicted, false_alarms = match_slowly(reference, prediction)
    assert found.sizes.tolist() == sizes
    assert found.detected.tolist() == (~np.isnan(dice)).tolist()
    np.testing.assert_allclose(found.dice, dice, rtol=1e-12)
    assert (found.predicted, found.false_alarms) == (predicted, false_alarms)


@pytest.mark.parametrize("shape", [(13, 19), (1, 40), (40, 1), (4, 7, 6), (1, 9, 8)])
@pytest.mark.parametrize("density", [0.05, 0.2, 0.4])
def test_random_masks_agree(rng, shape, density):
    reference, prediction = (rng.random((2, *shape)) < density).astype(np.uint8)
    check_against_slow(reference, prediction)
    check_against_slow(reference, reference | prediction)
    check_against_slow(reference, np.zeros_like(reference))
    check_against_slow(np.zeros_like(reference), prediction)


def test_components_of_a_whole_slice_are_those_of_opencv(rng):
    smooth = cv2.GaussianBlur(rng.random((2, 240, 256)).transpose(1, 2, 0), (9, 9), 2)
    reference, prediction = (smooth > np.quantile(smooth, 0.8)).astype(np.uint8).transpose(2, 0, 1).copy()
    found = compute_lesions(reference, prediction)
    count, _, statistics, _ = cv2.connectedComponentsWithStats(reference, connectivity=8)
    assert sorted(found.sizes) == sorted(statistics[1:, cv2.CC_STAT_AREA])
    assert count > 100 and found.predicted == cv2.connectedComponents(prediction, connectivity=8)[0] - 1


@pytest.mark.lgg
def test_real_masks_shifted_and_dilated_agree(lgg):
    paths = sorted(lgg.glob("*/*_mask.tif"))[::40]
    tumours = [mask for mask in map(read_mask, paths) if mask.any()]
    assert len(tumours) > 10
    several = sorted(tumours, key=lambda mask: -len(compute_lesions(mask, mask).sizes))[:4]
    for mask, other in zip(several, several[1:] + several[:1], strict=True):
        check_against_slow(mask, np.roll(mask, (3, -5), axis=(0, 1)))
        check_against_slow(mask, cv2.dilate(mask, np.ones((5, 5), np.uint8)))
        check_against_slow(mask, other)


@pytest.mark.lgg
def test_a_real_volume_agrees(lgg):
    folder = min((path for path in lgg.iterdir() if path.is_dir()), key=lambda path: (len(list(path.iterdir())), path))
    count = len(list(folder.glob("*_mask.tif")))
    volume = np.stack([read_mask(folder / f"{folder.name}_{n}_mask.tif") for n in range(1, count + 1)])
    small = volume[:, ::4, ::4]  # the slow way takes its time
    assert small.any()
    check_against_slow(small, np.roll(small, (1, 2, -3), axis=(0, 1, 2)))
