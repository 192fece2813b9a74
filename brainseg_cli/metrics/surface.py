"""How far apart the outlines of two masks are: hd95, assd and nsd, in pixels or in the unit of the spacing.

The surface of a mask are its tumour pixels that have background, or the border of the array, as a face neighbour
(4 in 2-D, 6 in 3-D). A distance is that between pixel centres, Euclidean, exact.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.spatial import KDTree

from brainseg_cli.errors import InputError
from brainseg_cli.metrics.masks import check_masks, find_box

BinaryMask = npt.NDArray[Any]
"""2-D (H, W) or 3-D (H, W, S), bool or integer; 0 is background and anything else tumour."""

Distances = npt.NDArray[np.float64]

PERCENTILE = 95
ELEMENTS_AT_ONCE = 1 << 10
"""Of a stack's surfaces, whose distances to a whole row each are in memory at one time."""
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
    return SurfaceDistances(
        _measure_directed(of_reference, of_prediction, scale), _measure_directed(of_prediction, of_reference, scale)
    )


def hd95(distances: SurfaceDistances) -> float:
    """The larger of the two directed 95th percentiles (linear interpolation); NaN where there is no distance.

    Not the percentile of the pooled distances: DeepMind's surface-distance and MONAI take the larger of two as well.
    """
    return _reduce_one(distances, ())["hd95"]


def assd(distances: SurfaceDistances) -> float:
    """Mean of all distances of both surfaces, each element counted once; NaN where there is none. MONAI's symmetric."""
    return _reduce_one(distances, ())["assd"]


def nsd(distances: SurfaceDistances, tolerance: float) -> float:
    """Share, in [0, 1], of all elements of both surfaces that are at most `tolerance` from the other surface.

    NaN where there is no distance. InputError for a tolerance that is negative or NaN. Nikolov et al. 2018,
    arXiv 1809.04430, with every element counted once as in Seidlitz et al. 2022, arXiv 2111.05408.
    """
    return _reduce_one(distances, (tolerance,))[f"nsd_{tolerance:g}"]


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
    return _reduce_one(
        distances, tolerances, compute_diagonal(shape or reference.shape, spacing) if one_empty else math.nan
    )


def measure_slices(
    references: BinaryMask,
    predictions: BinaryMask,
    *,
    tolerances: Sequence[float],
    spacing: Sequence[float] | None = None,
    shape: Sequence[int] | None = None,
) -> dict[str, Distances]:
    """`measure_surface` of each slice of two stacks (n, H, W), in 2-D, at a fraction of the time: (n,) a name.

    `spacing` and `shape` are a slice's, rows and columns. InputError likewise; no slices give empty arrays.
    """
    check_masks(references, predictions)
    scale = _check_spacing(spacing, 2)
    diagonal = compute_diagonal(shape or references.shape[1:], spacing)
    in_references, in_predictions = references != 0, predictions != 0
    in_reference, in_prediction = (stack.any(axis=(1, 2)) for stack in (in_references, in_predictions))
    both = in_reference & in_prediction
    surfaces = [_find_surface(stack[both], axes=(1, 2)) for stack in (in_references, in_predictions)]
    # in rows, and further than any two pixels are
    far = 1 + int(math.hypot(*surfaces[0].shape[1:] * scale) / scale[0])
    of_reference, of_prediction = np.split(_measure_columns(np.concatenate(surfaces), far), 2, axis=1)
    ways = (
        _measure_rows(surfaces[0], of_prediction, far, scale),
        _measure_rows(surfaces[1], of_reference, far, scale),
    )
    apart = np.where(in_reference | in_prediction, diagonal, math.nan)
    return _reduce(ways, tolerances, both, apart)


class _Directed(NamedTuple):
    """The distances of one way of several pairs of masks, one pair after the other, and how many each has, not 0."""

    distances: Distances
    counts: npt.NDArray[np.int64]


def _reduce(
    ways: tuple[_Directed, _Directed], tolerances: Sequence[float], both: npt.NDArray[np.bool_], apart: Distances
) -> dict[str, Distances]:
    """hd95, assd and nsd of n pairs of masks, (n,) a name.

    `both` (n,) says which have tumour in both masks: `ways` are theirs. Of the others hd95 and assd are `apart` (n,),
    a diagonal, or NaN where nothing is to measure.
    """
    for tolerance in tolerances:  # one that is impossible is refused whatever is measured
        if not tolerance >= 0:
            raise InputError(f"a tolerance of {tolerance} is not possible", hint="0 or more")
    percentiles, totals, elements = np.zeros((3, np.count_nonzero(both)))
    near = np.zeros((len(tolerances), np.count_nonzero(both)))
    for distances, counts in ways if both.any() else ():
        ends = np.cumsum(counts)
        firsts = ends - counts
        ordered = distances.copy()
        for first, end in zip(firsts.tolist(), ends.tolist(), strict=True):
            ordered[first:end].sort()
        place = (counts - 1) * PERCENTILE / 100
        low = place.astype(np.int64)
        below, above = ordered[firsts + low], ordered[firsts + np.minimum(low + 1, counts - 1)]
        percentiles = np.maximum(percentiles, below + (above - below) * (place - low))
        totals += np.add.reduceat(ordered, firsts)
        elements += counts
        for within, tolerance in zip(near, tolerances, strict=True):
            within += np.add.reduceat(ordered <= tolerance * (1 + ROUNDING), firsts, dtype=np.int64)
    measured = {"hd95": percentiles, "assd": totals / elements}
    measured |= {f"nsd_{tolerance:g}": within / elements for within, tolerance in zip(near, tolerances, strict=True)}
    columns = {name: 0 * apart if name.startswith("nsd") else apart.copy() for name in measured}
    for name, column in columns.items():
        column[both] = measured[name]
    return columns


def _reduce_one(distances: SurfaceDistances, tolerances: Sequence[float], apart: float = math.nan) -> dict[str, float]:
    reference, prediction = (_Directed(way, np.array([way.size])) for way in distances)
    both = np.array([distances.reference.size > 0])
    found = _reduce((reference, prediction), tolerances, both, np.array([apart]))
    return {name: float(column[0]) for name, column in found.items()}


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


def _measure_columns(surfaces: npt.NDArray[np.bool_], far: int) -> npt.NDArray[np.signedinteger]:
    """Of each pixel of n slices, (H, n, W): how many rows to the nearest element in its column, `far` for none.

    With `_measure_rows` this is the exact distance transform of Felzenszwalb and Huttenlocher 2012, one axis after
    the other, the second for the pixels alone that are asked for.
    """
    dtype = np.int16 if far < np.iinfo(np.int16).max else np.int64
    nearest = np.ascontiguousarray(np.multiply(~surfaces.transpose(1, 0, 2), dtype(far)))
    further = np.empty_like(nearest[0])
    for rows in (nearest, nearest[::-1]):
        for before, row in itertools.pairwise(rows):
            np.minimum(row, np.add(before, 1, out=further), out=row)
    return nearest


def _measure_rows(
    starts: npt.NDArray[np.bool_], columns: npt.NDArray[np.signedinteger], far: int, scale: Distances
) -> _Directed:
    """From each element of n surfaces (n, H, W) to the nearest of those that `columns` (H, n, W) was measured of."""
    height, width = starts.shape[1:]
    # the squares of whole pixels are exact in the smaller type too
    dtype = np.float32 if (scale == 1).all() and 2 * far**2 < 1 << 24 else np.float64
    across = np.square(np.subtract.outer(np.arange(width), np.arange(width)) * scale[1]).astype(dtype)
    at, column = np.divmod(np.flatnonzero(starts), width)
    slices, row = np.divmod(at, height)
    squared = np.zeros(len(at))
    apart = np.flatnonzero(columns[row, slices, column])  # the others lie on the other surface
    for first in range(0, len(apart), ELEMENTS_AT_ONCE):
        part = apart[first : first + ELEMENTS_AT_ONCE]
        candidates = np.multiply(columns[row[part], slices[part]], scale[0], dtype=dtype)
        candidates *= candidates
        candidates += across[column[part]]
        squared[part] = candidates.min(axis=1)
    return _Directed(np.sqrt(squared, out=squared), np.bincount(slices, minlength=len(starts)))


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
