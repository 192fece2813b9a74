"""A toy of three patients whose every number is worked out by hand, and what it says in special cases."""

import itertools
import json
import math

import numpy as np
import pandas as pd
import pytest

from brainseg_cli.errors import InputError, UsageError
from brainseg_cli.metrics.calibration import BINS
from brainseg_cli.metrics.measure import MaskPair, Ruler, collect, measure_patient
from brainseg_cli.metrics.summary import imagine_nothing, list_metrics, summarise_measures

IN_PX = Ruler(tolerances=(1, 6))
IN_MM = Ruler(spacing_mm=(2, 1, 3), tolerances=(1, 6))

SIZES = {"A": (6, 8), "B": (5, 12), "C": (3, 4)}  # diagonals of 10, 13 and 5 px
SLICES = {"A": (1, 2, 3), "B": (4, 5), "C": (1, 2, 3, 4)}
ORDER = ("C2", "A3", "B5", "A1", "C1", "B4", "A2", "C4", "C3")  # nobody's slices in order, nor together
PIXELS = 3 * 48 + 2 * 60 + 4 * 12
REFERENCE = {"A1": np.s_[1:3, 1:3], "A2": np.s_[1, 1], "B4": np.s_[2, [0, 1, 2, 3, 8]]}
PROBS = {
    "A1": [(np.s_[1:3, 2], 0.75), (np.s_[1:3, 3], 0.375)],  # half beside the tumour, and one 0.5 would drop
    "B4": [(np.s_[2, 0:3], 1.0)],
    "B5": [(np.s_[0, 10:12], 0.5)],  # a false alarm on an empty slice; A2 is missed; C is empty in both
}
THRESHOLD = 0.25
# reference and prediction, by slice:   tp fp fn tn    pooled: 5 4 5 298
#   A1  2 2 2 42     A2  0 0 1 47     A3  0 0 0 48
#   B4  3 0 2 55     B5  0 2 0 58     C1 to C4  0 0 0 12


def paint(name, parts):
    drawn = np.zeros(SIZES[name[0]], np.float32)
    for part, value in parts:
        drawn[part] = value
    return drawn


def reference_of(name):
    return paint(name, [(REFERENCE[name], 1)] if name in REFERENCE else []).astype(np.uint8)


def probs_of(name):
    return paint(name, PROBS.get(name, []))


def measure_toy(predict=probs_of, *, ruler=IN_PX, probabilities=True, patients="ABC", indices=None, order=ORDER):
    """The measures of `predict(name)`, float32 in [0, 1]; each patient's slices as `order` has them."""
    order = [name for name in order if name[0] in patients]
    measured = []
    for patient in patients:
        pairs = [
            MaskPair(
                name,
                (indices or {}).get(name, int(name[1])),
                reference_of(name),
                (predict(name) >= THRESHOLD).astype(np.uint8),
                predict(name) if probabilities else None,
            )
            for name in order
            if name[0] == patient
        ]
        measured.append(measure_patient(patient, pairs, ruler))
    return collect(measured, order, ruler)


def summarise(*given, **options):
    return summarise_measures(measure_toy(*given, **options), batch_size=4)


OVERLAP = {
    # A: tp 2, fp 2, fn 3; B: tp 3, fp 2, fn 2
    "dice_patient": (4 / 9 + 6 / 10) / 2,
    "dice_pooled": 10 / 19,
    "dice_slice_tumour": (4 / 8 + 0 + 6 / 8) / 3,
    "dice_slice_all": (4 / 8 + 0 + 6 / 8 + 0 + 5) / 9,
    "iou_patient": (2 / 7 + 3 / 7) / 2,
    "iou_pooled": 5 / 14,
    "iou_slice_tumour": (2 / 6 + 0 + 3 / 5) / 3,
    "iou_slice_all": (2 / 6 + 0 + 3 / 5 + 0 + 5) / 9,
    "accuracy": 303 / PIXELS,
    "sensitivity": 5 / 10,
    "specificity": 298 / 302,
    "precision": 5 / 9,
}
BATCH_SOFT = {
    # C2 A3 B5 A1: I 2, P 6, R 4; C1 B4 A2 C4: I 3, P 3, R 6; C3: nothing
    "dice_batch_soft": (5 / 11 + 7 / 10 + 1) / 3,
    "iou_batch_soft": (3 / 9 + 4 / 7 + 1) / 3,
}
BATCH_SOFT_OF_PROBS = {
    # the first: I 2 x 0.75, P 1.5 + 0.75 + 1, R 4
    "dice_batch_soft": (4 / 8.25 + 7 / 10 + 1) / 3,
    "iou_batch_soft": (2.5 / 6.75 + 4 / 7 + 1) / 3,
}
LESIONS = {
    # in 3-D: A's 2 x 2 and the pixel below it are one of 5, met by 2 of 4 px; B has one of 4, met by all of 3 px, and
    # a single pixel, missed; B's false alarm is a slice further and touches nothing
    "lesion_sensitivity": 2 / 3,
    "lesion_false_alarms_slice": 1 / 9,
    "lesion_false_alarms_patient": 1 / 3,
    "lesion_dice": (4 / 9 + 6 / 7) / 2,
}
CALIBRATION = {
    # 5 tumour pixels at 0; 2 x 0.75 of 2; 2 x 0.375 of none; 2 x 0.5 of none; 3 x 1 of 3
    "ece": (5 + 0.5 + 0.75 + 1 + 0) / PIXELS,
    "brier": (5 + 2 * 0.25**2 + 2 * 0.375**2 + 2 * 0.5**2 + 0) / PIXELS,
}
# A1: 0 0 1 1 both ways; A2: missed, 10.
# B4: 0 0 0 1 6 from the reference, place 0.95 x 4 = 3.8, so 1 + 0.8 x 5; 0 0 0 from the prediction. B5: false, 13
DISTANCES = {
    "hd95_px": ((1 + 10) / 2 + (5 + 13) / 2) / 2,
    "assd_px": ((4 / 8 + 10) / 2 + (7 / 8 + 13) / 2) / 2,
    "nsd_1px": (1 / 2 + 7 / 8 / 2) / 2,
    "nsd_6px": (1 / 2 + 1 / 2) / 2,
    "hd95_slice_px": (1 + 10 + 5 + 13) / 4,
    "assd_slice_px": (4 / 8 + 10 + 7 / 8 + 13) / 4,
    "nsd_slice_1px": (1 + 0 + 7 / 8 + 0) / 4,
    "nsd_slice_6px": (1 + 0 + 1 + 0) / 4,
}
R10, R29, R34 = map(math.sqrt, (10, 29, 34))
# 2 x 1 x 3 mm. A: the pixel of A2 is 1 column and 1 slice from the prediction: from the reference 0 0 1 1 R10, from
# the prediction 0 0 1 1. B: the single pixel is 2 rows, 2 columns and a slice from the false alarm, which is nearer
# than the 6 to the row: 0 0 0 1 R29 and, with the false alarm's second pixel, 0 0 0 R29 R34
IN_VOLUMES = {
    "hd95_mm": ((0.2 + 0.8 * R10) + (0.2 * R29 + 0.8 * R34)) / 2,
    "assd_mm": ((4 + R10) / 9 + (1 + 2 * R29 + R34) / 10) / 2,
    "nsd_1mm": (8 / 9 + 7 / 10) / 2,
    "nsd_6mm": 1.0,
    # as in pixels, for all lie along a row; the diagonals are of 12 x 8 and 10 x 12 mm
    "hd95_slice_mm": (1 + math.hypot(12, 8) + 5 + math.hypot(10, 12)) / 4,
    "assd_slice_mm": (4 / 8 + math.hypot(12, 8) + 7 / 8 + math.hypot(10, 12)) / 4,
    "nsd_slice_1mm": (1 + 7 / 8) / 4,
    "nsd_slice_6mm": (1 + 1) / 4,
}


def test_every_metric_of_masks():
    found = summarise(probabilities=False)
    assert found["metrics"] == pytest.approx(OVERLAP | BATCH_SOFT | DISTANCES | LESIONS)
    assert found["at_half"] is None and found["calibration"] is None
    assert (found["unit"], found["spacing_mm"], found["tolerances"]) == ("px", None, [1, 6])


def test_every_metric_of_probabilities():
    found = summarise()
    assert found["metrics"] == pytest.approx(OVERLAP | BATCH_SOFT_OF_PROBS | DISTANCES | LESIONS | CALIBRATION)
    assert {name: found["calibration"][name] for name in CALIBRATION} == pytest.approx(CALIBRATION)
    bins = found["calibration"]["bins"]
    assert len(bins) == BINS and sum(row["pixels"] for row in bins) == PIXELS
    # 0.75 x 15 = 11.25
    assert bins[11] == {"low": 11 / 15, "high": 12 / 15, "pixels": 2, "mean_prob": 0.75, "tumour_share": 1.0}


def test_every_metric_at_half():
    # 0.375 falls away and 0.5 stays: A1 is tp 2, fp 0, fn 2
    assert summarise()["at_half"] == pytest.approx(
        BATCH_SOFT_OF_PROBS
        | {
            "dice_patient": (4 / 7 + 6 / 10) / 2,
            "dice_pooled": 10 / 17,
            "dice_slice_tumour": (4 / 6 + 0 + 6 / 8) / 3,
            "dice_slice_all": (4 / 6 + 0 + 6 / 8 + 0 + 5) / 9,
            "iou_patient": (2 / 5 + 3 / 7) / 2,
            "iou_pooled": 5 / 12,
            "iou_slice_tumour": (2 / 4 + 0 + 3 / 5) / 3,
            "iou_slice_all": (2 / 4 + 0 + 3 / 5 + 0 + 5) / 9,
            "accuracy": 305 / PIXELS,
            "sensitivity": 5 / 10,
            "specificity": 300 / 302,
            "precision": 5 / 7,
        }
    )


def test_every_metric_in_mm():
    found = summarise(ruler=IN_MM)
    assert found["metrics"] == pytest.approx(OVERLAP | BATCH_SOFT_OF_PROBS | IN_VOLUMES | LESIONS | CALIBRATION)
    assert (found["unit"], found["spacing_mm"]) == ("mm", [2, 1, 3])


def test_intervals():
    """A and B have tumour, C has none: a resample defines dice_patient unless it is C three times, 1 in 27.

    A without B, or B without A, is drawn 7 times in 27, far more than the 2.5 % of a tail: the interval runs from the
    one's value to the other's.
    """
    found = summarise()
    intervals = found["intervals"]
    assert [name for name, interval in intervals.items() if interval is None] == ["dice_batch_soft", "iou_batch_soft"]
    for name, of_a, of_b in (
        ("dice_patient", 4 / 9, 6 / 10),
        ("dice_pooled", 4 / 9, 6 / 10),
        ("precision", 2 / 4, 3 / 5),
        ("hd95_px", 5.5, 9),
        ("hd95_slice_px", 5.5, 9),
        ("lesion_sensitivity", 1 / 2, 1),
        ("lesion_dice", 4 / 9, 6 / 7),
    ):
        assert intervals[name] == pytest.approx([of_a, of_b]), name
    # of these C has a value, too; three times C is more than a tail, as is three times B
    assert intervals["lesion_false_alarms_patient"] == [0, 1]
    assert intervals["brier"][0] == 0 and intervals["ece"][0] == 0
    assert intervals["brier"][1] == pytest.approx((2 * 0.375**2 + 2 * 0.25**2 + 3) / 144)  # A alone, B being 2.5 / 120
    assert intervals["ece"][1] == pytest.approx((3 + 0.5 + 0.75) / 144)  # A alone, B being (2 + 1) / 120
    assert found["interval_method"] == "95 % percentile bootstrap over patients, 10000 resamples, seed 0"


def test_no_interval_where_fewer_than_two_patients_contribute():
    intervals = summarise(patients="BC")["intervals"]
    # C has pixels, slices and probabilities, but no tumour, no lesion and no distance
    assert {name for name, interval in intervals.items() if interval is not None} == {
        *("dice_slice_all", "iou_slice_all", "accuracy", "specificity", "ece", "brier"),
        *("lesion_false_alarms_slice", "lesion_false_alarms_patient"),
    }
    assert not any(summarise(patients="B")["intervals"].values())


def test_what_is_left_out_or_counts_as_a_diagonal():
    in_px, in_mm = summarise(), summarise(ruler=IN_MM)
    names = [name.partition("px")[0] for name in DISTANCES]
    on_slices, on_patients = [name for name in names if "slice" in name], [n for n in names if "slice" not in n]
    for found, unit in ((in_px, "px"), (in_mm, "mm")):
        assert found["left_out"] == {
            **{name: {"patients_without_tumour": 1} for name in ("dice_patient", "iou_patient")},
            **{name: {"slices_without_tumour": 6} for name in ("dice_slice_tumour", "iou_slice_tumour")},
            **{
                name + unit: {"patients_empty_in_both": 1} | ({"slices_empty_in_both": 5} if unit == "px" else {})
                for name in on_patients
            },
            **{name + unit: {"slices_empty_in_both": 5} for name in on_slices},
            "lesion_dice": {"lesions_missed": 1},
        }
    # A2 and B5; no patient was missed whole
    in_slices = {"missed": 1, "false_alarm": 1, "of": "slices"}
    in_patients = {"missed": 0, "false_alarm": 0, "of": "patients"}
    assert in_px["one_empty"] == {name + "px": in_slices for name in names}
    assert in_mm["one_empty"] == {name + "mm": in_slices if "slice" in name else in_patients for name in names}


def test_counted_and_lesions():
    found = summarise()
    assert found["counted"] == {
        "patients": 3,
        "patients_with_tumour": 2,
        "slices": 9,
        "slices_with_tumour": 3,
        "slices_with_false_alarm": 1,
        "slices_empty_and_empty": 5,
        "batches": 3,
        "batch_size": 4,
        "pixels": PIXELS,
        "tumour_px": 10,
        "prediction_px": 9,
    }
    none = {"reference": 0, "detected": 0, "dice": None}
    assert found["lesions"] == {
        "connectivity": {"26": 3},
        "reference": 3,
        "detected": 2,
        "predicted": 3,
        "false_alarms": 1,
        "by_size": [
            {"size_px": "1-9", "reference": 3, "detected": 2, "dice": pytest.approx(LESIONS["lesion_dice"])},
            *({"size_px": size, **none} for size in ("10-99", "100-999", "1000+")),
        ],
    }


@pytest.mark.parametrize("ruler", [Ruler(), Ruler((2, 1, 3), (0.5,)), Ruler(tolerances=())])
@pytest.mark.parametrize("probabilities", [True, False])
@pytest.mark.parametrize("patients", ["ABC", "C"])
def test_the_names_are_known_before_anything_is_measured(ruler, probabilities, patients):
    found = summarise(ruler=ruler, probabilities=probabilities, patients=patients)
    names = list_metrics(ruler, probabilities=probabilities)
    for key in ("metrics", "intervals", "find_nothing", "definitions"):
        assert list(found[key]) == names, key
    assert names[0] == "dice_patient" and len(set(names)) == len(names)
    assert ("ece" in names) == ("brier" in names) == probabilities
    assert [name for name in names if name.startswith("nsd")] == [
        f"nsd_{of}{tolerance:g}{ruler.unit}" for of in ("", "slice_") for tolerance in ruler.tolerances
    ]
    assert found["one_empty"].keys() <= set(names) and found["left_out"].keys() <= set(names)
    assert all(text and text.endswith(".") for text in found["definitions"].values())
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_the_names_without_a_word_from_anybody():
    assert list_metrics(Ruler(), probabilities=True) == [
        *("dice_patient", "dice_pooled", "dice_slice_tumour", "dice_slice_all", "dice_batch_soft"),
        *("iou_patient", "iou_pooled", "iou_slice_tumour", "iou_slice_all", "iou_batch_soft"),
        *("accuracy", "sensitivity", "specificity", "precision"),
        *("hd95_px", "assd_px", "nsd_1px", "nsd_2px"),
        *("hd95_slice_px", "assd_slice_px", "nsd_slice_1px", "nsd_slice_2px"),
        *("lesion_sensitivity", "lesion_false_alarms_slice", "lesion_false_alarms_patient", "lesion_dice"),
        *("ece", "brier"),
    ]


def test_the_order_of_slices_and_patients_changes_the_batches_alone():
    expected = summarise()
    for order, patients in itertools.product((sorted(ORDER), ORDER[::-1]), ("ABC", "BCA")):
        found = summarise(patients=patients, order=order)
        for key in ("metrics", "find_nothing"):
            same = {name: value for name, value in expected[key].items() if "batch" not in name}
            assert {name: found[key][name] for name in same} == pytest.approx(same)
        assert found["counted"] == expected["counted"] and found["lesions"] == expected["lesions"]


def test_a_patient_whose_slices_have_a_gap_is_taken_slice_by_slice():
    found = summarise(indices={"A3": 4})
    # A's 2 x 2 (2 of 4 px met by 4) and the pixel of A2, missed, are two lesions now
    assert found["metrics"] == pytest.approx(
        summarise()["metrics"] | {"lesion_sensitivity": 2 / 4, "lesion_dice": (4 / 8 + 6 / 7) / 2}
    )
    assert found["lesions"]["connectivity"] == {"26": 2, "8": 1}
    for name in LESIONS:
        text = found["definitions"][name]
        assert text.startswith(summarise()["definitions"][name])
        assert text.endswith("Where a patient's slices are no volume it is an 8-connected component of one slice.")


def test_where_nobody_has_a_volume_lesions_are_of_slices():
    found = summarise(indices={"A3": 4, "B4": 1, "C1": None})
    assert found["lesions"]["connectivity"] == {"8": 3}
    for name in LESIONS:
        text = found["definitions"][name]
        assert "8-connected component of one slice" in text and "26" not in text


# The three predictions whose every number follows from the reference alone.


def mark_nothing(name):
    return np.zeros(SIZES[name[0]], np.float32)


def mark_everything(name):
    return np.ones(SIZES[name[0]], np.float32)


def mark_the_reference(name):
    return reference_of(name).astype(np.float32)


def name_distances(unit, kinds):
    return [f"{kind}_{of}" + (f"{t}{unit}" if t else unit) for of in ("", "slice_") for kind, t in kinds]


FAR, NEAR = (("hd95", ""), ("assd", "")), (("nsd", 1), ("nsd", 6))
NOTHING = {
    **dict.fromkeys([name for name in OVERLAP if name.startswith(("dice", "iou"))], 0),
    **dict.fromkeys(("dice_slice_all", "iou_slice_all"), 6 / 9),  # the empty slices
    **dict.fromkeys(BATCH_SOFT, (1 / 5 + 1 / 7 + 1) / 3),  # 1 / (R + 1), with 4, 6 and 0 pixels of tumour
    "accuracy": 1 - 10 / PIXELS,
    "sensitivity": 0,
    "specificity": 1,
    "precision": None,
    **dict.fromkeys(("lesion_sensitivity", "lesion_false_alarms_slice", "lesion_false_alarms_patient"), 0),
    "lesion_dice": None,
    **dict.fromkeys(CALIBRATION, 10 / PIXELS),  # the share of tumour
}
NOTHING_FAR = {
    # the diagonals of slices with tumour, A A B; of the volumes 9 x 12 x 8 and 6 x 10 x 12 mm
    "px": {"patient": (10 + 13) / 2, "slice": (10 + 10 + 13) / 3},
    "mm": {
        "patient": (17 + math.sqrt(280)) / 2,
        "slice": (2 * math.hypot(12, 8) + math.hypot(10, 12)) / 3,
    },
}


@pytest.mark.parametrize("ruler", [IN_PX, IN_MM])
@pytest.mark.parametrize("probabilities", [True, False])
def test_finding_nothing(ruler, probabilities):
    far = {
        name: NOTHING_FAR[ruler.unit]["slice" if "slice" in name else "patient"]
        for name in name_distances(ruler.unit, FAR)
    }
    expected = NOTHING | far | dict.fromkeys(name_distances(ruler.unit, NEAR), 0)
    if not probabilities:
        expected = {name: value for name, value in expected.items() if name not in CALIBRATION}
    found = summarise(mark_nothing, ruler=ruler, probabilities=probabilities)
    assert found["metrics"] == pytest.approx(expected)
    assert found["find_nothing"] == pytest.approx(found["metrics"])
    for predict in (probs_of, mark_everything):
        other = summarise(predict, ruler=ruler, probabilities=probabilities)
        assert other["find_nothing"] == pytest.approx(expected)
    of = {"px": ("slices", 3), "mm": ("patients", 2)}[ruler.unit]  # A1, A2, B4; A, B
    assert found["one_empty"][f"hd95_{ruler.unit}"] == {"missed": of[1], "false_alarm": 0, "of": of[0]}
    assert found["lesions"]["predicted"] == found["lesions"]["false_alarms"] == 0
    assert found["left_out"]["lesion_dice"] == {"lesions_missed": 3}


@pytest.mark.parametrize("ruler", [IN_PX, IN_MM])
def test_nothing_is_imagined_as_it_would_be_measured(ruler):
    imagined, measured = imagine_nothing(measure_toy(ruler=ruler)), measure_toy(mark_nothing, ruler=ruler)
    for found, expected in ((imagined.slices, measured.slices), (imagined.patients, measured.patients)):
        columns = [name for name in expected if name in found]
        assert set(expected) - set(columns) <= {"height", "width", "brier"}  # of slices; nothing reads these again
        pd.testing.assert_frame_equal(found[columns], expected[columns])
    assert "brier" in imagined.patients
    np.testing.assert_array_equal(imagined.bins, measured.bins)


@pytest.mark.parametrize("ruler", [IN_PX, IN_MM])
@pytest.mark.parametrize("probabilities", [True, False])
def test_the_reference_itself(ruler, probabilities):
    found = summarise(mark_the_reference, ruler=ruler, probabilities=probabilities)
    zero = {*name_distances(ruler.unit, FAR), "lesion_false_alarms_slice", "lesion_false_alarms_patient", *CALIBRATION}
    expected = {name: 0 if name in zero else 1 for name in list_metrics(ruler, probabilities=probabilities)}
    assert found["metrics"] == expected
    assert found["intervals"] == {
        name: None if "batch_soft" in name else [value, value] for name, value in expected.items()
    }
    assert not any(count["missed"] or count["false_alarm"] for count in found["one_empty"].values())
    assert found["lesions"]["detected"] == found["lesions"]["predicted"] == found["lesions"]["reference"] == 3


def measure_to_border(reference, steps):
    """hd95, assd, nsd_1 and nsd_6 of a reference and a mask of all its pixels, whose surface is the border.

    No reference here has an inner pixel, so that all its pixels are surface.
    """
    outline = np.ones(reference.shape)
    outline[(slice(1, -1),) * reference.ndim] = 0
    inside, border = (np.argwhere(mask) * steps for mask in (reference, outline))
    one, other = ([min(math.dist(p, q) for q in to) for p in of] for of, to in ((inside, border), (border, inside)))
    hd95 = max(np.percentile(one, 95), np.percentile(other, 95))
    return np.array([hd95, np.mean(one + other), *(np.mean(np.array(one + other) <= t) for t in (1, 6))])


def count_missed(diagonal):
    return np.array([diagonal, diagonal, 0, 0])


def test_marking_everything():
    found = summarise(mark_everything)
    share = 10 / PIXELS
    a1, a2, b4 = (measure_to_border(reference_of(name), (1, 1)) for name in ("A1", "A2", "B4"))
    a3, b5, c = map(count_missed, (10, 13, 5))  # empty slices are false alarms, each at its diagonal
    of_patients = ((a1 + a2 + a3) / 3 + (b4 + b5) / 2 + c) / 3
    of_slices = (a1 + a2 + a3 + b4 + b5 + 4 * c) / 9
    assert found["metrics"] == pytest.approx(
        {
            # A and B: 5 px of 144 and of 120; their slices: 4 of 48, 1 of 48, 5 of 60
            "dice_patient": (10 / 149 + 10 / 125) / 2,
            "dice_pooled": 20 / (10 + PIXELS),
            "dice_slice_tumour": (8 / 52 + 2 / 49 + 10 / 65) / 3,
            "dice_slice_all": (8 / 52 + 2 / 49 + 10 / 65) / 9,
            # P is 168 with R = I = 4, 132 with 6, 12 with 0
            "dice_batch_soft": (9 / 173 + 13 / 139 + 1 / 13) / 3,
            "iou_patient": (5 / 144 + 5 / 120) / 2,
            "iou_pooled": share,
            "iou_slice_tumour": (4 / 48 + 1 / 48 + 5 / 60) / 3,
            "iou_slice_all": (4 / 48 + 1 / 48 + 5 / 60) / 9,
            "iou_batch_soft": (5 / 169 + 7 / 133 + 1 / 13) / 3,
            "accuracy": share,
            "sensitivity": 1,
            "specificity": 0,
            "precision": share,
            **dict(zip(DISTANCES, [*of_patients, *of_slices], strict=True)),
            # one component a volume, false where there is no tumour: in C
            "lesion_sensitivity": 1,
            "lesion_false_alarms_slice": 1 / 9,
            "lesion_false_alarms_patient": 1 / 3,
            "lesion_dice": (10 / 149 + 8 / 124 + 2 / 121) / 3,
            "ece": 1 - share,
            "brier": 1 - share,
        }
    )
    assert found["one_empty"]["hd95_px"] == {"missed": 0, "false_alarm": 6, "of": "slices"}
    assert found["left_out"]["hd95_px"] == {"slices_empty_in_both": 0, "patients_empty_in_both": 0}
    assert found["left_out"]["hd95_slice_px"] == {"slices_empty_in_both": 0}


def test_marking_everything_in_mm():
    found = summarise(mark_everything, ruler=IN_MM)
    a, b = (
        measure_to_border(np.stack([reference_of(f"{patient}{n}") for n in SLICES[patient]]), (3, 2, 1))
        for patient in "AB"
    )
    c = count_missed(14)  # 12 x 6 x 4
    a1, a2, b4 = (measure_to_border(reference_of(name), (2, 1)) for name in ("A1", "A2", "B4"))
    a3, b5, c_slice = map(count_missed, (math.hypot(12, 8), math.hypot(10, 12), math.hypot(6, 4)))
    expected = [*(a + b + c) / 3, *(a1 + a2 + a3 + b4 + b5 + 4 * c_slice) / 9]
    assert [found["metrics"][name] for name in IN_VOLUMES] == pytest.approx(expected)
    assert found["one_empty"]["hd95_mm"] == {"missed": 0, "false_alarm": 1, "of": "patients"}
    in_px = summarise(mark_everything)["metrics"]
    for name in (name for name in in_px if name not in DISTANCES):
        assert found["metrics"][name] == in_px[name]


def test_nobody_has_tumour_and_none_is_found():
    found = summarise(patients="C")
    ones = {"dice_slice_all", "iou_slice_all", "dice_batch_soft", "iou_batch_soft", "accuracy", "specificity"}
    zero = {"lesion_false_alarms_slice", "lesion_false_alarms_patient", "ece", "brier"}
    expected = {name: 1 if name in ones else 0 if name in zero else None for name in found["metrics"]}
    assert found["metrics"] == found["find_nothing"] == expected


def test_a_spacing_needs_volumes():
    for options in ({"indices": {"B5": 7}}, {"indices": {"B4": None}}, {"indices": {"B4": 5}}):
        with pytest.raises(InputError, match="B: its slices are no volume"):
            summarise(ruler=IN_MM, **options)


def test_a_batch_of_none_is_refused():
    with pytest.raises(UsageError, match="batch of 0"):
        summarise_measures(measure_toy(), batch_size=0)
