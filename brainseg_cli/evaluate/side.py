"""One side of an evaluation: a prediction, measured against its references."""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from brainseg_cli.metrics.measure import Load, Measures, Ruler, collect, measure_patients
from brainseg_cli.types import Image, Json, Mask, Progress, no_progress

MOST_WORKERS = 8

Look = Callable[[str], tuple[Image | None, Mask, Mask]]
"""A slice's name to the slice itself (None where only masks are known), its reference and its prediction."""


@dataclass(frozen=True)
class Side:
    """`name` is what to call it, `about` where it comes from (for summary.json), `look` shows one of its slices."""

    name: str
    about: Json
    notes: list[str]
    measures: Measures
    look: Look

    @property
    def split(self) -> str | None:
        """Of which split these are the slices; None where there is none."""
        split: str | None = self.about["split"]
        return split


def count_workers(workers: int | None) -> int:
    """`workers`, at least 1; None is one a core up to MOST_WORKERS."""
    return min(os.cpu_count() or 1, MOST_WORKERS) if workers is None else max(workers, 1)


def measure_all(
    patients: Iterable[tuple[str, Load]],
    images: Sequence[str],
    ruler: Ruler,
    *,
    workers: int | None = None,
    progress: Progress = no_progress,
) -> Measures:
    """Measure patients, several at a time, and tabulate them in the order of `images`, all slices there are.

    In threads, `count_workers` of them. `progress` hears how many slices are measured.
    """
    measured = []
    slices = 0
    for patient in measure_patients(patients, ruler, workers=count_workers(workers)):
        measured.append(patient)
        slices += len(patient.slices["image"])
        progress(slices, len(images), "measuring")
    return collect(measured, images, ruler)
