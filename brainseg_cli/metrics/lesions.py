"""Lesions: connected components of a reference, which of them a prediction finds, and what it finds beside them."""

from typing import Literal, NamedTuple

import cc3d
import numpy as np
import numpy.typing as npt

from brainseg_cli.errors import InputError
from brainseg_cli.metrics import counts
from brainseg_cli.metrics.masks import check_masks, find_box
from brainseg_cli.types import Json, Mask

Connectivity = Literal[8, 26]
"""8: slice by slice, edges and corners touch. 26: through a patient's volume, faces, edges and corners touch."""

Labels = npt.NDArray[np.integer]

SIZE_CLASSES = ("1-9", "10-99", "100-999", "1000+")
SMALL_TABLE = 1 << 16
_LEAST_PX = (1, 10, 100, 1000)

DEFINITIONS: dict[str, str] = {
    "lesion_sensitivity": "Share of the reference's lesions, all together, of which the prediction marks "
    "at least one pixel.",
    "lesion_false_alarms_slice": "Predicted lesions that touch no reference tumour, per slice.",
    "lesion_false_alarms_patient": "Predicted lesions that touch no reference tumour, per patient.",
    "lesion_dice": "Mean over the detected lesions of the dice between the lesion and all predicted lesions, whole, "
    "that touch it.",
}
_LESION = {
    8: "A lesion is an 8-connected component of one slice; one that runs through several slices counts in each.",
    26: "A lesion is a 26-connected component of the volume that a patient's slices make; a pixel is a voxel.",
}


class Lesions(NamedTuple):
    """The n lesions of a reference, by their first pixel in reading order, and the components of a prediction."""

    sizes: npt.NDArray[np.int64]
    """(n,) px (voxels in a volume)."""
    detected: npt.NDArray[np.bool_]
    """(n,) at least one predicted pixel lies in the lesion."""
    dice: npt.NDArray[np.float64]
    """(n,) in (0, 1], against the union of all predicted components that touch the lesion; NaN where not detected."""
    predicted: int
    """How many components the prediction has."""
    false_alarms: int
    """How many of them touch no reference tumour."""


def compute_lesions(reference: Mask, prediction: Mask) -> Lesions:
    """Match the components of two masks, (H, W) 8-connected or three-dimensional 26-connected, of one shape.

    Masks are bool or integer, not 0 is tumour. A predicted component counts whole for every lesion it touches, so one
    that joins two lesions lowers the dice of both. An empty reference has no lesions, and all that is predicted is a
    false alarm; nothing predicted detects nothing; arrays without pixels have neither. InputError where the shapes
    differ, have other than 2 or 3 axes, or an array is no mask but floating-point. The dice is that of BraTS 2023
    (Moawad et al., arXiv 2306.00838), without its dilation of the reference before lesions are told apart.
    """
    check_masks(reference, prediction)
    if reference.ndim not in (2, 3):
        raise InputError(f"lesions are told apart in 2 or 3 dimensions, the masks have {reference.ndim}")
    in_reference, in_prediction = reference != 0, prediction != 0
    box = find_box(in_reference | in_prediction)  # most of a slice has no tumour to label
    in_reference, in_prediction = in_reference[box], in_prediction[box]
    (reference_labels, n), (prediction_labels, predicted) = _label(in_reference), _label(in_prediction)
    of_reference, of_prediction = reference_labels.ravel(), prediction_labels.ravel()
    inside = np.flatnonzero(in_reference)
    sizes = np.bincount(of_reference[inside], minlength=n + 1)
    predicted_sizes = np.bincount(of_prediction[np.flatnonzero(in_prediction)], minlength=predicted + 1)
    both = inside[of_prediction[inside] > 0]
    lesion, component, shared_px = _count_pairs(of_reference[both], of_prediction[both], predicted + 1)
    tp = np.bincount(lesion, shared_px, minlength=n + 1)
    touching_px = np.bincount(lesion, predicted_sizes[component], minlength=n + 1)

    detected = tp[1:] > 0
    dice = np.where(detected, counts.dice(tp, touching_px - tp, sizes - tp)[1:], np.nan)
    return Lesions(sizes[1:], detected, dice, predicted, predicted - len(np.unique(component)))


def _count_pairs(
    of_reference: Labels, of_prediction: Labels, base: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Which labels meet, and in how many pixels: (k,) each. `base` is above every label of the prediction."""
    of_pixel = of_reference.astype(np.int64) * base + of_prediction
    if of_pixel.size and of_pixel.max() <= SMALL_TABLE:
        table = np.bincount(of_pixel)
        pairs = np.flatnonzero(table)
        shared_px = table[pairs]
    else:  # a table of all pairs could be as large as the image squared; only pairs that meet are listed
        pairs, shared_px = np.unique(of_pixel, return_counts=True)
    lesion, component = np.divmod(pairs, base)
    return lesion, component, shared_px


def count_by_size(sizes: npt.ArrayLike, detected: npt.ArrayLike, dice: npt.ArrayLike) -> list[Json]:
    """Lesions of any number of slices or patients, as `compute_lesions` lists them, by class of size.

    One row for each of SIZE_CLASSES: size_px, reference (how many), detected (how many of them), and dice (mean over
    those detected, None where there are none). No lesions give zeros and None.
    """
    sizes, detected, dice = np.asarray(sizes), np.asarray(detected, dtype=bool), np.asarray(dice, dtype=np.float64)
    of_lesion = np.searchsorted(_LEAST_PX, sizes, side="right") - 1
    rows: list[Json] = []
    for at, size_px in enumerate(SIZE_CLASSES):
        here = of_lesion == at
        found = dice[here & detected]
        mean = float(found.mean()) if found.size else None
        rows.append({"size_px": size_px, "reference": int(here.sum()), "detected": found.size, "dice": mean})
    return rows


def describe_lesions(connectivity: Connectivity) -> dict[str, str]:
    """DEFINITIONS, each followed by what a lesion is."""
    return {name: f"{text} {_LESION[connectivity]}" for name, text in DEFINITIONS.items()}


def _label(mask: npt.NDArray[np.bool_]) -> tuple[Labels, int]:
    """Components that touch at corners too, numbered from 1 in reading order, and how many."""
    if not mask.size:
        return np.zeros(mask.shape, np.int32), 0
    # a slice is labelled as a volume of one: in two dimensions cc3d numbers by columns. As uint8, because of a bool
    # array it makes a guess of how many labels it will need, and gives up on small ones where the guess was low
    volume = np.ascontiguousarray(mask).reshape((-1, *mask.shape[-2:])).view(np.uint8)
    labels, found = cc3d.connected_components(volume, connectivity=26, return_N=True)
    return labels.reshape(mask.shape), int(found)
