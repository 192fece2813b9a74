"""An evaluation made up for the tests of the report: small masks, tables counted from them, and a summary of schema 2.

The numbers that are not counted are drawn, not measured; that they are right is for the tests of the metrics.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from brainseg_cli.metrics.aggregate import add_ratios, sum_by_patient
from brainseg_cli.metrics.counts import compute_counts
from brainseg_cli.report.pictures import Picture, choose_pictures

HEIGHT, WIDTH = 40, 56
PATIENTS = ("P_1", "P_2", "P_10", "P_11", "without_tumour")
SLICES_EACH = 27
METRICS = (
    *("dice_patient", "dice_pooled", "dice_slice_all", "dice_batch_soft", "iou_patient", "accuracy", "sensitivity"),
    *("hd95_px", "nsd_1px", "lesion_sensitivity", "lesion_false_alarms_slice", "ece", "brier"),
)


@dataclass(frozen=True)
class Sample:
    """What `render_html` is given."""

    summary: dict[str, Any]
    slices: pd.DataFrame
    patients: pd.DataFrame
    pictures: list[Picture]


def build_sample(patients: Sequence[str] = PATIENTS, *, count: int = 4, **changes: Any) -> Sample:
    """Slices of these patients, the last one without tumour; `count` pictures of either kind.

    A patient's slices are found ever less well: the first is found whole, the last two are missed, and where there is
    no tumour one slice is a false alarm. `changes` replace parts of the summary.
    """
    rng = np.random.default_rng(20240229)
    masks = {
        f"{name}/{name}_{at + 1}": (name, at, *_draw_masks(at, has_tumour=name != patients[-1]))
        for name in patients
        for at in range(SLICES_EACH)
    }
    rows = [
        {"image": image, "patient_id": name, "slice_index": at + 1, "height": HEIGHT, "width": WIDTH}
        | compute_counts(reference, prediction)._asdict()
        for image, (name, at, reference, prediction) in masks.items()
    ]
    slices = add_ratios(pd.DataFrame(rows))
    counts = slices[["tp", "fp", "fn"]].to_numpy(np.float64)
    soft = {"soft_intersection": counts[:, 0], "soft_prediction": counts[:, 0] + counts[:, 1]}
    slices = slices.assign(**soft, soft_reference=counts[:, 0] + counts[:, 2])
    table = sum_by_patient(slices)
    for measured in (slices, table):
        measured["hd95_px"] = np.where(measured["tp"] + measured["fn"] == 0, np.nan, rng.uniform(0, 20, len(measured)))
        measured["brier"] = rng.uniform(0, 0.02, len(measured))
    chosen = choose_pictures(slices, count)
    pictures = []
    for at, (kind, image) in enumerate(chosen):
        name, place, reference, prediction = masks[image]
        dice = slices.loc[slices["image"] == image, "dice"].item()
        shown = None if at == 1 else rng.integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        pictures.append(Picture(kind, image, name, place + 1, float(dice), shown, reference, prediction))
    return Sample(_summarise(slices, table, rng) | changes, slices, table, pictures)


def _draw_masks(at: int, *, has_tumour: bool) -> tuple[np.ndarray, np.ndarray]:
    reference, prediction = np.zeros((2, HEIGHT, WIDTH), np.uint8)
    if has_tumour and at % 3 != 2:
        reference[10:24, 8:20] = 1
        if at < SLICES_EACH - 2:
            prediction[10:24, 8 + at // 4 : 20 + at // 4] = 1
    elif at == 5:
        prediction[30:33, 40:44] = 1
    return reference, prediction


def _summarise(slices: pd.DataFrame, patients: pd.DataFrame, rng: np.random.Generator) -> dict[str, Any]:
    metrics: dict[str, float | None] = {name: float(rng.uniform(0.3, 0.9)) for name in METRICS}
    metrics["dice_patient"] = float(patients["dice"].iloc[:-1].mean())
    metrics |= {"hd95_px": 123.456789, "nsd_1px": None, "ece": 0.00071234567}
    intervals = {name: None if value is None else [0.9 * value, 1.05 * value] for name, value in metrics.items()}
    tumour = slices["tp"] + slices["fn"] > 0
    half = {name: 0.99 * metrics[name] for name in METRICS if name.startswith(("dice", "iou", "acc", "sens"))}
    return {
        "schema_version": 2,
        "brainseg_version": "0.9.9",
        "headline": "dice_patient",
        "run": "unet-a",
        "epoch": 7,
        "dataset_hash": "f51b70af48ee7153",
        "split": "test",
        "split_name": "70/15/15",
        "split_hash": "ad97fd5fcf1c619b",
        "leaky": False,
        "threshold": 0.437,
        "threshold_from": "val",
        "batch_soft_input": "probabilities",
        "torch_version": "2.9",
        "device": "cpu",
        "configuration": {"model": {"encoder": "resnet18", "decoder_channels": [64, 32]}, "train": {"compile": False}},
        "spacing_mm": None,
        "tolerances": [1],
        "unit": "px",
        "metrics": metrics,
        "intervals": intervals | {"dice_batch_soft": None},
        "find_nothing": dict.fromkeys(METRICS, 0.0) | {"dice_slice_all": 0.4567, "hd95_px": 68.8},
        "definitions": {name: f"What {name} says." for name in METRICS},
        "left_out": {"dice_patient": {"patients_without_tumour": 1}, "hd95_px": {"slices_empty_in_both": 0}},
        "one_empty": {"hd95_px": {"missed": 8, "false_alarm": 1, "of": "slices"}},
        "counted": {
            "patients": len(patients),
            "patients_with_tumour": len(patients) - 1,
            "slices": len(slices),
            "slices_with_tumour": int(tumour.sum()),
            "pixels": int(slices[["tp", "fp", "fn", "tn"]].to_numpy().sum()),
        },
        "interval_method": "95 % percentile bootstrap over patients",
        "at_half": half,
        "lesions": {
            "connectivity": {"26": len(patients)},
            "reference": 9,
            "detected": 6,
            "predicted": 8,
            "false_alarms": 2,
            "by_size": [
                {"size_px": "1-9", "reference": 2, "detected": 0, "dice": None},
                {"size_px": "10-99", "reference": 7, "detected": 6, "dice": 0.71234},
            ],
        },
        "calibration": {"ece": metrics["ece"], "brier": metrics["brier"], "bins": _draw_bins()},
        "threshold_sweep": [
            {"threshold": at / 20, "dice_patient": 0.8 - (at / 20 - 0.437) ** 2, "dice_pooled": 0.7 + at / 200}
            for at in range(1, 20)
        ],
        "subgroups": {
            "institution": [
                {
                    "group": group,
                    "patients": 2,
                    "patients_with_tumour": 2,
                    "slices": 54,
                    "metrics": {"dice_patient": 0.7 + shift, "hd95_px": None},
                    "intervals": {"dice_patient": [0.6, 0.95], "hd95_px": None},
                }
                for group, shift in (("CS", 0.0), ("DU", 0.1))
            ],
            "tumour size": [],
        },
        "comparison": None,
        "gates": [],
        "unmatched": {"references": [], "predictions": []},
        "notes": [],
    }


def build_comparison(patients: Sequence[str] = PATIENTS) -> dict[str, Any]:
    """A comparison as the summary holds it."""
    differences = np.linspace(-0.04, 0.1, len(patients)).tolist()
    row = {"a": 0.81, "b": 0.78, "difference": 0.03, "interval": [-0.012, 0.071]}
    paired = {"pairs": 5, "wins": 3, "ties": 0, "losses": 2, "mean_difference": 0.03, "median_difference": 0.02}
    return {
        "a": "unet-a",
        "b": "unet-b",
        "b_about": {"split": "test", "epoch": 9, "threshold": 0.5, "threshold_from": "default"},
        "leaky": False,
        "metrics": {"dice_patient": row, "hd95_px": row | {"interval": None}},
        "patients": {"dice_patient": paired | {"wilcoxon_p": 0.21875}},
        "by_patient": [
            {"patient_id": name, "a": 0.8, "b": 0.8 - difference, "difference": difference}
            for name, difference in zip(patients, differences, strict=True)
        ],
        "by_group": {"institution": [{"group": "CS", "patients": 2} | row]},
    }


def _draw_bins() -> list[dict[str, Any]]:
    bins = [
        {"low": at / 10, "high": (at + 1) / 10, "pixels": 10 ** (6 - at // 2), "mean_prob": at / 10 + 0.05}
        | {"tumour_share": min(1.0, at / 10 + 0.02)}
        for at in range(10)
    ]
    bins[6] |= {"pixels": 0, "mean_prob": None, "tumour_share": None}
    return bins
