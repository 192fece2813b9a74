"""A k-fold, every patient measured by the one network that has not seen them."""

import os
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from brainseg_cli.errors import InputError, UsageError, count
from brainseg_cli.evaluate.run import Opened, group, open_run
from brainseg_cli.evaluate.side import Side, measure_all
from brainseg_cli.io.atomic import write_bytes
from brainseg_cli.io.embedded import encode_mask, encode_probs
from brainseg_cli.metrics.measure import PIXELS, MaskPair, Ruler
from brainseg_cli.models.locate import find_folds
from brainseg_cli.models.runtimes import Tell, tell_nobody
from brainseg_cli.training.run_folder import RunFolder
from brainseg_cli.types import Image, Mask, Progress, Runtime, no_progress

MASKS, MAPS = "masks", "probabilities"
"""Folders within the one for what is predicted."""


def measure_kfold(
    path: Path,
    *,
    keep_in: Path | None = None,
    dataset_path: Path | None = None,
    threshold: float | None = None,
    ruler: Ruler = PIXELS,
    device_name: str = "auto",
    runtime: Runtime = "auto",
    workers: int | None = None,
    verify: bool = True,
    tell: Tell = tell_nobody,
    progress: Progress = no_progress,
) -> Side:
    """Measure the test split of every run fold* in `path`, each with its own network and threshold, as one.

    With `keep_in` masks/ and probabilities/ of every slice are written there, in the place of those it holds. Arguments
    as `measure_run`, and its errors; InputError where the runs do not test every slice of one dataset once.
    """
    opened = [
        open_run(
            fold,
            dataset_path=dataset_path,
            split="test",
            threshold=threshold,
            device_name=device_name,
            runtime=runtime,
            verify=verify,
            tell=tell,
        )
        for fold in find_folds(path)
    ]
    images = _check_folds(path, opened)
    places = {image: each for each in opened for image in each.images}
    pairs = _predict(opened, len(images), progress)
    if keep_in is not None:
        for kept in (keep_in / MASKS, keep_in / MAPS):
            if kept.exists():
                shutil.rmtree(kept)
        pairs = _keep(pairs, keep_in)
    awaited = {patient: slices for each in opened for patient, slices in each.awaited.items()}
    measures = measure_all(group(pairs, awaited), images, ruler, workers=workers)

    def look(image: str) -> tuple[Image | None, Mask, Mask]:
        return places[image].look(image)

    thresholds = [each.threshold for each in opened]
    notes = list(dict.fromkeys(note for each in opened for note in each.notes))
    about = opened[0].about | {
        "run": Path(os.path.realpath(path)).name,
        "epoch": None,
        "fold": None,
        "folds": len(opened),
        "split_hash": None,
        "leaky": any(each.about["leaky"] for each in opened),
        "threshold": thresholds[0] if len(set(thresholds)) == 1 else None,
        "thresholds": thresholds,
        "threshold_sweep": None,
    }
    return Side(str(path), about, notes, measures, look)


def _check_folds(path: Path, opened: list[Opened]) -> list[str]:
    """The names of all slices, in the dataset's order: each is tested by one fold. InputError where they are not."""
    dataset = opened[0].dataset
    if {each.about["dataset_hash"] for each in opened} != {dataset.info.content_hash}:
        raise InputError("its folds were trained on different datasets", where=path)
    images: list[str] = dataset.slices["image"].tolist()
    tested = Counter(image for each in opened for image in each.images)
    if several := sum(number > 1 for number in tested.values()):
        told = f"its runs are not the folds of one k-fold: {count(several, 'slice')} tested by several"
        raise InputError(told, where=path, hint="brainseg eval measures each by itself")
    if absent := len(images) - len(tested):
        resuming = RunFolder(path).resuming
        raise InputError(f"has not every fold: {count(absent, 'slice')} tested by none", where=path, hint=resuming)
    return images


def _predict(opened: list[Opened], total: int, progress: Progress) -> Iterator[tuple[str, MaskPair]]:
    done = 0
    for each in opened:
        for pair in each.predict():
            yield pair
            done += 1
            progress(done, total, "evaluating every fold")


def _keep(pairs: Iterator[tuple[str, MaskPair]], folder: Path) -> Iterator[tuple[str, MaskPair]]:
    for patient_id, pair in pairs:
        name = PurePosixPath(pair.image).with_suffix(".png")
        if name.is_absolute() or ".." in name.parts:
            raise UsageError(f"{pair.image} would be written outside {folder}")
        assert pair.probs is not None
        write_bytes(folder / MASKS / name, encode_mask(pair.prediction, ".png"))
        write_bytes(folder / MAPS / name, encode_probs(pair.probs, ".png"))
        yield patient_id, pair
