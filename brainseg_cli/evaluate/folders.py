"""A folder of predicted masks or probability maps against a folder of reference masks, whoever made them."""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import pandas as pd

from brainseg_cli.data.pairs import Pair, check_complete, hold_maps, name_some, pair_masks, read_pair
from brainseg_cli.errors import InputError, UsageError, count
from brainseg_cli.evaluate.side import Side, measure_all
from brainseg_cli.io.images import read_image
from brainseg_cli.io.inputs import parse_slice_index
from brainseg_cli.metrics.measure import PIXELS, Load, MaskPair, Ruler
from brainseg_cli.models.trained_on import find_seen
from brainseg_cli.types import Image, Mask, Probs, Progress, no_progress

Read = Callable[[Pair], tuple[Mask, Mask, Probs | None]]


def measure_folders(
    reference: Path,
    prediction: Path,
    *,
    threshold: float | None = None,
    missing_as_empty: bool = False,
    reference_suffix: str = "",
    prediction_suffix: str = "",
    images: Path | None = None,
    patient_regex: str | None = None,
    patients: Path | None = None,
    split: str | None = None,
    ruler: Ruler = PIXELS,
    workers: int | None = None,
    progress: Progress = no_progress,
) -> Side:
    """Measure the masks in one folder against those in another, matched as `data.pairs.pair_masks` says.

    With `threshold` the predictions are probability maps. Patients are the parent folders, or what `patient_regex`
    finds in the path; in a flat folder each file is its own, with a note. `patients` (a CSV of patient_id and
    split, as a run holds one) and `split` (default test) restrict the references to some patients. The loop runs
    over the references: one without a prediction is an InputError, or with `missing_as_empty` an empty mask and a
    note. A prediction without a reference is noted. Masks that a built-in model made of patients whom it was trained
    on make the result `leaky`, with a note. InputError for an unreadable mask or sizes that differ.
    """
    folder = Path(os.path.realpath(reference)).name
    members = None
    if patients is not None:
        members = _read_patients(patients, split or "test")
    elif split is not None:
        raise UsageError("--split with two folders needs --patients, the table that says who is in it")

    def patient_of(key: str) -> str:
        return _patient_of(key, folder, patient_regex)

    pairing = pair_masks(
        reference,
        prediction,
        reference_suffix=reference_suffix,
        prediction_suffix=prediction_suffix,
        images=images,
        wanted=None if members is None else lambda key: patient_of(key) in members,
    )
    pairs, notes = pairing.pairs, list(pairing.notes)
    owners = {pair.key: patient_of(pair.key) for pair in pairs}
    if patient_regex is None and (torn := _find_shared_names(owners)):
        if members is not None:
            raise InputError(
                f"{name_some(sorted(torn))}: the name of several folders, so not a patient's",
                where=reference,
                hint="--patient-regex says which part of a path names the patient",
            )
        owners = {key: key.rpartition("/")[0] or owner for key, owner in owners.items()}
        notes.append(
            f"folders in several places are called {name_some(sorted(torn))}: patients are told apart by their whole "
            "path; --patient-regex says otherwise"
        )
    if absent := (members or set()) - set(owners.values()):
        named = name_some(sorted(absent))
        raise InputError(f"{len(absent)} patients of {patients} are not there: {named}", where=reference)
    if not missing_as_empty:
        check_complete(pairing, prediction)
    elif missing := pairing.unmatched_references:
        notes.append(f"{len(missing)} references have no prediction and count as not found: {name_some(missing)}")
    flat = patient_regex is None and not any("/" in pair.key for pair in pairs)
    if flat and len(pairs) > 1 and len(set(owners.values())) == len(pairs):
        notes.append(
            "no folder says which slices are one patient's: each file counts as a patient of its own, and intervals "
            "over slices are far too narrow; --patient-regex finds the patient in a name"
        )
    first = {owners[pair.key]: pair.prediction for pair in reversed(pairs) if pair.prediction is not None}
    seen = find_seen(first.items())
    notes += [
        f"LEAKY: {name} made these masks, and was trained on {count(len(who), 'patient')} of those measured here"
        for name, who in seen.items()
    ]
    maps = threshold is not None and hold_maps(pair.prediction for pair in pairs if pair.prediction)
    if threshold is not None and not maps:
        notes.append("the probability maps hold 0 and 1 alone, as masks do: of ece and brier nothing can be learnt")

    read = partial(read_pair, threshold=threshold, maps=maps)
    by_key = {pair.key: pair for pair in pairs}

    def look(image: str) -> tuple[Image | None, Mask, Mask]:
        pair = by_key[image]
        reference, prediction, _ = read(pair)
        return _read_slice(pair, reference.shape, asked=images is not None), reference, prediction

    measures = measure_all(_group(pairs, owners, read), list(by_key), ruler, workers=workers, progress=progress)
    about = {
        "reference": str(reference),
        "prediction": str(prediction),
        "split": split or ("test" if patients else None),
        "leaky": bool(seen),
        "threshold": threshold,
        "threshold_from": None if threshold is None else "given",
        "threshold_sweep": None,
        "batch_soft_input": "masks" if threshold is None else "probabilities",
        "configuration": None,
        "unmatched": {"references": pairing.unmatched_references, "predictions": pairing.unmatched_predictions},
    }
    return Side(str(prediction), about, notes, measures, look)


def _group(pairs: Sequence[Pair], owners: dict[str, str], read: Read) -> Iterator[tuple[str, Load]]:
    grouped: dict[str, list[Pair]] = {}
    for pair in pairs:
        grouped.setdefault(owners[pair.key], []).append(pair)
    for patient_id, own in grouped.items():
        yield patient_id, partial(_load, own, read)


def _load(pairs: Sequence[Pair], read: Read) -> list[MaskPair]:
    return [MaskPair(pair.key, parse_slice_index(pair.key.rpartition("/")[2]), *read(pair)) for pair in pairs]


def _read_slice(pair: Pair, shape: tuple[int, ...], *, asked: bool) -> Image | None:
    """The slice that the masks belong to. One that was only found beside them, and does not fit, is left out."""
    if pair.image is None:
        return None
    try:
        picture = read_image(pair.image)
        if picture.shape[:2] != shape:
            (height, width), (rows, columns) = picture.shape[:2], shape
            raise InputError(f"is {width}x{height}, its reference {columns}x{rows}", where=pair.image)
    except InputError:
        if asked:
            raise
        return None
    return picture


def _patient_of(key: str, folder: str, patient_regex: str | None) -> str:
    if patient_regex is None:
        parent, _, stem = key.rpartition("/")
        # a patient's own folder names its slices: p/p_7
        return parent.rpartition("/")[2] or (folder if stem.startswith(folder) else stem)
    try:
        pattern = re.compile(patient_regex)
    except re.error as error:
        raise UsageError(f"--patient-regex {patient_regex!r} is no regular expression: {error}") from None
    if not pattern.groups:
        raise UsageError(f"--patient-regex {patient_regex!r} has no group: put the patient's part in ( )")
    found = pattern.search(key)
    if not found or not found[1]:
        raise InputError(f"--patient-regex {patient_regex!r} finds no patient in it", where=key)
    return found[1]


def _find_shared_names(owners: dict[str, str]) -> list[str]:
    """The patients whose slices lie in more than one folder: of one name, then, but not one patient."""
    folders: dict[str, set[str]] = {}
    for key, owner in owners.items():
        folders.setdefault(owner, set()).add(key.rpartition("/")[0])
    return [owner for owner, found in folders.items() if len(found) > 1]


def _read_patients(path: Path, split: str) -> set[str]:
    try:
        table = pd.read_csv(path, dtype=str, na_filter=False)
        chosen = set(table.loc[table["split"] == split, "patient_id"])
    except FileNotFoundError:
        raise InputError("is not there", where=path) from None
    except (OSError, ValueError) as error:
        raise InputError(f"cannot be read as CSV: {error}", where=path) from None
    except KeyError as error:
        raise InputError(f"has no column {error}", where=path) from None
    if not chosen:
        raise InputError(f"names no {split} patient", where=path)
    if torn := chosen & set(table.loc[table["split"] != split, "patient_id"]):
        named = name_some(sorted(torn))
        raise InputError(f"is leaky: {named} stand in several splits", where=path, hint="brainseg eval RUN")
    return chosen
