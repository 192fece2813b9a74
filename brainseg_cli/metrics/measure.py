"""One patient's masks to everything that is measured on them, in one pass a pair; then the patients to tables.

Nothing is averaged here: `summary` does that.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from brainseg_cli.errors import InputError, UsageError
from brainseg_cli.metrics.aggregate import SLICE_COLUMNS, add_ratios, measure_slice, sum_by_patient
from brainseg_cli.metrics.calibration import BINS, bin_probs, sum_squared_error
from brainseg_cli.metrics.counts import compute_counts, compute_soft_sums
from brainseg_cli.metrics.lesions import compute_lesions
from brainseg_cli.metrics.masks import check_masks, find_box
from brainseg_cli.metrics.surface import measure_slices, measure_surface
from brainseg_cli.types import Mask, Probs

Unit = Literal["px", "mm"]
Stack = npt.NDArray[np.uint8]
"""(slices, H, W) uint8 in {0, 1}, or one slice of it (H, W)."""

Box = tuple[slice, ...]

TOLERANCES = (1.0, 2.0)
HALF = np.float32(0.5)
NOTHING = measure_slice(np.zeros((0, 0), np.uint8), np.zeros((0, 0), np.uint8))
"""The counts of a slice without tumour, but for its tn."""


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

    @property
    def nothing(self) -> dict[str, float]:
        """The distances of two empty masks."""
        return dict.fromkeys(self.names, math.nan)

    def measure_slices(self, references: Stack, predictions: Stack, shape: Sequence[int]) -> list[dict[str, float]]:
        """The distances of each slice of two stacks (n, h, w), by `names`; `shape` is what the slices were cut from."""
        found = measure_slices(references, predictions, tolerances=self.tolerances, spacing=self.in_plane, shape=shape)
        return [dict(zip(self.names, measured.values(), strict=True)) for measured in found]

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
    """What `measure_patient` finds: rows for the three tables, and the sums behind the calibration."""

    slices: list[dict[str, Any]]
    halves: list[dict[str, Any]]
    """SLICE_COLUMNS, with the counts at a threshold of 0.5; empty without probabilities."""
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
    boxes = [find_box(pair.reference | pair.prediction) for pair in pairs]
    slices = [
        _measure_pair(patient_id, *each)
        for each in zip(pairs, boxes, _measure_distances(pairs, boxes, ruler), strict=True)
    ]
    if order is None:
        stacks = [(pair.image, pair.reference, pair.prediction) for pair in pairs]
    else:
        filled = [at for at, place in enumerate(order) if not _is_empty(boxes[place])]
        inner = order[filled[0] : filled[-1] + 1] if filled else []
        stacks = [("", *_cut([pairs[place] for place in inner], _unite([boxes[place] for place in inner])))]
    if ruler.spacing_mm is None:
        distances = {name: _mean_defined([row[name] for row in slices]) for name in ruler.names}
    else:
        _, reference, prediction = stacks[0]
        distances = ruler.measure_volume(reference, prediction, (len(pairs), *pairs[0].reference.shape))
    lesions, counted = _measure_lesions(patient_id, stacks)
    patient = {"patient_id": patient_id, **distances, **counted}
    if any(pair.probs is None for pair in pairs):
        return PatientMeasures(slices, [], patient, lesions, None)
    patient["brier"] = float(np.average([row["brier"] for row in slices], weights=[p.reference.size for p in pairs]))
    bins, halves = np.zeros((BINS, 3)), []
    for row, pair in zip(slices, pairs, strict=True):
        assert pair.probs is not None
        bins += bin_probs(pair.reference, pair.probs)
        at_half = compute_counts(pair.reference, (pair.probs >= HALF).astype(np.uint8))
        halves.append({name: row[name] for name in SLICE_COLUMNS} | at_half._asdict())
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
                waiting.append(executor.submit(_load_and_measure, patient_id, load, ruler))
                if len(waiting) > 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _load_and_measure(patient_id: str, load: Load, ruler: Ruler) -> PatientMeasures:
    return measure_patient(patient_id, load(), ruler)


def collect(patients: Sequence[PatientMeasures], images: Sequence[str], ruler: Ruler) -> Measures:
    """The patients' measures as tables, slices in the order of `images`, which names each once.

    Each patient once, in any order; `halves` and `bins` are None unless all have probabilities. InputError for no
    patients.
    """
    if not patients:
        raise InputError("there is no slice to measure")
    places = {image: place for place, image in enumerate(images)}

    def to_slices(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
        ordered = sorted(rows, key=lambda row: places[row["image"]])
        return pd.DataFrame(ordered).astype({"slice_index": "Int64"})

    slices = add_ratios(to_slices([row for patient in patients for row in patient.slices]))
    # the order of first appearance, whoever was done first
    summed = sum_by_patient(slices)
    found = {patient.patient["patient_id"]: patient for patient in patients}
    ordered = [found[patient_id] for patient_id in summed["patient_id"]]
    table = summed.merge(pd.DataFrame([patient.patient for patient in ordered]), on="patient_id", validate="1:1")
    lesions = pd.DataFrame([row for patient in ordered for row in patient.lesions], columns=list(LESION_COLUMNS))
    bins = [patient.bins for patient in ordered if patient.bins is not None]
    everywhere = len(bins) == len(ordered)
    return Measures(
        slices=slices,
        patients=table,
        lesions=lesions,
        halves=to_slices([row for patient in ordered for row in patient.halves]) if everywhere else None,
        bins=np.stack(bins) if everywhere else None,
        ruler=ruler,
    )


def _measure_pair(patient_id: str, pair: MaskPair, box: Box, distances: dict[str, float]) -> dict[str, Any]:
    """The row of a slice, from the part of it that has tumour: most have none. Only probabilities are everywhere."""
    height, width = pair.reference.shape
    reference, prediction = pair.reference[box], pair.prediction[box]
    row: dict[str, Any] = {"image": pair.image, "patient_id": patient_id, "slice_index": pair.slice_index}
    row |= {"height": height, "width": width}
    row |= measure_slice(reference, prediction) if reference.size else NOTHING
    row["tn"] += height * width - reference.size
    if pair.probs is not None:
        row |= {
            f"soft_{name}": value for name, value in compute_soft_sums(pair.reference, pair.probs)._asdict().items()
        }
    row |= distances
    if pair.probs is not None:
        row["brier"] = sum_squared_error(pair.reference, pair.probs) / pair.reference.size
    return row


def _measure_distances(pairs: Sequence[MaskPair], boxes: Sequence[Box], ruler: Ruler) -> list[dict[str, float]]:
    """Of each slice, those of one size together."""
    found = [ruler.nothing] * len(pairs)
    alike: dict[tuple[int, ...], list[int]] = {}
    for place, (pair, box) in enumerate(zip(pairs, boxes, strict=True)):
        if not _is_empty(box):
            alike.setdefault(pair.reference.shape, []).append(place)
    for shape, places in alike.items():
        stacks = _cut([pairs[place] for place in places], _unite([boxes[place] for place in places]))
        for place, distances in zip(places, ruler.measure_slices(*stacks, shape), strict=True):
            found[place] = distances
    return found


def _is_empty(box: Box) -> bool:
    return bool(box[0].start >= box[0].stop)


def _unite(boxes: Sequence[Box]) -> Box:
    """The smallest box around those that are not empty."""
    filled = [box for box in boxes if not _is_empty(box)]
    sides = ([box[axis] for box in filled] for axis in (0, 1))
    return tuple(
        slice(min((side.start for side in of), default=0), max((side.stop for side in of), default=0)) for of in sides
    )


def _cut(pairs: Sequence[MaskPair], box: Box) -> tuple[Stack, Stack]:
    """What lies in the box of each reference and each prediction, stacked."""
    if not pairs:
        return np.zeros((0, 0, 0), np.uint8), np.zeros((0, 0, 0), np.uint8)
    return np.stack([pair.reference[box] for pair in pairs]), np.stack([pair.prediction[box] for pair in pairs])


def _measure_lesions(
    patient_id: str, stacks: Sequence[tuple[str, Stack, Stack]]
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """A row a reference lesion, and the patient's counts, over the one volume or the slices of a patient."""
    rows: list[dict[str, Any]] = []
    predicted = false_alarms = 0
    connectivity = 26 if stacks[0][1].ndim == 3 else 8
    for image, reference, prediction in stacks:
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
