import itertools
import math
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pandas as pd
import pytest

from brainseg_cli.errors import InputError, UsageError
from brainseg_cli.metrics.aggregate import RATIOS, SLICE_COLUMNS
from brainseg_cli.metrics.calibration import BINS
from brainseg_cli.metrics.measure import (
    LESION_COLUMNS,
    PIXELS,
    MaskPair,
    Measures,
    Ruler,
    collect,
    measure_patient,
    measure_patients,
)

IN_MM = Ruler(spacing_mm=(2, 1, 3))
SHAPE = (3, 4)  # a diagonal of 5 px


def build_pair(image, index, reference=(), prediction=(), *, shape=SHAPE, probs=None):
    """A slice whose masks have the given pixels."""
    masks = np.zeros((2, *shape), np.uint8)
    for mask, pixels in zip(masks, (reference, prediction), strict=True):
        for at in pixels:
            mask[at] = 1
    return MaskPair(image, index, *masks, probs)


def list_rows(columns):
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def build_patient(rng, slices, *, start=1, shape=SHAPE, probabilities=True, prefix="p"):
    """Random slices, some without tumour; with a threshold of 0.5."""
    pairs = []
    for index in range(start, start + slices):
        reference = ((rng.random(shape) < 0.3) * (rng.random() < 0.7)).astype(np.uint8)
        probs = (rng.random(shape) * (rng.random() < 0.7)).astype(np.float32)
        prediction = (probs >= 0.5).astype(np.uint8)
        pairs.append(MaskPair(f"{prefix}_{index}", index, reference, prediction, probs if probabilities else None))
    return pairs


def test_a_ruler_names_what_it_measures():
    assert (PIXELS.unit, PIXELS.names) == ("px", ["hd95_px", "assd_px", "nsd_1px", "nsd_2px"])
    assert (PIXELS.in_plane, PIXELS.in_volume) == (None, None)
    ruler = Ruler((2, 1, 3), (0.5,))
    assert (ruler.unit, ruler.names) == ("mm", ["hd95_mm", "assd_mm", "nsd_0.5mm"])
    assert (ruler.in_plane, ruler.in_volume) == ((2, 1), (3, 2, 1))
    for fit in (PIXELS, ruler, Ruler(tolerances=()), Ruler(tolerances=(0, 2.5))):
        fit.check()


@pytest.mark.parametrize(
    ("ruler", "what"),
    [
        *((Ruler(spacing), "spacing") for spacing in [(0, 1, 1), (1, -1, 1), (1, 1, math.nan), (1, math.inf, 1)]),
        *((Ruler(tolerances=tolerances), "tolerance") for tolerances in [(-1,), (1, math.nan), (math.inf,)]),
        *((Ruler(tolerances=tolerances), "one name") for tolerances in [(1, 2, 1), (0.12345678, 0.12345679)]),
    ],
)
def test_a_ruler_that_measures_nothing_is_refused(ruler, what):
    with pytest.raises(UsageError, match=what):
        ruler.check()


def test_one_patient_in_px():
    # 2 px of which 1 is found; missed, at the diagonal; empty in both. Lesions: 2 px and the pixel below; far off 1 px
    pairs = [
        build_pair("s3", 3),
        build_pair("s1", 1, [(0, 0), (0, 1)], [(0, 1)]),
        build_pair("s2", 2, [(1, 1), (2, 3)]),
    ]
    found = measure_patient("p", pairs, PIXELS)
    assert found.slices["image"] == ["s3", "s1", "s2"]
    empty, hit, missed = list_rows(found.slices)
    assert (hit["image"], hit["patient_id"], hit["slice_index"]) == ("s1", "p", 1)
    assert (hit["height"], hit["width"]) == SHAPE
    assert [hit[name] for name in ("tp", "fp", "fn", "tn")] == [1, 0, 1, 10]
    assert [hit[name] for name in ("soft_intersection", "soft_prediction", "soft_reference")] == [1, 1, 2]
    # from the reference 1 and 0, from the prediction 0; place 0.95 of two
    assert [hit[name] for name in PIXELS.names] == pytest.approx([0.95, 1 / 3, 1, 1])
    assert [missed[name] for name in PIXELS.names] == [5, 5, 0, 0]
    assert all(math.isnan(empty[name]) for name in PIXELS.names)
    assert "brier" not in hit and "brier" not in found.patient
    patient = dict(found.patient)
    assert [patient.pop(name) for name in PIXELS.names] == pytest.approx([5.95 / 2, 16 / 6, 0.5, 0.5])
    assert patient == {
        "patient_id": "p",
        "lesion_connectivity": 26,
        "lesions": 2,
        "lesions_detected": 1,
        "lesions_predicted": 1,
        "lesion_false_alarms": 0,
        "lesion_dice": 2 / 4,
    }
    lesions = pd.DataFrame(found.lesions)
    assert tuple(lesions) == LESION_COLUMNS
    assert lesions["size_px"].tolist() == [3, 1] and lesions["detected"].tolist() == [True, False]
    assert lesions["dice"].tolist() == pytest.approx([2 / 4, math.nan], nan_ok=True)
    assert set(lesions["image"]) == {""} and set(lesions["connectivity"]) == {26}
    assert found.halves is None and found.bins is None


def test_one_patient_in_mm_is_measured_as_its_volume():
    # slice, row and column are 3, 2 and 1 mm: the pixels are 3, 2 and 1 mm apart along each, whatever their order
    for at, other, apart in (((0, 0, 0), (1, 0, 0), 3), ((0, 0, 0), (0, 1, 0), 2), ((1, 2, 3), (1, 2, 2), 1)):
        pairs = [build_pair(f"s{n}", 8 - n, [at[1:]] * (at[0] == n), [other[1:]] * (other[0] == n)) for n in range(2)]
        found = measure_patient("p", pairs, IN_MM)
        assert [found.patient[name] for name in IN_MM.names] == [apart, apart, apart <= 1, apart <= 2]
    missed = measure_patient("p", [build_pair("s1", 1, [(0, 0)]), build_pair("s2", 2)], IN_MM).patient
    assert missed["hd95_mm"] == pytest.approx(math.hypot(2 * 3, 3 * 2, 4 * 1))
    nothing = measure_patient("p", [build_pair("s1", 1), build_pair("s2", 2)], IN_MM).patient
    assert all(math.isnan(nothing[name]) for name in IN_MM.names)


def test_slices_are_a_volume_in_any_order(rng):
    pairs = build_patient(rng, 5, start=4)
    for ruler in (PIXELS, IN_MM):
        expected = measure_patient("p", pairs, ruler)
        for _ in range(5):
            shuffled = [pairs[at] for at in rng.permutation(5)]
            found = measure_patient("p", shuffled, ruler)
            assert found.patient == pytest.approx(expected.patient, nan_ok=True)
            np.testing.assert_equal(found.lesions, expected.lesions)
            np.testing.assert_allclose(found.bins, expected.bins)


COUNTS_OF_LESIONS = ("lesions", "lesions_detected", "lesions_predicted", "lesion_false_alarms")
NO_VOLUMES = {
    "a gap": [("s1", 1, SHAPE), ("s3", 3, SHAPE)],
    "a number twice": [("s1", 1, SHAPE), ("s1b", 1, SHAPE)],
    "no number": [("s1", None, SHAPE), ("s2", 2, SHAPE)],
    "two sizes": [("s1", 1, SHAPE), ("s2", 2, (4, 3))],
}


@pytest.mark.parametrize("case", NO_VOLUMES)
def test_slices_that_are_no_volume(case):
    pixel = [(0, 0)]
    pairs = [build_pair(image, index, pixel, pixel, shape=shape) for image, index, shape in NO_VOLUMES[case]]
    found = measure_patient("p", pairs, PIXELS)
    assert [(row["image"], row["connectivity"]) for row in found.lesions] == [(pairs[0].image, 8), (pairs[1].image, 8)]
    assert found.patient["lesion_connectivity"] == 8
    assert [found.patient[name] for name in COUNTS_OF_LESIONS] == [2, 2, 2, 0]
    missed = [pair._replace(reference=pair.prediction * 0) for pair in pairs]
    assert [measure_patient("p", missed, PIXELS).patient[name] for name in COUNTS_OF_LESIONS] == [0, 0, 2, 2]
    with pytest.raises(InputError, match=r"p: its slices are no volume: .* \(without --spacing"):
        measure_patient("p", pairs, IN_MM)


@pytest.mark.parametrize("index", [7, None])
def test_a_single_slice_is_a_volume(index):
    pair = build_pair("s", index, [(0, 0)], [(1, 0)])
    assert measure_patient("p", [pair], PIXELS).patient["lesion_connectivity"] == 26
    assert measure_patient("p", [pair], IN_MM).patient["hd95_mm"] == 2


def test_masks_may_lie_in_memory_as_they_like(rng):
    pairs = build_patient(rng, 6, probabilities=False)
    turned = [
        pair._replace(reference=np.asfortranarray(pair.reference), prediction=pair.prediction[:, ::-1].copy()[:, ::-1])
        for pair in pairs
    ]
    assert not turned[0].prediction.flags.c_contiguous
    expected, found = (
        collect([measure_patient("p", own, PIXELS)], [p.image for p in own], PIXELS) for own in (pairs, turned)
    )
    assert any(not pair.reference.any() for pair in pairs) and any(pair.reference.any() for pair in pairs)
    assert_same(found, expected)


def test_masks_of_two_sizes_are_refused():
    pair = MaskPair("s", 1, np.zeros((3, 4), np.uint8), np.zeros((4, 3), np.uint8))
    with pytest.raises(InputError, match=r"\(3, 4\).*\(4, 3\)"):
        measure_patient("p", [pair], PIXELS)


def test_probabilities():
    # 4 pixels: tumour at 0.75, none at 0.5, tumour at 0.25, none at 0; a threshold of 0.2 marks three
    probs = np.array([[0.75, 0.5, 0.25, 0]], np.float32)
    one = build_pair("s1", 1, [(0, 0), (0, 2)], [(0, 0), (0, 1), (0, 2)], shape=(1, 4), probs=probs)
    two = build_pair("s2", 2, shape=(1, 4), probs=np.zeros((1, 4), np.float32))
    found = measure_patient("p", [one, two], PIXELS)
    first, second = list_rows(found.slices)
    assert [first[name] for name in ("tp", "fp", "fn", "tn")] == [2, 1, 0, 1]
    assert (first["soft_intersection"], first["soft_prediction"], first["soft_reference"]) == (1, 1.5, 2)
    squares = 0.25**2 + 0.5**2 + 0.75**2
    assert first["brier"] == pytest.approx(squares / 4) and second["brier"] == 0
    assert found.patient["brier"] == pytest.approx(squares / 8)
    half, other = list_rows(found.halves)
    assert tuple(half) == SLICE_COLUMNS and (half["image"], other["image"]) == ("s1", "s2")
    assert [half[name] for name in ("tp", "fp", "fn", "tn")] == [1, 1, 1, 1]  # 0.5 is within
    assert (half["soft_intersection"], half["soft_prediction"], half["soft_reference"]) == (1, 1.5, 2)
    # 15 bins: 0.75 in the 12th, 0.5 in the 8th, 0.25 in the 4th
    assert found.bins.shape == (BINS, 3)
    assert {at: found.bins[at].tolist() for at in np.flatnonzero(found.bins.any(axis=1))} == {
        0: [5, 0, 0],
        3: [1, 0.25, 1],
        7: [1, 0.5, 0],
        11: [1, 0.75, 1],
    }


def test_the_brier_score_of_a_patient_is_of_its_pixels(rng):
    sizes = [(3, 4), (5, 6)]
    pairs = [pair for n, shape in enumerate(sizes) for pair in build_patient(rng, 1, start=n, shape=shape)]
    found = measure_patient("p", pairs, PIXELS).patient["brier"]
    squares = sum(((pair.probs - pair.reference.astype(float)) ** 2).sum() for pair in pairs)
    assert found == pytest.approx(squares / 42)


# several patients


def build_patients(rng, count=6, **options):
    return {f"p{n}": build_patient(rng, 1 + (7 * n) % 5, prefix=f"p{n}", **options) for n in range(count)}


def measure_all(patients, *, workers=2, ruler=PIXELS):
    loads = ((patient_id, partial(list, pairs)) for patient_id, pairs in patients.items())
    return list(measure_patients(loads, ruler, workers=workers))


def list_images(patients):
    return [pair.image for pairs in patients.values() for pair in pairs]


def assert_same(found: Measures, expected: Measures):
    pd.testing.assert_frame_equal(found.slices, expected.slices, check_exact=True)
    pd.testing.assert_frame_equal(found.patients, expected.patients, check_exact=True)
    pd.testing.assert_frame_equal(found.lesions, expected.lesions, check_exact=True)
    if expected.halves is not None:
        pd.testing.assert_frame_equal(found.halves, expected.halves, check_exact=True)
        np.testing.assert_array_equal(found.bins, expected.bins)


@pytest.mark.parametrize("ruler", [PIXELS, IN_MM])
@pytest.mark.parametrize("probabilities", [True, False])
def test_as_many_workers_as_one_likes(rng, ruler, probabilities):
    patients = build_patients(rng, probabilities=probabilities)
    images = list_images(patients)
    alone, together = (collect(measure_all(patients, workers=n, ruler=ruler), images, ruler) for n in (1, 4))
    assert_same(together, alone)
    assert alone.patients["patient_id"].tolist() == list(patients)


def test_patients_come_in_their_order_whoever_is_done_first(rng):
    patients = build_patients(rng, 5)
    second_done = threading.Event()

    def load(patient_id):
        if patient_id == "p0":
            assert second_done.wait(60)  # so that the first cannot be done before the second is loaded
        elif patient_id == "p1":
            second_done.set()
        return patients[patient_id]

    found = measure_patients(((name, partial(load, name)) for name in patients), PIXELS, workers=2)
    assert [each.patient["patient_id"] for each in found] == list(patients)


@pytest.mark.parametrize("workers", [1, 3])
def test_only_a_few_patients_are_taken_ahead(rng, workers):
    pairs = build_patient(rng, 2)
    taken, loaded = [], []

    def load(n):
        loaded.append(n)
        return pairs

    def list_patients():
        for n in range(40):
            taken.append(n)
            yield f"p{n}", partial(load, n)

    found = measure_patients(list_patients(), PIXELS, workers=workers)
    assert not taken and not loaded  # nothing is read before it is asked for
    for done, each in enumerate(found):
        assert each.patient["patient_id"] == f"p{done}"
        assert len(loaded) <= len(taken) <= done + 1 + 2 * workers
    assert sorted(loaded) == list(range(40))


def test_no_patients_no_measures():
    assert list(measure_patients((), PIXELS, workers=2)) == []


def test_what_a_callable_raises_is_raised_in_its_turn_and_ends_it(rng):
    pairs, loaded = build_patient(rng, 1), []

    def load(n):
        loaded.append(n)
        if n == 2:
            raise InputError("is torn", where="p2.png")
        return pairs

    found = measure_patients(((f"p{n}", partial(load, n)) for n in itertools.count()), PIXELS, workers=1)
    assert [next(found).patient["patient_id"] for _ in range(2)] == ["p0", "p1"]
    with pytest.raises(InputError, match=r"p2\.png: is torn"):
        next(found)
    # two were taken ahead; of the endless rest none was begun
    assert max(loaded) <= 4 and next(found, None) is None


def test_what_a_measure_or_the_iterable_raises_is_raised_too(rng):
    torn = build_pair("s", 1, shape=(3, 4))._replace(prediction=np.zeros((4, 3), np.uint8))
    with pytest.raises(InputError, match=r"\(4, 3\)"):
        list(measure_patients([("p", lambda: [torn])], PIXELS, workers=2))

    def list_patients():
        yield "p0", lambda: build_patient(rng, 1)
        raise InputError("is gone")

    with pytest.raises(InputError, match="is gone"):
        list(measure_patients(list_patients(), PIXELS, workers=2))


def test_closing_stops_the_workers(rng, monkeypatch):
    """The one worker is held at the second patient until the pool is shut down; the third waits and is not begun."""
    pairs, loaded, begun, go_on = build_patient(rng, 1), [], threading.Event(), threading.Event()
    shutdown = ThreadPoolExecutor.shutdown

    def tell_shutdown(self, wait=True, **options):
        shutdown(self, wait=False, **options)
        go_on.set()
        shutdown(self, wait=wait)

    def load(n):
        loaded.append(n)
        if n == 1:
            begun.set()
            assert go_on.wait(60)
        return pairs

    monkeypatch.setattr(ThreadPoolExecutor, "shutdown", tell_shutdown)
    before = set(threading.enumerate())
    found = measure_patients(((f"p{n}", partial(load, n)) for n in itertools.count()), PIXELS, workers=1)
    next(found)
    assert begun.wait(60)
    found.close()
    assert loaded == [0, 1]
    assert not set(threading.enumerate()) - before


# tables


@pytest.fixture
def patients(rng):
    return build_patients(rng)


def test_slices_have_the_order_of_the_images(rng, patients):
    measured = measure_all(patients)
    images = list_images(patients)
    for _ in range(3):
        images = [images[at] for at in rng.permutation(len(images))]
        tables = collect([measured[at] for at in rng.permutation(len(measured))], images, PIXELS)
        assert tables.slices["image"].tolist() == tables.halves["image"].tolist() == images
        owners = list(dict.fromkeys(image.partition("_")[0] for image in images))
        assert tables.patients["patient_id"].tolist() == owners
        # the rows of bins are the patients': each has as many pixels as the patient's slices
        pixels = [12 * len(patients[owner]) for owner in owners]
        assert tables.bins[..., 0].sum(axis=1).tolist() == pixels


def test_columns(patients):
    tables = collect(measure_all(patients), list_images(patients), PIXELS)
    assert list(tables.slices) == [
        *("image", "patient_id", "slice_index", "height", "width"),
        *SLICE_COLUMNS[3:],
        *PIXELS.names,
        "brier",
        *RATIOS,
    ]
    assert list(tables.patients) == [
        *("patient_id", "slices", "tumour_slices", "reference_px", "prediction_px", "tp", "fp", "fn", "tn"),
        *RATIOS,
        *PIXELS.names,
        *("lesion_connectivity", "lesions", "lesions_detected", "lesions_predicted"),
        *("lesion_false_alarms", "lesion_dice", "brier"),
    ]
    assert tuple(tables.halves) == SLICE_COLUMNS and tuple(tables.lesions) == LESION_COLUMNS
    assert tables.bins.shape == (len(patients), BINS, 3) and tables.ruler is PIXELS
    for name, dtype in {"slice_index": "Int64", "tp": "int64", "dice": "float64", "hd95_px": "float64"}.items():
        assert tables.slices[name].dtype == dtype
    for name in ("lesions", "lesions_detected", "lesion_false_alarms", "slices"):
        assert tables.patients[name].dtype == "int64"


def test_tables_agree_with_one_another(patients):
    tables = collect(measure_all(patients), list_images(patients), PIXELS)
    by_patient = tables.slices.groupby("patient_id", sort=False)
    for name in (*PIXELS.names, "brier"):  # all slices here are of one size
        np.testing.assert_allclose(by_patient[name].mean(), tables.patients[name])
    lesions = tables.lesions.groupby("patient_id", sort=False)
    with_lesions = tables.patients.set_index("patient_id").loc[list(lesions.groups)]
    assert lesions.size().tolist() == with_lesions["lesions"].tolist()
    assert lesions["detected"].sum().tolist() == with_lesions["lesions_detected"].tolist()
    assert lesions["size_px"].sum().tolist() == with_lesions["reference_px"].tolist()
    np.testing.assert_allclose(lesions["dice"].mean(), with_lesions["lesion_dice"])


def test_patients_without_a_lesion_or_a_number(rng):
    pairs = [build_pair("s", None)]
    tables = collect([measure_patient("p", pairs, PIXELS)], ["s"], PIXELS)
    assert tables.lesions.empty and tuple(tables.lesions) == LESION_COLUMNS
    assert tables.slices["slice_index"].dtype == "Int64" and tables.slices["slice_index"].isna().all()
    assert tables.halves is None and tables.bins is None and "brier" not in tables.slices
    assert math.isnan(tables.patients["lesion_dice"][0]) and tables.patients["lesions"].tolist() == [0]


def test_probabilities_of_some_are_probabilities_of_none(rng):
    with_probs, without = build_patient(rng, 2, prefix="a"), build_patient(rng, 2, prefix="b", probabilities=False)
    half = measure_patient("p", [with_probs[0], without[1]], PIXELS)
    assert half.halves is None and half.bins is None
    measured = [measure_patient("a", with_probs, PIXELS), measure_patient("b", without, PIXELS)]
    tables = collect(measured, ["a_1", "a_2", "b_1", "b_2"], PIXELS)
    assert tables.halves is None and tables.bins is None


def test_nobody_to_measure_is_refused():
    with pytest.raises(InputError, match="no slice to measure"):
        collect([], [], PIXELS)
