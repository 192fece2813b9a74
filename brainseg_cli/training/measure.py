"""A split through a network to a slice table: what val, the report and eval are all made from."""

import numpy as np
import pandas as pd
import torch

from brainseg_cli.data.manifest import Dataset
from brainseg_cli.metrics.aggregate import measure_slice
from brainseg_cli.models.losses import Loss
from brainseg_cli.models.segmenter import Segmenter, apply_threshold
from brainseg_cli.types import Progress, no_progress

BATCH_SIZE = 16
"""Slices a forward pass. The slice table does not depend on it; a loss that is taken over a batch does."""


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
    rows = dataset.rows(split)
    names = dataset.slices[["image", "patient_id", "slice_index"]].iloc[rows].reset_index(drop=True)
    measured: list[dict[str, float]] = []
    total_loss = 0.0
    for start in range(0, len(rows), BATCH_SIZE):
        batch = rows[start : start + BATCH_SIZE]
        images, references = [dataset.image(row) for row in batch], [dataset.mask(row) for row in batch]
        pixels, fits = segmenter.stack(images)
        logits = segmenter.predict_logits(pixels)
        if loss is not None:
            squares = [fit.mask(reference) for fit, reference in zip(fits, references, strict=True)]
            target = torch.from_numpy(np.stack(squares))[:, None].to(logits)
            total_loss += len(batch) * float(loss(logits, target))
        for reference, probs in zip(references, segmenter.restore(logits, fits), strict=True):
            measured.append(measure_slice(reference, apply_threshold(probs, threshold), probs))
        progress(len(measured), len(rows), f"evaluating {split}")
    table = pd.concat([names, pd.DataFrame(measured)], axis=1)
    return table, total_loss / len(rows) if loss is not None and len(rows) else float("nan")
