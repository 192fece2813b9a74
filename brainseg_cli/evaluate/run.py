"""A run's best weights on a split of a dataset, measured."""

import os
from collections.abc import Iterator, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np

from brainseg_cli.data.manifest import Dataset
from brainseg_cli.errors import InputError, UsageError
from brainseg_cli.evaluate.side import Side, measure_all
from brainseg_cli.metrics.measure import PIXELS, Load, MaskPair, Ruler
from brainseg_cli.models.runtimes import Tell, tell_nobody
from brainseg_cli.training.run_folder import RunFolder
from brainseg_cli.types import Image, Mask, Progress, Runtime, no_progress

SEEN = {"train": "the model was fitted to it", "val": "the best epoch was chosen on it"}


def measure_run(
    path: Path,
    *,
    on_slices_of: Path | None = None,
    dataset_path: Path | None = None,
    split: str | None = None,
    threshold: float | None = None,
    ruler: Ruler = PIXELS,
    device_name: str = "auto",
    runtime: Runtime = "auto",
    workers: int | None = None,
    verify: bool = True,
    tell: Tell = tell_nobody,
    progress: Progress = no_progress,
) -> Side:
    """Predict a split of the run's dataset with its best weights and measure it at the slices' own size.

    `dataset_path` and the fold default to the run's own, or to those of the run `on_slices_of`, so that two runs can
    be compared. `split` defaults to test; where there is no test slice, to val, else to train, with a note. `threshold`
    defaults to the bundle's. InputError where run, weights or dataset are missing, or the dataset's slices are
    not those that the run was made with and no other dataset was asked for; UsageError for a split without
    slices. Where patients are measured that the run has seen, the result is `leaky`.
    """
    # here, so that measuring two folders of masks starts without torch
    from brainseg_cli.models.locate import find_bundle, open_bundle
    from brainseg_cli.models.runtimes import Choice, open_network
    from brainseg_cli.models.segmenter import Segmenter, apply_threshold
    from brainseg_cli.training.measure import predict_split

    run = RunFolder(path)
    info = run.read_info()
    home = RunFolder(on_slices_of or path)
    dataset = home.load_dataset(dataset_path, verify=verify)
    is_own = (dataset.info.content_hash, dataset.split_hash()) == (info.dataset_hash, info.split_hash)
    if not is_own and dataset_path is None and on_slices_of is None:
        raise InputError("was prepared anew since this run; its slices or splits differ", where=dataset.folder)
    split, notes = _choose_split(dataset, split, is_own=is_own)
    leaky = info.leaky or dataset.info.leaky
    if leaky:
        notes.append("LEAKY: slices of one patient stand in several splits; these numbers flatter")
    if not is_own:
        notes.append("this dataset, or its split, is not the one the run was trained with")
        if seen := _count_seen(run, dataset, split):
            leaky = True
            notes.append(f"LEAKY: the run was trained or chosen on {seen} of the patients measured here")

    opened = open_bundle(find_bundle(path), verify=verify)
    bundle = opened.info
    # never in less: what is reported does not depend on the machine
    network = open_network(opened, Choice(runtime, device_name, "fp32"), tell=tell)
    segmenter = Segmenter(network)
    chosen = bundle.threshold if threshold is None else threshold
    threshold_from = bundle.threshold_from if threshold is None else "given"
    if is_own and split == threshold_from == "val":
        notes.append("the threshold was chosen on these very slices")
    images = dataset.slices["image"].tolist()
    indices = dataset.slices["slice_index"].tolist()

    def pair(row: int, probs: np.ndarray) -> MaskPair:
        return MaskPair(images[row], indices[row], dataset.mask(row), apply_threshold(probs, chosen), probs)

    def look(image: str) -> tuple[Image | None, Mask, Mask]:
        row = images.index(image)
        probs = segmenter.predict_probs([dataset.image(row)])[0]
        return dataset.image(row), dataset.mask(row), apply_threshold(probs, chosen)

    rows = dataset.rows(split).tolist()
    predicted = predict_split(segmenter, dataset, split, progress=progress)
    measures = measure_all(
        _group(dataset, rows, (pair(row, probs) for row, probs in predicted)),
        [images[row] for row in rows],
        ruler,
        workers=workers,
    )
    about = {
        "run": Path(os.path.realpath(path)).name,
        "epoch": bundle.epoch,
        "dataset_hash": dataset.info.content_hash,
        "split": split,
        "split_name": dataset.info.split,
        "fold": home.read_info().fold,
        "split_hash": dataset.split_hash(),
        "leaky": leaky,
        "threshold": chosen,
        "threshold_from": threshold_from,
        "threshold_sweep": run.read_thresholds(),
        "batch_soft_input": "probabilities",
        "torch_version": version("torch"),
        "device": network.described,
        "configuration": run.read_config().model_dump(mode="json"),
    }
    return Side(str(path), about, notes, measures, look)


def _choose_split(dataset: Dataset, split: str | None, *, is_own: bool) -> tuple[str, list[str]]:
    """The split to measure and what there is to say of it; `is_own` where the run was trained with this dataset."""
    notes = []
    if split is None:
        split = next((name for name in ("test", "val") if len(dataset.rows(name))), "train")
        if split != "test":
            notes.append(f"there is no test split: {split} stands in for it")
    if not len(dataset.rows(split)):
        raise UsageError(f"the dataset has no {split} slices")
    if is_own and split in SEEN:
        notes.append(f"the {split} split is not held out: {SEEN[split]}")
    return split, notes


def _count_seen(run: RunFolder, dataset: Dataset, split: str) -> int:
    """How many patients of this split the run was trained or chosen on."""
    known = run.read_split()
    measured = set(dataset.slices["patient_id"].iloc[dataset.rows(split)])
    return len(measured & (known.get("train", set()) | known.get("val", set())))


def _group(dataset: Dataset, rows: Sequence[int], pairs: Iterator[MaskPair]) -> Iterator[tuple[str, Load]]:
    """Slices as they come to patients, each as soon as its last slice is there."""
    owners = dataset.slices["patient_id"].iloc[list(rows)]
    awaited = owners.value_counts().to_dict()
    collected: dict[str, list[MaskPair]] = {}
    for patient_id, pair in zip(owners, pairs, strict=True):
        collected.setdefault(patient_id, []).append(pair)
        if len(collected[patient_id]) == awaited[patient_id]:
            yield patient_id, partial(list, collected.pop(patient_id))
