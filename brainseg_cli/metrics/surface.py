"""How far apart the outlines of two masks are: hd95, assd and nsd, in pixels or in the unit of the spacing.

The surface of a mask are its tumour pixels that have background, or the border of the array, as a face neighbour
(4 in 2-D, 6 in 3-D). A distance is that between pixel centres, Euclidean, exact.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.spatial import KDTree
from scipy.spatial.distance import cdist

from brainseg_cli.errors import InputError
from brainseg_cli.metrics.masks import check_masks, find_box

BinaryMask = npt.NDArray[Any]
"""2-D (H, W) or 3-D (H, W, S), bool or integer; 0 is background and anything else tumour."""

Distances = npt.NDArray[np.float64]

PERCENTILE = 95
AT_ONCE = 1 << 17
"""Pairs of surface elements up to which all distances are computed, instead of searched for in a tree."""
ROUNDING = 1e-9
"""Of a tolerance: ten steps of 0.1 mm are within 1 mm, whatever floating point makes of them."""


class SurfaceDistances(NamedTuple):
    """From each surface element to the nearest one of the other mask, both in reading order of their elements."""

    reference: Distances
    """(n,) float64, from the n elements of the reference to the prediction's surface."""
    prediction: Distances
    """(m,) float64, from the m elements of the prediction to the reference's surface."""


def compute_surface_distances(
    reference: BinaryMask, prediction: BinaryMask, spacing: Sequence[float] | None = None
) -> SurfaceDistances:
    """Both directed distances of two masks of one shape, in the unit of `spacing` (a number an axis; None is pixels).

    Where one mask is empty, or both, there is no distance and both arrays are empty. InputError where the shapes
    differ, are neither 2-D nor 3-D, an array is floating-point, or the spacing is not positive, finite and one an axis.
    """
    check_masks(reference, prediction)
    if reference.ndim not in (2, 3):
        raise InputError(f"masks of {reference.ndim} axes have no surface distance", hint="2 or 3")
    scale = _check_spacing(spacing, reference.ndim)
    in_reference, in_prediction = reference != 0, prediction != 0
    if not (in_reference.any() and in_prediction.any()):
        return SurfaceDistances(np.empty(0), np.empty(0))
    box = find_box(in_reference | in_prediction)
    of_reference, of_prediction = _find_surface(in_reference[box]), _find_surface(in_prediction[box])
    if np.count_nonzero(of_reference) * np.count_nonzero(of_prediction) <= AT_ONCE:
        return _compare_all(_locate(of_reference) * scale, _locate(of_prediction) * scale)
    return SurfaceDistances(
        _measure_directed(of_reference, of_prediction, scale), _measure_directed(of_prediction, of_reference, scale)
    )


def hd95(distances: SurfaceDistances) -> float:
    """The larger of the two directed 95th percentiles (linear interpolation); NaN where there is no distance.

    Not the percentile of the pooled distances: DeepMind's surface-distance and MONAI take the larger of two as well.
    """
    if not distances.reference.size:
        return math.nan
    return max(_compute_percentile(directed) for directed in distances)


def assd(distances: SurfaceDistances) -> float:
    """Mean of all distances of both surfaces, each element counted once; NaN where there is none. MONAI's symmetric."""
    if not distances.reference.size:
        return math.nan
    total = sum(float(directed.sum()) for directed in distances)
    return total / (len(distances.reference) + len(distances.prediction))


def nsd(distances: SurfaceDistances, tolerance: float) -> float:
    """Share, in [0, 1], of all elements of both surfaces that are at most `tolerance` from the other surface.

    NaN where there is no distance. InputError for a tolerance that is negative or NaN. Nikolov et al. 2018,
    arXiv 1809.04430, with every element counted once as in Seidlitz et al. 2022, arXiv 2111.05408.
    """
    if not tolerance >= 0:
        raise InputError(f"a tolerance of {tolerance} is not possible", hint="0 or more")
    if not distances.reference.size:
        return math.nan
    near = sum(np.count_nonzero(directed <= tolerance * (1 + ROUNDING)) for directed in distances)
    return near / (len(distances.reference) + len(distances.prediction))


def compute_diagonal(shape: Sequence[int], spacing: Sequence[float] | None = None) -> float:
    """sqrt(sum((side * spacing)^2)) over full sides, what BraTS counts a missed tumour (373.13 for 240 x 240 x 155).

    No distance within an array of that shape is as large. InputError where the spacing is not positive, finite and
    one an axis.
    """
    return math.hypot(*(side * step for side, step in zip(shape, _check_spacing(spacing, len(shape)), strict=True)))


def measure_surface(
    reference: BinaryMask,
    prediction: BinaryMask,
    *,
    tolerances: Sequence[float],
    spacing: Sequence[float] | None = None,
    shape: Sequence[int] | None = None,
) -> dict[str, float]:
    """`hd95`, `assd` and `nsd_{tolerance:g}` of two masks, in the unit of `spacing` (None is pixels).

    Both masks empty: every value is NaN. One empty: hd95 and assd are the diagonal of the array, or of one of `shape`
    that both were cut out of, nsd is 0. InputError as `compute_surface_distances` and `nsd`.
    """
    distances = compute_surface_distances(reference, prediction, spacing)
    one_empty = bool(reference.any() or prediction.any())
    return _reduce(
        distances, tolerances, compute_diagonal(shape or reference.shape, spacing) if one_empty else math.nan
    )


def measure_slices(
    references: BinaryMask,
    predictions: BinaryMask,
    *,
    tolerances: Sequence[float],
    spacing: Sequence[float] | None = None,
    shape: Sequence[int] | None = None,
) -> list[dict[str, float]]:
    """`measure_surface` of each slice of two stacks (n, H, W), in 2-D, at a fraction of the time.

    `spacing` and `shape` are a slice's, rows and columns. InputError likewise; no slices give an empty list.
    """
    check_masks(references, predictions)
    scale = _check_spacing(spacing, 2)
    diagonal = compute_diagonal(shape or references.shape[1:], spacing)
    in_references, in_predictions = references != 0, predictions != 0
    starts, targets = (_locate(_find_surface(stack, axes=(1, 2))) for stack in (in_references, in_predictions))
    bounds = [np.searchsorted(places[:, 0], np.arange(len(references) + 1)) for places in (starts, targets)]
    measured = []
    for at in range(len(references)):
        start, target = (places[of[at] : of[at + 1]] for places, of in zip((starts, targets), bounds, strict=True))
        if len(start) * len(target) > AT_ONCE:
            distances = compute_surface_distances(references[at], predictions[at], spacing)
        else:
            distances = _compare_all(start[:, 1:] * scale, target[:, 1:] * scale)
        measured.append(_reduce(distances, tolerances, diagonal if len(start) + len(target) else math.nan))
    return measured


def _reduce(distances: SurfaceDistances, tolerances: Sequence[float], apart: float) -> dict[str, float]:
    """`apart` is what hd95 and assd are where there is no distance: a diagonal, or NaN where nothing is to measure."""
    if distances.reference.size:
        measured = {"hd95": hd95(distances), "assd": assd(distances)}
        return measured | {f"nsd_{tolerance:g}": nsd(distances, tolerance) for tolerance in tolerances}
    for tolerance in tolerances:
        nsd(distances, tolerance)  # one that is impossible is refused wherever it is met
    return {"hd95": apart, "assd": apart} | {f"nsd_{tolerance:g}": 0.0 * apart for tolerance in tolerances}


def describe_surface(unit: Literal["px", "mm"], tolerances: Sequence[float]) -> dict[str, str]:
    """The definition of each distance in a summary, by its name (`hd95_px`, `nsd_slice_1px`).

    In px a patient's value is the mean over the slices, in mm it is measured on the volume.
    """
    distances = "distances from each surface element of one mask to the nearest of the other"
    measures = {
        f"hd95{{}}_{unit}": (
            f"Larger of the two directed 95th percentiles (linear interpolation) of the {distances}",
            "the {}'s diagonal",
        ),
        f"assd{{}}_{unit}": (f"Mean of all {distances}, both ways together", "the {}'s diagonal"),
    } | {
        f"nsd{{}}_{tolerance:g}{unit}": (
            f"Share of the surface elements of both masks that are at most {tolerance:g} {unit} from the other's",
            "0",
        )
        for tolerance in tolerances
    }
    plane, empty = f"in 2-D on each slice, in {unit}", "slices empty in both masks"
    on_slices = (f"{plane}; mean over slices", empty, "slice", "pixel", 4)
    on_patients = (
        (
            f"{plane}; mean over a patient's slices, then over patients",
            f"{empty}, patients with no other",
            *on_slices[2:],
        )
        if unit == "px"
        else ("in 3-D on a patient's volume, in mm; mean over patients", "patients empty in both", "volume", "voxel", 6)
    )
    return {
        name.format(infix): f"{what}, {where}. One mask empty counts as {penalty.format(extent)}; "
        f"left out: {left_out}. A surface element is a tumour {cell} with background, or the {extent}'s border, "
        f"as one of its {faces} face neighbours."
        for infix, (where, left_out, extent, cell, faces) in (("", on_patients), ("_slice", on_slices))
        for name, (what, penalty) in measures.items()
    }


def _compute_percentile(distances: Distances) -> float:
    """The 95th with linear interpolation, as NumPy has it, without what NumPy's has beside for other needs."""
    ordered = np.sort(distances)
    place = (len(ordered) - 1) * PERCENTILE / 100
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return float(ordered[low] + (ordered[high] - ordered[low]) * (place - low))


def _compare_all(starts: Distances, targets: Distances) -> SurfaceDistances:
    """Every distance there is, each for both ways: for the outlines of a slice cheaper than any search."""
    if not len(starts) or not len(targets):
        return SurfaceDistances(np.empty(0), np.empty(0))
    squared = cdist(starts, targets, "sqeuclidean")
    return SurfaceDistances(np.sqrt(squared.min(axis=1)), np.sqrt(squared.min(axis=0)))


def _find_surface(mask: npt.NDArray[np.bool_], axes: Sequence[int] | None = None) -> npt.NDArray[np.bool_]:
    """The mask without the elements whose neighbours along `axes` (all) are all in it; at the array's edge none are."""
    inside = mask.copy()
    for axis in range(mask.ndim) if axes is None else axes:
        along, kept = np.moveaxis(mask, axis, 0), np.moveaxis(inside, axis, 0)
        kept[1:] &= along[:-1]
        kept[:-1] &= along[1:]
        kept[:1] = kept[-1:] = False
    return mask ^ inside


def _locate(surface: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Where the elements are, (n, axes), in reading order."""
    flat = np.flatnonzero(surface)
    places = np.empty((len(flat), surface.ndim))
    for axis in reversed(range(surface.ndim)):
        flat, places[:, axis] = np.divmod(flat, surface.shape[axis])
    return places


def _measure_directed(
    start: npt.NDArray[np.bool_], target: npt.NDArray[np.bool_], scale: npt.NDArray[np.float64]
) -> Distances:
    apart = ~target[start]
    distances = np.zeros(len(apart))
    if apart.any():
        # a tree for one query each: building it balanced costs more than it saves
        tree = KDTree(_locate(target) * scale, balanced_tree=False, compact_nodes=False)
        distances[apart] = tree.query(_locate(start & ~target) * scale)[0]
    return distances


def _check_spacing(spacing: Sequence[float] | None, axes: int) -> npt.NDArray[np.float64]:
    if spacing is None:
        return np.ones(axes)
    scale = np.asarray(spacing, dtype=np.float64)
    if scale.shape != (axes,):
        raise InputError(f"a spacing of {spacing} does not fit {axes} axes", hint="one number an axis")
    if not (np.isfinite(scale) & (scale > 0)).all():
        raise InputError(f"a spacing of {spacing} is not possible", hint="positive numbers")
    return scale
