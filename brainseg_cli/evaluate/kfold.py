"""A k-fold, every patient measured by the one network that has not seen them."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from brainseg_cli.errors import InputError, UsageError
from brainseg_cli.evaluate.run import Opened, group, open_run
from brainseg_cli.evaluate.side import Side, measure_all
from brainseg_cli.io.atomic import write_bytes
from brainseg_cli.io.embedded import encode_mask, encode_probs
from brainseg_cli.metrics.measure import PIXELS, MaskPair, Ruler
from brainseg_cli.models.locate import find_folds
from brainseg_cli.models.runtimes import Tell, tell_nobody
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
    as `measure_run`, and its errors; InputError where the runs are not the folds of one dataset, or not all of them.
    """
    opened: list[Opened] = []
    for fold in find_folds(path):
        first = not opened  # the files are the same for all
        asked = {"dataset_path": dataset_path, "threshold": threshold, "device_name": device_name, "runtime": runtime}
        opened.append(open_run(fold, split="test", verify=verify and first, tell=tell, **asked))  # type: ignore[arg-type]
    _check_folds(path, opened)
    places = {image: each for each in opened for image in each.images}
    pairs = _predict(opened, len(places), progress)
    if keep_in is not None:
        shutil.rmtree(keep_in, ignore_errors=True)
        pairs = _keep(pairs, keep_in)
    awaited = {patient: slices for each in opened for patient, slices in each.awaited.items()}
    images = [image for image in opened[0].dataset.slices["image"] if image in places]
    measures = measure_all(group(pairs, awaited), images, ruler, workers=workers)

    def look(image: str) -> tuple[Image | None, Mask, Mask]:
        return places[image].look(image)

    thresholds = {each.threshold for each in opened}
    shared = thresholds.pop() if len(thresholds) == 1 else None
    notes = [f"every patient is predicted by the one of {len(opened)} networks that was not trained on them"]
    notes += dict.fromkeys(note for each in opened for note in each.notes)
    if shared is None:
        notes.append(f"thresholds by fold: {', '.join(f'{each.threshold:.4g}' for each in opened)}")
    about = opened[0].about | {
        "run": Path(os.path.realpath(path)).name,
        "epoch": None,
        "fold": None,
        "folds": len(opened),
        "split_hash": None,
        "leaky": any(each.about["leaky"] for each in opened),
        "threshold": shared,
        "threshold_sweep": None,
    }
    return Side(str(path), about, notes, measures, look)


def _check_folds(path: Path, opened: list[Opened]) -> None:
    dataset = opened[0].dataset
    if {each.dataset.info.content_hash for each in opened} != {dataset.info.content_hash}:
        raise InputError("its folds were trained on different datasets", where=path)
    if not dataset.info.split.startswith("kfold:"):
        raise InputError("its runs are not the folds of a k-fold", where=path, hint="brainseg eval RUN, one by one")
    tested = [each.about["fold"] for each in opened]
    wanted = list(range(int(dataset.info.split.partition(":")[2])))
    if sorted(tested) != wanted:
        absent = ", ".join(str(fold) for fold in wanted if fold not in tested)
        told = f"has not every fold once: {absent or 'one stands there twice'}"
        raise InputError(told, where=path, hint="brainseg train --fold all --resume trains what is missing")


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
