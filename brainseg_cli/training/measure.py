"""A split through a network: the probabilities that val, the threshold, the report and eval are all made from."""

from collections.abc import Iterator
from typing import NamedTuple, TypeVar

import numpy as np

from brainseg_cli.data.manifest import Dataset
from brainseg_cli.metrics.threshold import THRESHOLDS, count_at_thresholds, sweep
from brainseg_cli.models.segmenter import Pending, Prepared, Segmenter
from brainseg_cli.types import Json, Probs, Progress, no_progress

BATCH_SIZE = 16
"""Slices a forward pass. What is counted does not depend on it; a loss that is taken over a batch does."""

Begun = TypeVar("Begun")


class Predicted(NamedTuple):
    """One slice of a split: its row in the dataset, and the probabilities (H, W) at its own size."""

    row: int
    probs: Probs


def predict_split(
    segmenter: Segmenter, dataset: Dataset, split: str, *, progress: Progress = no_progress
) -> Iterator[Predicted]:
    """Every slice of `split` through the network, in dataset order. A split without slices gives none."""
    rows = dataset.rows(split)

    def begin(batch: list[int]) -> tuple[list[int], list[Prepared], Pending]:
        prepared = [segmenter.prepare(dataset.image(row)) for row in batch]
        return batch, prepared, segmenter.submit(prepared)

    batches = (rows[start : start + BATCH_SIZE].tolist() for start in range(0, len(rows), BATCH_SIZE))
    done = 0
    for batch, prepared, pending in one_ahead(map(begin, batches)):
        for row, each, probs in zip(batch, prepared, pending(), strict=True):
            yield Predicted(row, each.restore(probs))
        done += len(batch)
        progress(done, len(rows), f"evaluating {split}")


def one_ahead(begun: Iterator[Begun]) -> Iterator[Begun]:
    """The same, each given only once the next has begun: a GPU computes that one while this one is worked up."""
    for before in begun:
        for current in begun:
            yield before
            before = current
        yield before


def sweep_thresholds(
    segmenter: Segmenter, dataset: Dataset, split: str, *, progress: Progress = no_progress
) -> list[Json]:
    """`metrics.threshold.sweep` of a split: a row a threshold. Without tumour in it no score is defined."""
    patients: dict[str, int] = {}
    owners = dataset.slices["patient_id"].tolist()
    for row in dataset.rows(split).tolist():
        patients.setdefault(owners[row], len(patients))
    tp, fp = np.zeros((2, len(patients), len(THRESHOLDS)), np.int64)
    reference_px = np.zeros(len(patients), np.int64)
    for row, probs in predict_split(segmenter, dataset, split, progress=progress):
        place, reference = patients[owners[row]], dataset.mask(row)
        hits, false_alarms = count_at_thresholds(reference, probs)
        tp[place] += hits
        fp[place] += false_alarms
        reference_px[place] += np.count_nonzero(reference)
    return sweep(tp, fp, reference_px)
