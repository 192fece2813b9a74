"""All metrics of `eval` on every slice of a dataset, in memory, against MONAI's Dice and HD95 alone."""

import multiprocessing
import warnings
from functools import partial
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path

import cv2
import numpy as np

from benchmarks.timing import tabulate, time_in_turns, write_results
from brainseg_cli.data.manifest import Dataset, load_dataset
from brainseg_cli.evaluate.side import measure_all
from brainseg_cli.metrics.measure import PIXELS, MaskPair
from brainseg_cli.metrics.summary import summarise_measures
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


def read_pairs(dataset: Dataset) -> tuple[list[Mask], list[Mask]]:
    """References and predictions, slice by slice."""
    return [np.ascontiguousarray(dataset.mask(row)) for row in range(len(dataset.slices))], disturb(dataset)


def run(data: Path, repeats: int) -> None:
    """Print the table and write it. MONAI, and with it torch, lives in a process of its own."""
    dataset = load_dataset(data)
    references, predictions = read_pairs(dataset)
    named = dataset.slices[["image", "patient_id", "slice_index"]].itertuples(index=False)
    pairs: dict[str, list[MaskPair]] = {}
    for (image, patient_id, index), reference, prediction in zip(named, references, predictions, strict=True):
        pairs.setdefault(patient_id, []).append(MaskPair(image, index, reference, prediction))
    images = dataset.slices["image"].tolist()

    def measure() -> None:
        loads = ((patient_id, partial(list, own)) for patient_id, own in pairs.items())
        summarise_measures(measure_all(loads, images, PIXELS, workers=1))

    here, there = multiprocessing.Pipe()
    other = multiprocessing.get_context("spawn").Process(target=_serve_monai, args=(there, data), daemon=True)
    other.start()

    def ask_monai(how: str) -> None:
        here.send(how)
        here.recv()

    ours = "brainseg: every metric and its interval"
    sides = {
        ours: measure,
        "MONAI: dice and hd95, a list of MetaTensors": partial(ask_monai, "items"),
        f"the same, batches of {MONAI_BATCH} plain tensors": partial(ask_monai, "batches"),
    }
    table = tabulate(time_in_turns(sides, repeats), len(references), ours=ours)
    other.terminate()
    some = sum(a.any() or b.any() for a, b in zip(references, predictions, strict=True))
    print(f"{len(references)} pairs, {some} of them with tumour in one mask or both")  # noqa: T201
    print(table.to_string(index=False))  # noqa: T201
    versions = {name: version(name) for name in ("brainseg", "torch", "monai", "numpy", "scipy")}
    print(write_results("eval", table, versions))  # noqa: T201


def _serve_monai(connection: Connection, data: Path) -> None:
    """Both metrics of all pairs, as often as `items` or `batches` is sent.

    `items` is how MONAI's tutorials validate, a decollated list of what its transforms give; `batches` is the
    fastest way there is. Making the tensors is not counted.
    """
    import torch
    from monai.data import MetaTensor
    from monai.metrics import DiceMetric, HausdorffDistanceMetric

    sides = [torch.from_numpy(np.stack(side))[:, None] for side in read_pairs(load_dataset(data))]
    items = [[[MetaTensor(mask.float())] for mask in side] for side in sides]
    batches = [side.split(MONAI_BATCH) for side in sides]
    warnings.simplefilter("ignore")  # one a slice that is empty in a mask
    while True:
        how = connection.recv()
        dice, hd95 = DiceMetric(), HausdorffDistanceMetric(include_background=True, percentile=95)
        for references, predictions in zip(*(items if how == "items" else batches), strict=True):
            dice(predictions, references)
            hd95(predictions, references)
        dice.aggregate()
        hd95.aggregate()
        connection.send(how)
