"""eval: a run, or two folders of masks, to every number of the metrics policy, each with its definition."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from brainseg_cli import __version__
from brainseg_cli.data.manifest import load_dataset
from brainseg_cli.errors import InputError, UsageError
from brainseg_cli.io.atomic import check_absent, write_json, write_text
from brainseg_cli.io.images import read_mask
from brainseg_cli.io.inputs import MASK_ENDING, index_by_key, parse_slice_index
from brainseg_cli.metrics.aggregate import (
    BATCH_SIZE,
    DEFINITIONS,
    HEADLINE,
    add_ratios,
    find_nothing,
    measure_slice,
    sum_by_patient,
    summarise,
)
from brainseg_cli.training.run_folder import RunFolder
from brainseg_cli.types import Json, Progress, no_progress

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Evaluation:
    """`summary` is what summary.json holds; `slices` and `patients` are the tables behind it."""

    summary: Json
    slices: pd.DataFrame
    patients: pd.DataFrame


def evaluate_run(
    path: Path,
    *,
    dataset_path: Path | None = None,
    split: str | None = None,
    threshold: float | None = None,
    batch_size: int = BATCH_SIZE,
    device_name: str = "auto",
    progress: Progress = no_progress,
) -> Evaluation:
    """Predict a split of the run's dataset with its best weights and measure it at the slices' own size.

    `split` defaults to test; where there is no test slice, to val, else to train, with a note. `threshold`
    defaults to the bundle's. InputError where run, weights or dataset are missing, or the dataset's slices are
    not those that the run was made with; UsageError for a split without slices.
    """
    import torch  # here, so that measuring two folders of masks starts without it

    from brainseg_cli.models.bundle import load_bundle
    from brainseg_cli.models.devices import choose_device
    from brainseg_cli.models.segmenter import Segmenter
    from brainseg_cli.training.measure import measure_split

    run = RunFolder(path)
    info = run.read_info()
    dataset = load_dataset(dataset_path or Path(info.dataset))
    dataset = dataset.with_fold(info.fold if dataset.has_folds else None)
    notes = []
    if (dataset.info.content_hash, dataset.split_hash()) != (info.dataset_hash, info.split_hash):
        if dataset_path is None:
            raise InputError("was prepared anew since this run; its slices or splits differ", where=dataset.folder)
        notes.append(
            "this dataset, or its split, is not the one the run was trained with: its patients may have been trained on"
        )
    if split is None:
        split = next(name for name in ("test", "val", "train") if len(dataset.rows(name)) or name == "train")
        if split == "val":
            notes.append("there is no test split: these are the slices the best epoch was chosen on")
        elif split == "train":
            notes.append("there is no test and no val split: these are the slices the model was fitted to")
    elif split in ("train", "val"):
        notes.append(
            f"the {split} split is not held out: the model was {'fitted to' if split == 'train' else 'chosen on'} it"
        )
    if not len(dataset.rows(split)):
        raise UsageError(f"the dataset has no {split} slices")
    leaky = info.leaky or dataset.info.leaky
    if leaky:
        notes.append("LEAKY: slices of one patient stand in several splits; these numbers flatter")
    model, bundle = load_bundle(path)
    segmenter = Segmenter(model, bundle.preprocess, len(bundle.channel_names), choose_device(device_name))
    threshold = bundle.threshold if threshold is None else threshold
    table, _ = measure_split(segmenter, dataset, split, threshold=threshold, progress=progress)
    about = {
        "run": path.resolve().name,
        "epoch": bundle.epoch,
        "dataset_hash": dataset.info.content_hash,
        "split": split,
        "split_name": dataset.info.split,
        "split_hash": dataset.split_hash(),
        "leaky": leaky,
        "threshold": threshold,
        "batch_soft_input": "probabilities",
        "torch_version": torch.__version__,
    }
    return _conclude(table, about, notes, batch_size)


def evaluate_folders(
    reference: Path,
    prediction: Path,
    *,
    patient_regex: str | None = None,
    patients_from: Path | None = None,
    split: str | None = None,
    batch_size: int = BATCH_SIZE,
    progress: Progress = no_progress,
) -> Evaluation:
    """Measure the masks in one folder against those in another, matched by relative path and stem.

    A trailing `_mask` does not count in the match, and where the reference folder holds `x_mask` files only
    those are references. Patients are the parent folders, or what `patient_regex` finds in the path; in a
    flat folder each file is its own, with a note. `patients_from` (a CSV of patient_id and split, as a run
    holds one) and `split` (default test) restrict the references to some patients. The loop runs over the
    references: one without a prediction is an InputError, a prediction without a reference is counted in a
    note. InputError for an unreadable mask or sizes that differ.
    """
    references = _choose_references(reference)
    predictions = index_by_key(prediction)
    patients = {key: _patient_of(key, reference.resolve().name, patient_regex) for key in references}
    notes = []
    if patients_from is not None:
        wanted = _read_patients(patients_from, split or "test")
        references = {key: path for key, path in references.items() if patients[key] in wanted}
        absent = wanted - {patients[key] for key in references}
        if absent:
            raise InputError(
                f"{len(absent)} patients of {patients_from} are not there: {_some(absent)}", where=reference
            )
    elif split is not None:
        raise UsageError("--split with two folders needs --patients, the table that says who is in it")
    if not references:
        raise InputError("holds no reference mask", where=reference)
    missing = [key for key in references if key not in predictions]
    if missing:
        raise InputError(
            f"has no prediction for {len(missing)} of {len(references)} references: {_some(missing)}", where=prediction
        )
    if extra := predictions.keys() - references.keys():
        notes.append(f"{len(extra)} predictions have no reference and are not counted: {_some(extra)}")
    if len(references) > 1 and {patients[key] for key in references} == set(references):
        notes.append("no folder says which slices are one patient's: each file counts as a patient of its own")

    rows: list[dict[str, Any]] = []
    for key, path in references.items():
        truth, found = read_mask(path), read_mask(predictions[key])
        if truth.shape != found.shape:
            raise InputError(
                f"is {found.shape[1]}x{found.shape[0]}, its reference {truth.shape[1]}x{truth.shape[0]}",
                where=predictions[key],
            )
        named = {"image": key, "patient_id": patients[key], "slice_index": parse_slice_index(key.rpartition("/")[2])}
        rows.append(named | measure_slice(truth, found, found))
        progress(len(rows), len(references), "comparing masks")
    table = pd.DataFrame(rows)
    table["slice_index"] = table["slice_index"].astype("Int64")
    about = {
        "reference": str(reference),
        "prediction": str(prediction),
        "split": split or ("test" if patients_from else None),
        "leaky": False,
        "batch_soft_input": "masks",
    }
    return _conclude(table, about, notes, batch_size)


def write_report(evaluation: Evaluation, out: Path, *, overwrite: bool = False) -> None:
    """summary.json, slices.csv and patients.csv into the folder `out`. OutputExistsError unless `overwrite`."""
    check_absent(out, overwrite=overwrite)
    write_text(out / "slices.csv", evaluation.slices.to_csv(index=False))
    write_text(out / "patients.csv", evaluation.patients.to_csv(index=False))
    write_json(out / "summary.json", evaluation.summary)


def _conclude(table: pd.DataFrame, about: Json, notes: Sequence[str], batch_size: int) -> Evaluation:
    measured = summarise(table, batch_size=batch_size)
    summary = {
        "schema_version": SCHEMA_VERSION,
        "brainseg_version": __version__,
        "headline": HEADLINE,
        **about,
        **measured,
        "find_nothing": summarise(find_nothing(table), batch_size=batch_size)["metrics"],
        "definitions": DEFINITIONS,
        "notes": list(notes),
    }
    slices = add_ratios(table)
    return Evaluation(summary, slices, sum_by_patient(slices))


def _choose_references(folder: Path) -> dict[str, Path]:
    found = index_by_key(folder)
    named = {key: path for key, path in found.items() if path.stem.endswith(MASK_ENDING)}
    return named or found


def _patient_of(key: str, folder: str, patient_regex: str | None) -> str:
    if patient_regex is None:
        parent, _, stem = key.rpartition("/")
        # a patient's own folder names its slices: p/p_7
        return parent.rpartition("/")[2] or (folder if stem.startswith(folder) else stem)
    try:
        found = re.search(patient_regex, key)
    except re.error as error:
        raise UsageError(f"--patient-regex {patient_regex!r} is no regular expression: {error}") from None
    if not found or not found.groups() or not found[1]:
        raise InputError(f"--patient-regex {patient_regex!r} finds no patient in it", where=key)
    return found[1]


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
        raise InputError(f"is leaky: {_some(torn)} stand in several splits", where=path, hint="brainseg eval RUN")
    return chosen


def _some(names: set[str] | Sequence[str], most: int = 5) -> str:
    ordered = sorted(names)
    return ", ".join(ordered[:most]) + (f" and {len(ordered) - most} more" if len(ordered) > most else "")
