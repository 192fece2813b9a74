"""A split through a network: the probabilities that val, the threshold, the report and eval are all made from."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from brainseg_cli.data.manifest import Dataset
from brainseg_cli.metrics.aggregate import measure_slice
from brainseg_cli.metrics.threshold import THRESHOLDS, count_at_thresholds, sweep
from brainseg_cli.models.losses import Loss
from brainseg_cli.models.segmenter import Segmenter, apply_threshold
from brainseg_cli.types import Json, Probs, Progress, no_progress

BATCH_SIZE = 16
"""Slices a forward pass. The slice table does not depend on it; a loss that is taken over a batch does."""


class Predicted(NamedTuple):
    """One slice of a split: its row in the dataset, and the probabilities (H, W) at its own size."""

    row: int
    probs: Probs


def predict_split(
    segmenter: Segmenter,
    dataset: Dataset,
    split: str,
    *,
    on_batch: Callable[[torch.Tensor, torch.Tensor], None] | None = None,
    progress: Progress = no_progress,
) -> Iterator[Predicted]:
    """Every slice of `split` through the network, in dataset order. A split without slices gives none.

    `on_batch` hears the logits (N, 1, size, size) and the references at the network's size, likewise shaped.
    """
    rows = dataset.rows(split)
    for start in range(0, len(rows), BATCH_SIZE):
        batch = rows[start : start + BATCH_SIZE].tolist()
        pixels, fits = segmenter.stack([dataset.image(row) for row in batch])
        logits = segmenter.predict_logits(pixels)
        if on_batch is not None:
            squares = [fit.mask(dataset.mask(row)) for fit, row in zip(fits, batch, strict=True)]
            on_batch(logits, torch.from_numpy(np.stack(squares))[:, None].to(logits))
        yield from map(Predicted, batch, segmenter.restore(logits, fits))
        progress(start + len(batch), len(rows), f"evaluating {split}")


def measure_split(
    segmenter: Segmenter,
    dataset: Dataset,
    split: str,
    *,
    threshold: float,
    loss: Loss | None = None,
    progress: Progress = no_progress,
) -> tuple[pd.DataFrame, float]:
    """Predict every slice of `split`, measure it at its own size, and take the loss at the network's.

    Gives the slice table of `metrics.aggregate` (one row a slice, in dataset order) and the mean loss over
    slices (NaN without a `loss`). A split without slices gives no rows.
    """
    losses: list[float] = []

    def take_loss(logits: torch.Tensor, references: torch.Tensor) -> None:
        if loss is not None:
            losses.append(len(logits) * float(loss(logits, references)))

    measured = [
        measure_slice(dataset.mask(row), apply_threshold(probs, threshold), probs)
        for row, probs in predict_split(
            segmenter, dataset, split, on_batch=take_loss if loss is not None else None, progress=progress
        )
    ]
    names = dataset.slices[["image", "patient_id", "slice_index"]].iloc[dataset.rows(split)].reset_index(drop=True)
    table = pd.concat([names, pd.DataFrame(measured)], axis=1)
    return table, sum(losses) / len(measured) if losses else float("nan")


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
