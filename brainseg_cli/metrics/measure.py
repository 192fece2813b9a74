"""One patient's masks to everything that is measured on them, in one pass a pair; then the patients to tables.

Nothing is averaged here: `summary` does that.
"""

import itertools
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from operator import itemgetter
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from brainseg_cli.errors import InputError, UsageError
from brainseg_cli.metrics.aggregate import COUNT_COLUMNS, NAME_COLUMNS, SOFT_COLUMNS, add_ratios, sum_by_patient
from brainseg_cli.metrics.calibration import bin_probs, sum_squared_error
from brainseg_cli.metrics.counts import compute_counts, compute_soft_sums
from brainseg_cli.metrics.lesions import Connectivity, compute_lesions
from brainseg_cli.metrics.masks import check_masks, find_box, has_tumour
from brainseg_cli.metrics.surface import measure_slices, measure_surface
from brainseg_cli.types import Mask, Probs

Unit = Literal["px", "mm"]
Stack = npt.NDArray[np.uint8]
"""(slices, H, W) uint8 in {0, 1}, or one slice of it (H, W)."""

TOLERANCES = (1.0, 2.0)
HALF = np.float32(0.5)
Columns = dict[str, Sequence[Any] | npt.NDArray[Any]]
"""A table: each column by its name, all of one length."""


class Ruler(NamedTuple):
    """How lengths are measured: `spacing_mm` of (row, column, slice), None where it is not known: then in pixels."""

    spacing_mm: tuple[float, float, float] | None = None
    tolerances: tuple[float, ...] = TOLERANCES

    @property
    def unit(self) -> Unit:
        return "px" if self.spacing_mm is None else "mm"

    @property
    def names(self) -> list[str]:
        """The columns of distances in the tables."""
        return list(_name_distances(self))

    @property
    def in_plane(self) -> tuple[float, float] | None:
        return None if self.spacing_mm is None else self.spacing_mm[:2]

    @property
    def in_volume(self) -> tuple[float, float, float] | None:
        """As the axes of a stack of slices: slice, row, column."""
        return None if self.spacing_mm is None else (self.spacing_mm[2], *self.spacing_mm[:2])

    def check(self) -> None:
        """UsageError for a spacing or a tolerance that measures nothing, and for two tolerances of one name."""
        if self.spacing_mm is not None and not all(1e-6 <= side <= 1e6 for side in self.spacing_mm):
            raise UsageError(f"a spacing of {self.spacing_mm} mm is not possible", hint="three of 1e-6 to 1e6")
        if not all(0 <= tolerance < math.inf for tolerance in self.tolerances):
            raise UsageError(f"a tolerance of {self.tolerances} is not possible", hint="0 or more")
        if len(set(self.names)) < len(self.names):
            raise UsageError(f"two of the tolerances {self.tolerances} have one name", hint="six digits are told apart")

    def measure_slices(
        self, references: Stack, predictions: Stack, shape: Sequence[int]
    ) -> dict[str, npt.NDArray[np.float64]]:
        """The distances of the slices of two stacks (n, h, w), (n,) a name; `shape` is what they were cut from."""
        found = measure_slices(references, predictions, tolerances=self.tolerances, spacing=self.in_plane, shape=shape)
        return dict(zip(self.names, found.values(), strict=True))

    def measure_volume(self, reference: Stack, prediction: Stack, shape: Sequence[int]) -> dict[str, float]:
        """The distances of a volume (slices, h, w), likewise, in 3-D."""
        found = measure_surface(reference, prediction, tolerances=self.tolerances, spacing=self.in_volume, shape=shape)
        return dict(zip(self.names, found.values(), strict=True))


@cache
def _name_distances(ruler: Ruler) -> tuple[str, ...]:
    unit = ruler.unit
    return (f"hd95_{unit}", f"assd_{unit}", *(f"nsd_{tolerance:g}{unit}" for tolerance in ruler.tolerances))


PIXELS = Ruler()
"""The default: in px, at TOLERANCES."""


class MaskPair(NamedTuple):
    """One slice to measure: masks (H, W), and the probabilities behind the prediction where there are any."""

    image: str
    slice_index: int | None
    reference: Mask
    prediction: Mask
    probs: Probs | None = None


Load = Callable[[], Sequence[MaskPair]]
"""Gives the slices of one patient, when they are wanted."""


class PatientMeasures(NamedTuple):
    """What `measure_patient` finds: its part of the tables, and the sums behind the calibration."""

    slices: Columns
    halves: Columns | None
    """SLICE_COLUMNS, with the counts at a threshold of 0.5; None, as `bins`, without probabilities."""
    patient: dict[str, Any]
    lesions: list[dict[str, Any]]
    bins: npt.NDArray[np.float64] | None


@dataclass(frozen=True)
class Measures:
    """Every patient's, as tables.

    `slices` has the columns of `aggregate` and more, one row a slice, in reading order; `patients` and `lesions`
    one row each. `halves` is a slice table at a threshold of 0.5 and `bins` (patients, BINS, 3): both None where
    there are no probabilities.
    """

    slices: pd.DataFrame
    patients: pd.DataFrame
    lesions: pd.DataFrame
    halves: pd.DataFrame | None
    bins: npt.NDArray[np.float64] | None
    ruler: Ruler


LESION_COLUMNS = ("patient_id", "image", "connectivity", "size_px", "detected", "dice")


def measure_patient(patient_id: str, pairs: Sequence[MaskPair], ruler: Ruler) -> PatientMeasures:
    """Measure the slices of one patient, at least one, in any order; all with probabilities or none.

    Where the slices are of one size and their indices run without a gap they are a volume, as a single slice is:
    lesions are then 26-connected in it, else 8-connected slice by slice. With a spacing the patient's distances are
    the volume's, else the mean of its slices' where either mask has tumour. InputError where a spacing is given and
    the slices are no volume, and where two masks differ in size.
    """
    for pair in pairs:
        check_masks(pair.reference, pair.prediction)
    order = _order_volume(pairs)
    if order is None and ruler.spacing_mm is not None:
        raise InputError(
            "its slices are no volume: they differ in size, or their numbers do not run without a gap",
            where=patient_id,
            hint="without --spacing they are measured one by one, in pixels",
        )
    stacks = _stack(pairs, order)
    measured = _measure_slices(pairs, stacks, ruler)
    named = ([pair.image for pair in pairs], [patient_id] * len(pairs), [pair.slice_index for pair in pairs])
    names: Columns = dict(zip(NAME_COLUMNS, named, strict=True))
    height, width = np.array([pair.reference.shape for pair in pairs]).T
    slices: Columns = names | {"height": height, "width": width} | measured
    if ruler.spacing_mm is None:
        distances = {name: _mean_defined(measured[name].tolist()) for name in ruler.names}
    else:
        volume = (len(pairs), *pairs[0].reference.shape)
        distances = ruler.measure_volume(stacks[0].references, stacks[0].predictions, volume)
    if order is not None:
        parts = [("", stacks[0].references, stacks[0].predictions)]
    else:
        alone = ((place, *masks) for places, *both in stacks for place, *masks in zip(places, *both, strict=True))
        parts = [(pairs[place].image, *masks) for place, *masks in sorted(alone, key=itemgetter(0))]
    lesions, counted = _measure_lesions(patient_id, parts, 8 if order is None else 26)
    patient = {"patient_id": patient_id, **distances, **counted}
    given = [(pair.reference, pair.probs) for pair in pairs if pair.probs is not None]
    if len(given) < len(pairs):
        return PatientMeasures(slices, None, patient, lesions, None)
    soft = np.array([compute_soft_sums(*each) for each in given]).T
    squares = np.array([sum_squared_error(*each) for each in given])
    slices |= {**dict(zip(SOFT_COLUMNS, soft, strict=True)), "brier": squares / (height * width)}
    patient["brier"] = float(squares.sum() / (height * width).sum())
    bins = np.sum([bin_probs(*each) for each in given], axis=0)
    at_half = [compute_counts(reference, (probs >= HALF).astype(np.uint8)) for reference, probs in given]
    halves = (
        names | dict(zip(COUNT_COLUMNS, np.array(at_half).T, strict=True)) | dict(zip(SOFT_COLUMNS, soft, strict=True))
    )
    return PatientMeasures(slices, halves, patient, lesions, bins)


def measure_patients(patients: Iterable[tuple[str, Load]], ruler: Ruler, *, workers: int) -> Iterator[PatientMeasures]:
    """`measure_patient` of each patient whose slices its callable gives, `workers` at a time, in order.

    The callables run in the workers, which are threads. At most 2 * workers + 1 patients are taken from the
    iterable ahead of what was given out, so that memory holds a few, however many there are. What a callable or a
    measure raises is raised here in that patient's turn, and then, as where the iterator is closed, no further
    patient is begun.
    """
    waiting: deque[Future[PatientMeasures]] = deque()
    with ThreadPoolExecutor(workers) as executor:
        try:
            for patient_id, load in patients:
                waiting.append(executor.submit(lambda own, load: measure_patient(own, load(), ruler), patient_id, load))
                if len(waiting) > 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def collect(patients: Sequence[PatientMeasures], images: Sequence[str], ruler: Ruler) -> Measures:
    """The patients' measures as tables, slices in the order of `images`, which names each once.

    Each patient once, in any order; `halves` and `bins` are None unless all have probabilities. InputError for no
    patients.
    """
    if not patients:
        raise InputError("there is no slice to measure")
    places = {image: place for place, image in enumerate(images)}

    def to_slices(parts: Sequence[Columns]) -> pd.DataFrame:
        columns: Columns = {name: [value for part in parts for value in part[name]] for name in NAME_COLUMNS}
        others = [name for name in parts[0] if name not in columns and all(name in part for part in parts)]
        columns |= {name: np.concatenate([part[name] for part in parts]) for name in others}
        order = np.argsort([places[image] for image in columns["image"]])
        return pd.DataFrame(columns).astype({"slice_index": "Int64"}).iloc[order].reset_index(drop=True)

    slices = add_ratios(to_slices([patient.slices for patient in patients]))
    # the order of first appearance, whoever was done first
    summed = sum_by_patient(slices)
    found = {patient.patient["patient_id"]: patient for patient in patients}
    ordered = [found[patient_id] for patient_id in summed["patient_id"]]
    table = summed.merge(pd.DataFrame([patient.patient for patient in ordered]), on="patient_id", validate="1:1")
    lesions = pd.DataFrame([row for patient in ordered for row in patient.lesions], columns=list(LESION_COLUMNS))
    halves = [patient.halves for patient in ordered if patient.halves is not None]
    bins = [patient.bins for patient in ordered if patient.bins is not None]
    everywhere = len(halves) == len(bins) == len(ordered)
    return Measures(
        slices=slices,
        patients=table,
        lesions=lesions,
        halves=to_slices(halves) if everywhere else None,
        bins=np.stack(bins) if everywhere else None,
        ruler=ruler,
    )


class _Stack(NamedTuple):
    """Slices of one size, cut to the smallest box around their tumour, and their places among the patient's."""

    places: list[int]
    references: Stack
    predictions: Stack


def _stack(pairs: Sequence[MaskPair], order: Sequence[int] | None) -> list[_Stack]:
    """The slices with tumour in either mask, of which most have none: the stacks of each size.

    Of a volume, of which `order` names the slices in their order, one stack, that has also what lies between.
    """
    filled = [has_tumour(pair.reference) or has_tumour(pair.prediction) for pair in pairs]
    if order is not None:
        inner = [at for at, place in enumerate(order) if filled[place]]
        return [_cut(pairs, order[inner[0] : inner[-1] + 1] if inner else [])]
    alike: dict[tuple[int, ...], list[int]] = {}
    for place in np.flatnonzero(filled).tolist():
        alike.setdefault(pairs[place].reference.shape, []).append(place)
    return [_cut(pairs, places) for places in alike.values()]


def _cut(pairs: Sequence[MaskPair], places: Sequence[int]) -> _Stack:
    if not places:
        return _Stack([], *np.zeros((2, 0, 0, 0), np.uint8))
    sides = [pairs[place].reference for place in places], [pairs[place].prediction for place in places]
    union = sides[0][0].copy()
    for mask in itertools.chain(*sides):
        np.bitwise_or(union, mask, out=union)
    box = find_box(union)
    references, predictions = (np.array([mask[box] for mask in side]) for side in sides)
    return _Stack(list(places), references, predictions)


def _measure_slices(
    pairs: Sequence[MaskPair], stacks: Sequence[_Stack], ruler: Ruler
) -> dict[str, npt.NDArray[np.float64 | np.int64]]:
    """Counts, the soft sums of the masks, and distances, (n,) each.

    Slices that are in no stack have no tumour: all are true negatives, without a distance.
    """
    tp, fp, fn = np.zeros((3, len(pairs)), np.int64)
    distances = {name: np.full(len(pairs), math.nan) for name in ruler.names}
    for places, references, predictions in stacks:
        for place, *masks in zip(places, references, predictions, strict=True):
            tp[place], fp[place], fn[place], _ = compute_counts(*masks)
        if places:
            shape = pairs[places[0]].reference.shape
            for name, measured in ruler.measure_slices(references, predictions, shape).items():
                distances[name][places] = measured
    tn = np.array([pair.reference.size for pair in pairs]) - tp - fp - fn
    soft = (tp.astype(np.float64), (tp + fp).astype(np.float64), (tp + fn).astype(np.float64))
    return (
        dict(zip(COUNT_COLUMNS, (tp, fp, fn, tn), strict=True)) | dict(zip(SOFT_COLUMNS, soft, strict=True)) | distances
    )


def _measure_lesions(
    patient_id: str, parts: Sequence[tuple[str, Stack, Stack]], connectivity: Connectivity
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """A row a reference lesion, and the patient's counts, over its one volume or over slices, each with its image."""
    rows: list[dict[str, Any]] = []
    predicted = false_alarms = 0
    for image, reference, prediction in parts:
        found = compute_lesions(reference, prediction)
        predicted, false_alarms = predicted + found.predicted, false_alarms + found.false_alarms
        for size, hit, dice in zip(found.sizes.tolist(), found.detected.tolist(), found.dice.tolist(), strict=True):
            rows.append(dict(zip(LESION_COLUMNS, (patient_id, image, connectivity, size, hit, dice), strict=True)))
    return rows, {
        "lesion_connectivity": connectivity,
        "lesions": len(rows),
        "lesions_detected": sum(row["detected"] for row in rows),
        "lesions_predicted": predicted,
        "lesion_false_alarms": false_alarms,
        "lesion_dice": _mean_defined([row["dice"] for row in rows]),
    }


def _order_volume(pairs: Sequence[MaskPair]) -> list[int] | None:
    """The places of the slices from the first to the last of the volume; None where they are none."""
    if len(pairs) == 1:
        return [0]
    indices = [pair.slice_index for pair in pairs if pair.slice_index is not None]
    if len(indices) < len(pairs) or len({pair.reference.shape for pair in pairs}) > 1:
        return None
    order = sorted(range(len(pairs)), key=indices.__getitem__)
    return order if sorted(indices) == list(range(min(indices), min(indices) + len(pairs))) else None


def _mean_defined(values: Sequence[float]) -> float:
    """The mean of those that are not NaN; NaN where there are none."""
    defined = [value for value in values if not math.isnan(value)]
    return sum(defined) / len(defined) if defined else math.nan
