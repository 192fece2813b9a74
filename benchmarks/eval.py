"""All metrics of `eval` on every slice of a dataset, in memory, against MONAI's Dice and HD95 alone."""

import warnings
from functools import partial
from importlib.metadata import version
from pathlib import Path

import cv2
import numpy as np
import torch
from monai.metrics import DiceMetric, HausdorffDistanceMetric

from benchmarks.timing import tabulate, time_in_turns, write_results
from brainseg_cli.data.manifest import Dataset, load_dataset
from brainseg_cli.evaluate import Side, conclude
from brainseg_cli.evaluate.side import measure_all
from brainseg_cli.metrics.measure import PIXELS, MaskPair
from brainseg_cli.types import Mask

MONAI_BATCH = 64


def disturb(dataset: Dataset) -> list[Mask]:
    """A prediction for each reference: by turns it is moved, grown, shrunk, forgotten, or the slice before it."""
    box = np.ones((5, 5), np.uint8)
    predictions = []
    for row in range(len(dataset.slices)):
        mask = np.ascontiguousarray(dataset.mask(row))
        made = (
            np.roll(mask, (3, -2), axis=(0, 1)),
            cv2.dilate(mask, box),
            cv2.erode(mask, box),
            mask if row % 3 else np.zeros_like(mask),
            np.ascontiguousarray(dataset.mask(max(0, row - 1))),
        )[row % 5]
        predictions.append(np.asarray(made, np.uint8))
    return predictions


def run(data: Path, repeats: int) -> None:
    """Print the table and write it."""
    dataset = load_dataset(data)
    references = [np.ascontiguousarray(dataset.mask(row)) for row in range(len(dataset.slices))]
    predictions = disturb(dataset)
    named = dataset.slices[["image", "patient_id", "slice_index"]].itertuples(index=False)
    pairs: dict[str, list[MaskPair]] = {}
    for (image, patient_id, index), reference, prediction in zip(named, references, predictions, strict=True):
        pairs.setdefault(patient_id, []).append(MaskPair(image, index, reference, prediction))
    images = dataset.slices["image"].tolist()

    def measure(workers: int) -> object:
        loads = ((patient_id, partial(list, own)) for patient_id, own in pairs.items())
        measures = measure_all(loads, images, PIXELS, workers=workers)
        return conclude(Side("benchmark", {"leaky": False}, [], measures, lambda image: (None, *masks[image])))

    masks = dict(zip(images, zip(references, predictions, strict=True), strict=True))
    stacks = [torch.from_numpy(np.stack(side))[:, None] for side in (predictions, references)]
    with_tumour = [place for place, (a, b) in enumerate(zip(references, predictions, strict=True)) if a.any() or b.any()]
    sides = {
        "brainseg eval, every metric": partial(measure, 1),
        "the same, two workers": partial(measure, 2),
        "MONAI, dice and hd95": partial(compute_monai, *stacks),
        "MONAI, only the pairs with tumour": partial(compute_monai, *(stack[with_tumour] for stack in stacks)),
    }
    table = tabulate(time_in_turns(sides, repeats), len(references), ours="brainseg eval, every metric")
    print(f"{len(references)} pairs, {len(with_tumour)} of them with tumour in one mask or both")  # noqa: T201
    print(table.to_string(index=False))  # noqa: T201
    versions = {name: version(name) for name in ("brainseg", "torch", "monai", "numpy", "scipy")}
    print(write_results("eval", table, versions))  # noqa: T201


def compute_monai(predictions: torch.Tensor, references: torch.Tensor) -> None:
    """Both metrics of uint8 (N, 1, H, W), in batches, as MONAI's documentation has it."""
    dice, hd95 = DiceMetric(), HausdorffDistanceMetric(include_background=True, percentile=95)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one a slice that is empty in a mask
        for start in range(0, len(references), MONAI_BATCH):
            batch = slice(start, start + MONAI_BATCH)
            dice(predictions[batch], references[batch])
            hd95(predictions[batch], references[batch])
    dice.aggregate()
    hd95.aggregate()
