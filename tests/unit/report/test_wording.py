"""Numbers as people read them, and the sentences about what was counted."""

import math
from typing import Any

import pytest
from report_sample import build_sample

from brainseg_cli.report import wording
from brainseg_cli.report.wording import Kind, format_interval, format_number, format_value, group_metrics, kind_of


@pytest.mark.parametrize(
    ("value", "kind", "told"),
    [
        (0.8427634, "share", "0.843"),
        (0.5, "share", "0.500"),
        (0.0, "share", "0"),
        (1.0, "share", "1"),
        (0.99987654, "share", "0.99987"),  # never rounded to 1, which it is not
        (0.00071234, "share", "0.000712"),
        (-0.0123, "share", "−0.012"),
        (362.038, "distance", "362.0"),
        (4.728, "distance", "4.73"),
        (0.4261, "distance", "0.426"),
        (0.0, "distance", "0"),
        (1.25, "rate", "1.25"),
        (0.031712, "rate", "0.0317"),
        (9999, "count", "9999"),
        (31064064, "count", "31\u202f064\u202f064"),
        (None, "share", "–"),
        (math.nan, "distance", "–"),
    ],
)
def test_a_number_has_three_or_four_digits(value: float | None, kind: Kind, told: str) -> None:
    assert format_number(value, kind) == told


def test_a_difference_has_its_sign() -> None:
    assert format_number(0.0123, signed=True) == "+0.012"
    assert format_number(0.0, signed=True) == "0"
    assert format_interval([-0.0312, 0.07], signed=True) == "−0.031 to +0.070"
    assert format_interval([17.3, 112.25], "distance") == "17.30 to 112.2"
    assert format_interval(None) == "–"


def test_kinds_go_by_the_name() -> None:
    names = ("dice_patient", "hd95_slice_px", "assd_mm", "nsd_1px", "lesion_false_alarms_slice", "lesion_dice", "ece")
    assert [kind_of(name) for name in names] == ["share", "distance", "distance", "share", "rate", "share", "share"]


def test_families_keep_every_metric() -> None:
    names = ["ece", "iou_pooled", "dice_patient", "made_up", "hd95_px", "lesion_dice", "accuracy", "dice_pooled"]
    groups = group_metrics(names)
    assert list(groups) == ["Dice", "IoU", "Pixels", "Distance", "Lesions", "Calibration", "Other"]
    assert groups["Dice"] == ["dice_patient", "dice_pooled"]
    assert groups["Other"] == ["made_up"]
    assert sorted(name for members in groups.values() for name in members) == sorted(names)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (True, "yes"),
        (None, "none"),
        ([64, 32.0], "64, 32"),
        ([], "none"),
        (1e-3, "0.001"),
        (0.9999999, "1"),
        ("adamw", "adamw"),
    ],
)
def test_settings_are_words(value: Any, told: str) -> None:
    assert format_value(value) == told


def test_a_run_and_two_folders_are_called_by_name() -> None:
    summary = build_sample().summary
    assert wording.tell_what(summary) == "unet-a"
    assert wording.tell_where(summary) == "test split; epoch 7; threshold 0.437, chosen on val"
    folders = {"reference": "/data/kaggle", "prediction": "..", "split": None, "threshold": None}
    assert wording.tell_what(folders) == ".. against kaggle"
    assert wording.tell_where(folders) == ""
    assert wording.tell_where(folders | {"threshold": 0.25, "threshold_from": "given"}) == "threshold 0.25, as given"


def test_what_is_left_out_is_told_once_for_all_it_concerns() -> None:
    excluded = {"patients_without_tumour": 1, "others": 12345}
    summary = {
        "left_out": {"dice_patient": excluded, "iou_patient": excluded, "hd95_px": {"slices": 0}},
        "one_empty": {
            "hd95_px": {"missed": 3, "false_alarm": 0, "of": "slices"},
            "assd_px": {"missed": 3, "false_alarm": 0, "of": "slices"},
            "hd95_mm": {"missed": 0, "false_alarm": 0, "of": "patients"},
        },
    }
    assert wording.tell_left_out(summary) == [
        ("dice_patient, iou_patient", "patients without tumour (1), others (12\u202f345)")
    ]
    ((names, told),) = wording.tell_one_empty(summary)
    assert names == "hd95_px, assd_px"
    assert told == "slices where nothing was predicted (3), or where there was nothing to find (0)"


def test_lesions_are_defined_by_what_was_connected() -> None:
    both = {"lesions": {"connectivity": {"26": 11, "8": 2}}}
    assert wording.tell_lesions(both) == (
        "Lesions are 26-connected in 3-D (patients: 11) or 8-connected within a slice (patients: 2)."
    )
