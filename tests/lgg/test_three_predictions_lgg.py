"""A model that finds nothing, one that marks everything, and the reference itself: every number follows from the masks.

What is expected is worked out here from the masks alone, without the package's metrics.
"""

import math
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from brainseg_cli.io.images import read_mask
from brainseg_cli.io.inputs import parse_slice_index
from brainseg_cli.metrics.aggregate import BATCH_SIZE
from brainseg_cli.metrics.measure import MaskPair, Ruler, collect, measure_patients
from brainseg_cli.metrics.summary import summarise_measures

pytestmark = pytest.mark.lgg

PATIENTS = {"px": 8, "mm": 2}
RULERS = {"px": Ruler(), "mm": Ruler(spacing_mm=(0.9, 1.1, 5.5))}  # made up, and no two alike: the files have none
CORNERS = np.ones((3, 3, 3))


@pytest.fixture(scope="module", params=RULERS)
def unit(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def volumes(lgg: Path, unit: str) -> dict[str, np.ndarray]:
    """(slices, 256, 256) uint8 of some patients, and the shortest once more without its tumour.

    In px they are from all over the list; in mm those of fewest slices, for the sides of a volume that is all marked
    are many points to measure from.
    """
    folders = sorted(path for path in lgg.iterdir() if path.is_dir())
    if unit == "mm":
        folders.sort(key=lambda folder: len(list(folder.iterdir())))
    else:
        folders = folders[:: max(1, len(folders) // PATIENTS[unit])]
    found = {}
    for folder in folders[: PATIENTS[unit]]:
        paths = sorted(folder.glob("*_mask.tif"), key=lambda path: parse_slice_index(path.stem))
        found[folder.name] = np.stack([read_mask(path) for path in paths])
    fewest = min(found.values(), key=len)
    return {**found, "without": np.zeros_like(fewest)}


def summarise(volumes: dict[str, np.ndarray], predict, unit: str):
    """The summary of `predict(volume)`, its masks being the probabilities, too."""

    def load(patient: str) -> list[MaskPair]:
        volume = volumes[patient]
        return [
            MaskPair(f"{patient}/{n}", n, reference, prediction, prediction.astype(np.float32))
            for n, (reference, prediction) in enumerate(zip(volume, predict(volume), strict=True), 1)
        ]

    loads = [(patient, lambda patient=patient: load(patient)) for patient in volumes]
    images = [f"{patient}/{n}" for patient, volume in volumes.items() for n in range(1, len(volume) + 1)]
    return summarise_measures(collect(list(measure_patients(loads, RULERS[unit], workers=2)), images, RULERS[unit]))


def measure_to_border(mask: np.ndarray, steps: tuple[float, ...]) -> np.ndarray:
    """hd95, assd, nsd_1 and nsd_2 of a mask with tumour against a mask of everything, whose surface is the border.

    From a surface pixel to the border it is as far as to the nearest side; from a border pixel to the tumour's
    surface as far as to the tumour, for the border is not inside it.
    """
    surface = mask.astype(bool) & ~ndimage.binary_erosion(mask, border_value=0)
    places = np.argwhere(surface)
    to_side = np.minimum(places, np.array(mask.shape) - 1 - places) * steps
    border = np.ones(mask.shape, bool)
    border[(slice(1, -1),) * mask.ndim] = False
    forth, back = to_side.min(axis=1), ndimage.distance_transform_edt(mask == 0, sampling=steps)[border]
    both = np.concatenate([forth, back])
    hd95 = max(np.percentile(forth, 95), np.percentile(back, 95))
    return np.array([hd95, both.mean(), *((both <= tolerance).mean() for tolerance in (1, 2))])


def count_missed(shape: tuple[int, ...], steps: tuple[float, ...]) -> np.ndarray:
    diagonal = math.hypot(*np.multiply(shape, steps))
    return np.array([diagonal, diagonal, 0, 0])


def mean_distances(volumes: dict[str, np.ndarray], unit: str, measure) -> dict[str, float]:
    """The eight means of `measure(mask, steps)`, which is None where a mask is left out."""
    spacing = RULERS[unit].spacing_mm or (1, 1, 1)
    of_slices = {patient: [measure(mask, spacing[:2]) for mask in volume] for patient, volume in volumes.items()}
    of_slices = {patient: [row for row in rows if row is not None] for patient, rows in of_slices.items()}
    if unit == "px":
        of_patients = [np.mean(rows, axis=0) for rows in of_slices.values() if rows]
    else:
        of_patients = [measure(volume, (spacing[2], *spacing[:2])) for volume in volumes.values()]
        of_patients = [row for row in of_patients if row is not None]
    names = [f"hd95_{{}}{unit}", f"assd_{{}}{unit}", f"nsd_{{}}1{unit}", f"nsd_{{}}2{unit}"]
    means = np.mean(of_patients, axis=0), np.mean([row for rows in of_slices.values() for row in rows], axis=0)
    return {
        name.format(of): value
        for of, row in zip(("", "slice_"), means, strict=True)
        for name, value in zip(names, row, strict=True)
    }


def list_batches(volumes: dict[str, np.ndarray]) -> list[tuple[int, int]]:
    """Tumour pixels and all pixels of 40 slices after 40."""
    slices = [mask for volume in volumes.values() for mask in volume]
    batches = [slices[start : start + BATCH_SIZE] for start in range(0, len(slices), BATCH_SIZE)]
    return [(sum(int(mask.sum()) for mask in batch), sum(mask.size for mask in batch)) for batch in batches]


def test_finding_nothing(volumes, unit):
    found = summarise(volumes, np.zeros_like, unit)
    slices = [mask for volume in volumes.values() for mask in volume]
    empty = np.mean([not mask.any() for mask in slices])
    prevalence = sum(int(mask.sum()) for mask in slices) / sum(mask.size for mask in slices)
    batch_soft = np.mean([1 / (tumour + 1) for tumour, _ in list_batches(volumes)])
    expected = {
        **dict.fromkeys(
            [f"{name}_{of}" for name in ("dice", "iou") for of in ("patient", "pooled", "slice_tumour")], 0
        ),
        **dict.fromkeys(("dice_slice_all", "iou_slice_all"), empty),
        **dict.fromkeys(("dice_batch_soft", "iou_batch_soft"), batch_soft),
        **dict.fromkeys(("sensitivity", "lesion_sensitivity"), 0),
        **dict.fromkeys(("lesion_false_alarms_slice", "lesion_false_alarms_patient"), 0),
        **dict.fromkeys(("precision", "lesion_dice")),
        **dict.fromkeys(("ece", "brier"), prevalence),
        "accuracy": 1 - prevalence,
        "specificity": 1,
        **mean_distances(volumes, unit, lambda mask, steps: count_missed(mask.shape, steps) if mask.any() else None),
    }
    assert found["metrics"] == pytest.approx(expected)
    assert found["find_nothing"] == pytest.approx(expected)
    assert summarise(volumes, np.copy, unit)["find_nothing"] == pytest.approx(expected)
    with_tumour = sum(mask.any() for mask in (slices if unit == "px" else volumes.values()))
    of = "slices" if unit == "px" else "patients"
    assert found["one_empty"][f"hd95_{unit}"] == {"missed": with_tumour, "false_alarm": 0, "of": of}
    empty_slices = {"slices_empty_in_both": sum(not mask.any() for mask in slices)} if unit == "px" else {}
    assert found["left_out"][f"hd95_{unit}"] == {"patients_empty_in_both": 1} | empty_slices
    assert found["lesions"]["predicted"] == found["lesions"]["detected"] == 0


def test_marking_everything(volumes, unit):
    found = summarise(volumes, np.ones_like, unit)
    slices = [mask for volume in volumes.values() for mask in volume]
    prevalence = sum(int(mask.sum()) for mask in slices) / sum(mask.size for mask in slices)
    of_patients = np.array([volume.mean() for volume in volumes.values() if volume.any()])
    of_slices = np.array([mask.mean() for mask in slices if mask.any()])

    def dice(share):
        """2tp / (2tp + fp) of a share of tumour among what is all marked."""
        return 2 * share / (1 + share)

    lesions = []  # as shares of their volume
    for volume in volumes.values():
        labels, _ = ndimage.label(volume, CORNERS)
        lesions += (np.bincount(labels.ravel())[1:] / volume.size).tolist()
    batches = list_batches(volumes)
    expected = {
        "dice_patient": dice(of_patients).mean(),
        "dice_pooled": dice(prevalence),
        "dice_slice_tumour": dice(of_slices).mean(),
        "dice_slice_all": dice(of_slices).sum() / len(slices),
        "dice_batch_soft": np.mean([(2 * tumour + 1) / (pixels + tumour + 1) for tumour, pixels in batches]),
        "iou_patient": of_patients.mean(),
        "iou_pooled": prevalence,
        "iou_slice_tumour": of_slices.mean(),
        "iou_slice_all": of_slices.sum() / len(slices),
        "iou_batch_soft": np.mean([(tumour + 1) / (pixels + 1) for tumour, pixels in batches]),
        **dict.fromkeys(("accuracy", "precision"), prevalence),
        **dict.fromkeys(("sensitivity", "lesion_sensitivity"), 1),
        **dict.fromkeys(("ece", "brier"), 1 - prevalence),
        "specificity": 0,
        **mean_distances(
            volumes,
            unit,
            lambda mask, steps: measure_to_border(mask, steps) if mask.any() else count_missed(mask.shape, steps),
        ),
        # one component a patient, which is false for the one without tumour
        "lesion_false_alarms_slice": 1 / len(slices),
        "lesion_false_alarms_patient": 1 / len(volumes),
        "lesion_dice": np.mean([dice(share) for share in lesions]),
    }
    assert found["metrics"] == pytest.approx(expected)
    assert found["find_nothing"] == pytest.approx(summarise(volumes, np.zeros_like, unit)["metrics"])
    assert found["lesions"]["predicted"] == len(volumes) and found["lesions"]["reference"] == len(lesions)
    empty = sum(not mask.any() for mask in (slices if unit == "px" else volumes.values()))
    of = "slices" if unit == "px" else "patients"
    assert found["one_empty"][f"hd95_{unit}"] == {"missed": 0, "false_alarm": empty, "of": of}
    nothing_left_out = {"patients_empty_in_both": 0} | ({"slices_empty_in_both": 0} if unit == "px" else {})
    assert found["left_out"][f"hd95_{unit}"] == nothing_left_out


def test_the_reference_itself(volumes, unit):
    found = summarise(volumes, np.copy, unit)
    zero = ("hd95", "assd", "lesion_false_alarms", "ece", "brier")
    expected = {name: 0 if name.startswith(zero) else 1 for name in found["metrics"]}
    assert found["metrics"] == expected
    assert found["at_half"] == dict.fromkeys(found["at_half"], 1)
    for name, interval in found["intervals"].items():
        assert interval == (None if "batch_soft" in name else [expected[name]] * 2), name
    counted = found["lesions"]
    assert counted["reference"] == counted["detected"] == counted["predicted"] >= PATIENTS[unit]
    assert found["one_empty"][f"hd95_{unit}"]["missed"] == found["one_empty"][f"hd95_{unit}"]["false_alarm"] == 0
