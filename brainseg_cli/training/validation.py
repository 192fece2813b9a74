"""What an epoch is judged by: a split through the network, counted at the slices' own size, and nothing more.

Batches can be shared out among processes: what each of them measured, in any order, makes the same numbers.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from brainseg_cli.config import PreprocessConfig
from brainseg_cli.data.manifest import Dataset
from brainseg_cli.metrics import counts
from brainseg_cli.models.losses import Loss
from brainseg_cli.models.network import TorchNetwork
from brainseg_cli.models.segmenter import Squares as Probabilities
from brainseg_cli.models.segmenter import apply_threshold
from brainseg_cli.training.measure import BATCH_SIZE, one_ahead
from brainseg_cli.training.squares import Squares

Rows = npt.NDArray[np.int64]


class Validated(NamedTuple):
    """Slices that were measured, one place each: row in the dataset, tp, fp, fn, tn, and the loss of its batch."""

    rows: Rows
    counts: npt.NDArray[np.int64]
    """(n, 4), pixels."""
    losses: npt.NDArray[np.float64]


def join_parts(parts: Sequence[Validated]) -> Validated:
    """All of them in dataset order, whatever order they come in."""
    rows = np.concatenate([part.rows for part in parts])
    order = np.argsort(rows)
    return Validated(
        rows[order],
        np.concatenate([part.counts for part in parts])[order],
        np.concatenate([part.losses for part in parts])[order],
    )


class Validation:
    """A split of a dataset, with the geometry of its slices, which is the same every epoch."""

    def __init__(self, dataset: Dataset, split: str, preprocess: PreprocessConfig, loss: Loss) -> None:
        self.dataset, self.loss = dataset, loss
        self.squares = Squares(dataset, preprocess)
        rows = dataset.rows(split)
        self.batches: list[Rows] = [rows[start : start + BATCH_SIZE] for start in range(0, len(rows), BATCH_SIZE)]

    def measure(self, network: TorchNetwork, batches: Sequence[Rows], *, threshold: float) -> Validated:
        """Counts of the masks at `threshold`, and losses, of these of its `batches`; none of them give no slices."""
        done: list[counts.Counts] = []
        losses: list[Tensor] = []
        for begun in one_ahead(self._begin(network, rows) for rows in batches):
            losses.append(begun.loss.expand(len(begun.rows)))
            for row, probs in zip(begun.rows.tolist(), begun.wait(), strict=True):
                mask = apply_threshold(self.squares.fit(row).restore(probs), threshold)
                done.append(counts.compute_counts(self.dataset.mask(row), mask))
        return Validated(
            np.concatenate([np.empty(0, np.int64), *batches]),
            np.array(done, np.int64).reshape(-1, 4),
            torch.cat(losses).cpu().double().numpy() if losses else np.empty(0),
        )

    def summarise(self, found: Validated) -> dict[str, float]:
        """The numbers of a row of metrics.csv, defined as in `metrics.aggregate`; NaN where nothing defines one."""
        tp, fp, fn, tn = (int(sums) for sums in found.counts.sum(axis=0))
        owners = self.dataset.slices["patient_id"].to_numpy()[found.rows]
        places = np.unique(owners, return_inverse=True)[1]
        of_patients = np.zeros((places.max(initial=-1) + 1, 4), np.int64)
        np.add.at(of_patients, places, found.counts)
        with_tumour = of_patients[of_patients[:, 0] + of_patients[:, 2] > 0]
        scores = counts.dice(*with_tumour[:, :3].T)
        return {
            "val_loss": _mean(found.losses),
            "val_dice": float(counts.dice(tp, fp, fn)),
            "val_iou": float(counts.iou(tp, fp, fn)),
            "val_accuracy": float(counts.accuracy(tp, fp, fn, tn)),
            "val_dice_patient": _mean(scores),
            "val_predicted_px": tp + fp,
        }

    @torch.inference_mode()
    def _begin(self, network: TorchNetwork, rows: Rows) -> "_Begun":
        on_gpu = network.device.type == "cuda"
        pixels = torch.from_numpy(np.stack([self.squares.image(row) for row in rows.tolist()]))
        masks = torch.from_numpy(np.stack([self.squares.mask(row) for row in rows.tolist()]))
        if on_gpu:
            pixels, masks = pixels.pin_memory(), masks.pin_memory()
        logits = network.logits(pixels)
        loss = self.loss(logits, masks.to(network.device, non_blocking=on_gpu)[:, None].float())
        probs = logits.sigmoid()[:, 0].to("cpu", non_blocking=on_gpu)
        landed = torch.cuda.Event() if on_gpu else None  # type: ignore[no-untyped-call]
        if landed is not None:
            landed.record(torch.cuda.current_stream(network.device))
        return _Begun(rows, loss, probs, landed)


class _Begun(NamedTuple):
    """A batch on its way: its loss on the device, and its probabilities (N, size, size) once they have landed."""

    rows: Rows
    loss: Tensor
    probs: Tensor
    landed: torch.cuda.Event | None

    def wait(self) -> Probabilities:
        if self.landed is not None:
            self.landed.synchronize()
        squares: Probabilities = self.probs.numpy()
        return squares


def _mean(values: npt.NDArray[np.float64]) -> float:
    return float(values.mean()) if len(values) else float("nan")
