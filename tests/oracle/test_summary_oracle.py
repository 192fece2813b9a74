"""A whole summary against a slow script that shares nothing with it: loops, scikit-learn and SciPy."""

import itertools
import math

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.distance import cdist
from sklearn import metrics as sklearn_metrics

from brainseg_cli.metrics.measure import MaskPair, Ruler, collect, measure_patient
from brainseg_cli.metrics.summary import summarise_measures

BATCH_SIZE = 3
TOLERANCES = (0.5, 2)
SPACINGS = [None, (0.9, 1.3, 2.5)]
SHAPES = [(9, 12), (7, 15), (11, 10)]


def draw_patients(rng, *, count=10, volumes=True):
    """patient -> its (image, slice_index, reference, prediction, probs); every fourth has no tumour."""
    patients = {}
    for n in range(count):
        pairs = []
        shape = SHAPES[n % 3]
        for index in range(2, 2 + int(rng.integers(1, 5))):
            smooth = ndimage.gaussian_filter(rng.random(shape), 1)
            case = rng.choice(["found", "found", "missed", "invented", "empty"])
            reference = (smooth > np.quantile(smooth, 0.8)) & (case in ("found", "missed")) & (n % 4 != 3)
            probs = (rng.random(shape) + reference * rng.random(shape)) / 2 * (case in ("found", "invented"))
            pairs.append(
                (f"p{n}_{index}", index, reference.astype(np.uint8), (probs >= 0.4).astype(np.uint8), np.float32(probs))
            )
        if not volumes and n % 2:
            pairs = [(image, None, *rest) for image, _, *rest in pairs]
        patients[f"p{n}"] = pairs
    return patients


def mean(values):
    values = [value for value in values if not math.isnan(value)]
    return sum(values) / len(values) if values else None


def share(numerator, denominator):
    return numerator / denominator if denominator else None


def flatten(slices, at):
    return np.concatenate([each[at].ravel() for each in slices])


def compute_overlap(slices, at=3):
    """dice and iou of the pixels of some slices, NaN where both masks are empty."""
    reference, prediction = flatten(slices, 2), flatten(slices, at)
    if not reference.any() and not prediction.any():
        return {"dice": math.nan, "iou": math.nan}
    return {
        "dice": sklearn_metrics.f1_score(reference, prediction),
        "iou": sklearn_metrics.jaccard_score(reference, prediction),
    }


def find_surface(mask):
    """A tumour pixel with a face neighbour that is none, or lies outside."""
    found = []
    for place in np.argwhere(mask):
        for axis, step in itertools.product(range(mask.ndim), (-1, 1)):
            neighbour = place.copy()
            neighbour[axis] += step
            if not 0 <= neighbour[axis] < mask.shape[axis] or not mask[tuple(neighbour)]:
                found.append(place)
                break
    return np.array(found)


def compute_distances(reference, prediction, steps):
    """hd95, assd, and nsd at TOLERANCES; NaN where both masks are empty."""
    if not reference.any() and not prediction.any():
        return [math.nan] * (2 + len(TOLERANCES))
    if not reference.any() or not prediction.any():
        diagonal = np.linalg.norm(np.multiply(reference.shape, steps))
        return [diagonal, diagonal] + [0.0] * len(TOLERANCES)
    apart = cdist(find_surface(reference) * steps, find_surface(prediction) * steps)
    forth, back = apart.min(axis=1), apart.min(axis=0)
    both = np.concatenate([forth, back])
    return [
        max(np.percentile(forth, 95), np.percentile(back, 95)),
        both.mean(),
        *((both <= tolerance).mean() for tolerance in TOLERANCES),
    ]


def list_components(mask):
    labels, count = ndimage.label(mask, structure=np.ones((3,) * mask.ndim))
    return [{tuple(place) for place in np.argwhere(labels == n + 1)} for n in range(count)]


def compute_lesions(reference, prediction):
    """The dice of each lesion, NaN where missed, and the number of false alarms, on sets of places."""
    lesions, components = list_components(reference), list_components(prediction)
    found = []
    for lesion in lesions:
        touching = set().union(*(component for component in components if component & lesion))
        found.append(2 * len(touching & lesion) / (len(touching) + len(lesion)) if touching else math.nan)
    return found, sum(not any(component & lesion for lesion in lesions) for component in components)


def compute_ece(reference, probs):
    total = 0.0
    for n in range(15):
        chosen = [(r, p) for r, p in zip(reference, probs, strict=True) if int(min(p * 15, 14)) == n]
        if chosen:
            total += len(chosen) * abs(mean([p for _, p in chosen]) - mean([r for r, _ in chosen]))
    return total / len(probs)


def compute_all(patients, order, spacing):
    """Every metric of a summary, by its name."""
    slices = [each for pairs in patients.values() for each in pairs]
    with_tumour = [each for each in slices if each[2].any()]
    reference, prediction, probs = (flatten(slices, at) for at in (2, 3, 4))
    probs = probs.astype(np.float64)
    found = {}
    for name in ("dice", "iou"):
        of_patients = {p: compute_overlap(pairs)[name] for p, pairs in patients.items()}
        found[f"{name}_patient"] = mean([of_patients[p] for p, pairs in patients.items() if flatten(pairs, 2).any()])
        found[f"{name}_pooled"] = compute_overlap(slices)[name]
        found[f"{name}_slice_tumour"] = mean([compute_overlap([each])[name] for each in with_tumour])
        of_slices = [compute_overlap([each])[name] for each in slices]
        found[f"{name}_slice_all"] = mean([1 if math.isnan(value) else value for value in of_slices])
    found["accuracy"] = sklearn_metrics.accuracy_score(reference, prediction)
    found["sensitivity"] = sklearn_metrics.recall_score(reference, prediction)
    found["specificity"] = sklearn_metrics.recall_score(reference, prediction, pos_label=0)
    found["precision"] = sklearn_metrics.precision_score(reference, prediction)
    found["brier"] = sklearn_metrics.brier_score_loss(reference, probs)
    found["ece"] = compute_ece(reference, probs)

    by_image = {each[0]: each for each in slices}
    soft = {"dice": [], "iou": []}
    for start in range(0, len(order), BATCH_SIZE):
        batch = [by_image[image] for image in order[start : start + BATCH_SIZE]]
        r, p = flatten(batch, 2), flatten(batch, 4).astype(np.float64)
        soft["dice"].append((2 * (p * r).sum() + 1) / (p.sum() + r.sum() + 1))
        soft["iou"].append(((p * r).sum() + 1) / (p.sum() + r.sum() - (p * r).sum() + 1))
    found |= {f"{name}_batch_soft": mean(values) for name, values in soft.items()}

    unit, steps = ("px", (1, 1, 1)) if spacing is None else ("mm", (spacing[2], spacing[0], spacing[1]))
    of_slices = {each[0]: compute_distances(each[2], each[3], steps[1:]) for each in slices}
    of_patients, lesions, false_alarms = [], [], []
    for pairs in patients.values():
        volume = [np.stack([each[at] for each in pairs]) for at in (2, 3)]
        if spacing is None:
            rows = [of_slices[each[0]] for each in pairs]
            of_patients.append([mean(column) for column in zip(*rows, strict=True)])
        else:
            of_patients.append(compute_distances(*volume, steps))
        stacks = [volume] if pairs[0][1] is not None or len(pairs) == 1 else [each[2:4] for each in pairs]
        measured = [compute_lesions(*stack) for stack in stacks]
        lesions += [dice for found_here, _ in measured for dice in found_here]
        false_alarms.append(sum(count for _, count in measured))
    for at, kind in enumerate(("hd95", "assd", *(f"nsd {tolerance:g}" for tolerance in TOLERANCES))):
        kind, _, tolerance = kind.partition(" ")
        found[f"{kind}_{tolerance}{unit}"] = mean([math.nan if row[at] is None else row[at] for row in of_patients])
        found[f"{kind}_slice_{tolerance}{unit}"] = mean([row[at] for row in of_slices.values()])
    found["lesion_sensitivity"] = share(sum(not math.isnan(dice) for dice in lesions), len(lesions))
    found["lesion_dice"] = mean(lesions)
    found["lesion_false_alarms_slice"] = sum(false_alarms) / len(slices)
    found["lesion_false_alarms_patient"] = sum(false_alarms) / len(patients)
    return found


def summarise(patients, order, spacing):
    ruler = Ruler(spacing, TOLERANCES)
    measured = [measure_patient(p, [MaskPair(*each) for each in pairs], ruler) for p, pairs in patients.items()]
    return summarise_measures(collect(measured, order, ruler), batch_size=BATCH_SIZE)


@pytest.mark.parametrize("spacing", SPACINGS)
def test_the_whole_summary(rng, spacing):
    for volumes in (True, spacing is not None):
        patients = draw_patients(rng, volumes=volumes)
        images = [each[0] for pairs in patients.values() for each in pairs]
        order = [images[at] for at in rng.permutation(len(images))]
        found = summarise(patients, order, spacing)
        assert found["metrics"] == pytest.approx(compute_all(patients, order, spacing), rel=1e-9)
        # every special case was there
        assert all(found["left_out"]["dice_patient"].values()) and all(found["left_out"]["lesion_dice"].values())
        (slice_name,) = (name for name in found["one_empty"] if name.startswith("hd95_slice"))
        assert all(found["left_out"][slice_name].values()) and all(found["one_empty"][slice_name].values())
        assert found["lesions"]["false_alarms"] and len(found["lesions"]["connectivity"]) == 1 + (not volumes)
        nothing = {
            p: [(*each[:3], np.zeros_like(each[2]), np.zeros_like(each[4])) for each in pairs]
            for p, pairs in patients.items()
        }
        assert found["find_nothing"] == pytest.approx(summarise(nothing, order, spacing)["metrics"])
        halves = {
            p: [(*each[:3], (each[4] >= 0.5).astype(np.uint8), each[4]) for each in pairs]
            for p, pairs in patients.items()
        }
        at_half = compute_all(halves, order, spacing)
        assert found["at_half"] == pytest.approx({name: at_half[name] for name in found["at_half"]})


def test_intervals_of_patients_drawn_one_by_one(rng):
    """A few metrics over each resample as it would be measured: some patients twice or more, others not at all."""
    patients = draw_patients(rng)
    found = summarise(patients, [each[0] for pairs in patients.values() for each in pairs], None)["intervals"]
    names = list(patients)
    dice, has_tumour, hits, sizes, errors, pixels = np.array(
        [
            (
                np.nan_to_num(compute_overlap(pairs)["dice"]),
                flatten(pairs, 2).any(),
                (flatten(pairs, 2) * flatten(pairs, 3)).sum(),
                flatten(pairs, 2).sum(),
                ((flatten(pairs, 4).astype(float) - flatten(pairs, 2)) ** 2).sum(),
                flatten(pairs, 2).size,
            )
            for pairs in patients.values()
        ]
    ).T
    drawn = np.random.default_rng(0).integers(0, len(names), (10000, len(names)))
    expected = {
        "dice_patient": [share((dice * has_tumour)[row].sum(), has_tumour[row].sum()) for row in drawn],
        "sensitivity": [share(hits[row].sum(), sizes[row].sum()) for row in drawn],
        "brier": [share(errors[row].sum(), pixels[row].sum()) for row in drawn],
    }
    for name, values in expected.items():
        defined = np.array([value for value in values if value is not None])
        assert found[name] == pytest.approx(np.quantile(defined, [0.025, 0.975])), name
