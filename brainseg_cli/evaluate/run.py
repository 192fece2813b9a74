"""A run's best weights on a split of a dataset, measured."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from brainseg_cli.data.manifest import Dataset
from brainseg_cli.errors import InputError, UsageError
from brainseg_cli.evaluate.side import Side, measure_all
from brainseg_cli.metrics.measure import PIXELS, Load, MaskPair, Ruler
from brainseg_cli.models.runtimes import Tell, tell_nobody
from brainseg_cli.training.run_folder import RunFolder
from brainseg_cli.types import Image, Json, Mask, Progress, Runtime, no_progress

if TYPE_CHECKING:
    from brainseg_cli.models.segmenter import Segmenter

SEEN = {"train": "the model was fitted to it", "val": "the best epoch was chosen on it"}


@dataclass(frozen=True)
class Opened:
    """A run's network and the slices that it is asked about, opened and not yet predicted."""

    run: RunFolder
    dataset: Dataset
    split: str
    segmenter: "Segmenter"
    threshold: float
    about: Json
    notes: list[str]

    @property
    def images(self) -> list[str]:
        """The names of the slices, in order."""
        return self._slices["image"].tolist()

    @property
    def awaited(self) -> dict[str, int]:
        """How many slices each patient has."""
        return dict(Counter(self._slices["patient_id"].tolist()))

    @property
    def _slices(self) -> pd.DataFrame:
        return self.dataset.slices.iloc[self.dataset.rows(self.split)]

    def predict(self, progress: Progress = no_progress) -> Iterator[tuple[str, MaskPair]]:
        """Every slice: its patient and its masks, in order."""
        # here, so that measuring two folders of masks starts without torch
        from brainseg_cli.models.segmenter import apply_threshold
        from brainseg_cli.training.measure import predict_split

        columns = ("patient_id", "image", "slice_index")
        owners, images, indices = (self.dataset.slices[name].tolist() for name in columns)
        for row, probs in predict_split(self.segmenter, self.dataset, self.split, progress=progress):
            mask = apply_threshold(probs, self.threshold)
            yield owners[row], MaskPair(images[row], indices[row], self.dataset.mask(row), mask, probs)

    def look(self, image: str) -> tuple[Image | None, Mask, Mask]:
        """One of its slices, with its reference and its prediction."""
        from brainseg_cli.models.segmenter import apply_threshold

        row = self.dataset.slices["image"].tolist().index(image)
        probs = self.segmenter.predict_probs([self.dataset.image(row)])[0]
        return self.dataset.image(row), self.dataset.mask(row), apply_threshold(probs, self.threshold)


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
    opened = open_run(
        path,
        on_slices_of=on_slices_of,
        dataset_path=dataset_path,
        split=split,
        threshold=threshold,
        device_name=device_name,
        runtime=runtime,
        verify=verify,
        tell=tell,
    )
    measures = measure_all(group(opened.predict(progress), opened.awaited), opened.images, ruler, workers=workers)
    return Side(str(path), opened.about, opened.notes, measures, opened.look)


def open_run(
    path: Path,
    *,
    on_slices_of: Path | None = None,
    dataset_path: Path | None = None,
    split: str | None = None,
    threshold: float | None = None,
    device_name: str = "auto",
    runtime: Runtime = "auto",
    verify: bool = True,
    tell: Tell = tell_nobody,
) -> Opened:
    """What `measure_run` measures; arguments and errors as there."""
    from brainseg_cli.models.locate import find_bundle, open_bundle
    from brainseg_cli.models.runtimes import Choice, open_network
    from brainseg_cli.models.segmenter import Segmenter

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

    bundle = open_bundle(find_bundle(path), verify=verify)
    # never in less: what is reported does not depend on the machine
    network = open_network(bundle, Choice(runtime, device_name, "fp32"), tell=tell)
    chosen = bundle.info.threshold if threshold is None else threshold
    threshold_from = bundle.info.threshold_from if threshold is None else "given"
    if is_own and split == threshold_from == "val":
        notes.append("the threshold was chosen on these very slices")
    about = {
        "run": Path(os.path.realpath(path)).name,
        "epoch": bundle.info.epoch,
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
    return Opened(run, dataset, split, Segmenter(network), chosen, about, notes)


def group(pairs: Iterable[tuple[str, MaskPair]], awaited: Mapping[str, int]) -> Iterator[tuple[str, Load]]:
    """Slices as they come to patients, each as soon as its last slice is there: `awaited` is how many they have."""
    collected: dict[str, list[MaskPair]] = {}
    for patient_id, pair in pairs:
        collected.setdefault(patient_id, []).append(pair)
        if len(collected[patient_id]) == awaited[patient_id]:
            yield patient_id, partial(list, collected.pop(patient_id))


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
