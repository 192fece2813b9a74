"""Who trains, who chooses, who is reported on: patients dealt to splits, the same by the same seed."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from brainseg_cli.errors import InputError, UsageError

SPLITS = ("train", "val", "test")
DEFAULT_SPLIT = "70/15/15"
SLICE_RANDOM = "slice-random"
LGG10 = (
    "TCGA_CS_4944_20010208", "TCGA_CS_6667_20011105", "TCGA_CS_6668_20011025", "TCGA_DU_5851_19950428",
    "TCGA_DU_6404_19850629", "TCGA_DU_6408_19860521", "TCGA_DU_7014_19860618", "TCGA_HT_7616_19940813",
    "TCGA_HT_7692_19960724", "TCGA_HT_7879_19981009",
)  # fmt: skip
"""The test patients of the public PyTorch U-Net for LGG, so that its figure can be compared with."""


@dataclass(frozen=True)
class Split:
    """A named assignment. `by_row` is one of train, val, test, or fold-0 to fold-(k-1), for each slice."""

    name: str
    by_row: list[str]
    leaky: bool = False


def assign_split(
    spec: str,
    patients: Sequence[str],
    tumour_px: Sequence[int],
    *,
    seed: int = 0,
    allow_leakage: bool = False,
) -> Split:
    """Deal slices, given each one's patient and tumour size, to splits.

    `spec` is shares `70/15/15` of train, val and test patients, `kfold:K`, `lgg10`, the path of a CSV with
    columns patient_id and split, or `slice-random` (70/15/15 of slices; leaky, so `allow_leakage` must say
    so). All but the last keep a patient's slices together. Shares and folds are stratified by institution
    (the second field of names like TCGA_DU_7010_19860307) and by tumour volume.

    UsageError for a spec that is none of these or that asks for more than there are patients; InputError
    for a table that does not fit the patients.
    """
    volumes: dict[str, int] = {}
    for patient, pixels in zip(patients, tumour_px, strict=True):
        volumes[patient] = volumes.get(patient, 0) + int(pixels)
    rng = np.random.default_rng(seed)

    if spec == SLICE_RANDOM:
        if not allow_leakage:
            raise UsageError(
                f"--split {SLICE_RANDOM} puts slices of one patient on both sides",
                hint="--allow-leakage accepts that; everything made from it is marked leaky",
            )
        shuffled = rng.permutation(len(patients))
        by_row = np.empty(len(patients), dtype=object)
        for split, rows in zip(SPLITS, np.split(shuffled, _cuts(len(patients), (70, 15, 15))), strict=True):
            by_row[rows] = split
        return Split(spec, by_row.tolist(), leaky=True)

    if re.fullmatch(r"\d+(\.\d+)?(/\d+(\.\d+)?){2}", spec):
        of_patient = _deal(volumes, dict(zip(SPLITS, map(float, spec.split("/")), strict=True)), rng, spec)
    elif found := re.fullmatch(r"kfold:(\d+)", spec):
        folds = int(found[1])
        if folds < 3:
            raise UsageError(f"--split {spec}: at least 3 folds are needed", hint="one to test, one to choose")
        of_patient = _deal(volumes, {f"fold-{k}": 1.0 for k in range(folds)}, rng, spec)
    elif spec == "lgg10":
        missing = [patient for patient in LGG10 if patient not in volumes]
        if missing:
            raise InputError(
                f"--split lgg10 needs {len(missing)} patients that are not here: {' '.join(missing)}",
                hint="the whole LGG set has them",
            )
        others = {patient: volume for patient, volume in volumes.items() if patient not in LGG10}
        of_patient = _deal(others, {"train": 85.0, "val": 15.0}, rng, spec) | dict.fromkeys(LGG10, "test")
    elif spec.endswith(".csv"):
        of_patient = _read_split(Path(spec), volumes)
    else:
        raise UsageError(
            f"--split {spec!r} is not understood",
            hint="70/15/15, kfold:5, lgg10, a CSV of patient_id and split, or slice-random",
        )
    return Split(spec, [of_patient[patient] for patient in patients])


def resolve_fold(by_row: Sequence[str], fold: int | None, *, val: bool = True) -> list[str]:
    """train, val and test of a k-fold dataset: fold `fold` is test, the next one val, the others train.

    Without `val` nobody chooses, and all the others train.

    A dataset that is already split so is returned as it is. UsageError where a fold is missing or too many.
    """
    folds = sorted({name for name in by_row if name.startswith("fold-")}, key=lambda name: int(name[5:]))
    if not folds:
        if fold is not None:
            raise UsageError("--fold is for datasets prepared with --split kfold:K; this one is not")
        return list(by_row)
    if fold is None or not 0 <= fold < len(folds):
        raise UsageError(
            f"this dataset has {len(folds)} folds" + ("" if fold is None else f", none of them {fold}"),
            hint=f"brainseg train --fold 0 to {len(folds) - 1} takes one, --fold all each",
        )
    roles = {folds[(fold + 1) % len(folds)]: "val" if val else "train", folds[fold]: "test"}
    return [roles.get(name, "train") for name in by_row]


def hash_split(keys: Sequence[str], by_row: Sequence[str]) -> str:
    """SHA-256 (first 16 hex digits) of who is where; the order of rows does not matter."""
    lines = sorted(f"{key}\t{split}" for key, split in zip(keys, by_row, strict=True))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def find_leaks(patients: Sequence[str], by_row: Sequence[str]) -> list[str]:
    """Patients that stand in more than one split."""
    seen: dict[str, set[str]] = {}
    for patient, split in zip(patients, by_row, strict=True):
        seen.setdefault(patient, set()).add(split)
    return [patient for patient, splits in seen.items() if len(splits) > 1]


def _deal(
    volumes: Mapping[str, int], shares: Mapping[str, float], rng: np.random.Generator, spec: str
) -> dict[str, str]:
    """Deal patients like cards: in order of institution and volume, shuffled only among neighbours, each to
    the split that is furthest behind its share. So every split gets its part of each institution and size."""
    wanted = {name: share for name, share in shares.items() if share > 0}
    if len(volumes) < len(wanted):
        raise UsageError(
            f"--split {spec} needs at least {len(wanted)} patients, there are {len(volumes)}",
            hint="where one folder holds several patients, --patient-regex tells them apart",
        )
    if not wanted:
        raise UsageError(f"--split {spec} leaves nobody")
    total = sum(wanted.values())
    neighbours = max(2, round(total / min(wanted.values())))
    ordered = sorted(volumes, key=lambda patient: (_institution(patient), volumes[patient], patient))
    dealt: dict[str, str] = {}
    behind = {name: float(rng.uniform(-0.5, 0.5)) for name in wanted}
    for start in range(0, len(ordered), neighbours):
        group = ordered[start : start + neighbours]
        for patient in rng.permutation(np.array(group, dtype=object)):
            for name, share in wanted.items():
                behind[name] += share / total
            chosen = max(behind, key=behind.__getitem__)
            dealt[patient] = chosen
            behind[chosen] -= 1
    for name in [name for name in wanted if name not in dealt.values()]:  # few patients: nobody goes without
        largest = max(wanted, key=lambda split: sum(s == split for s in dealt.values()))
        dealt[next(p for p, split in dealt.items() if split == largest)] = name
    return dealt


def _institution(patient: str) -> str:
    fields = patient.split("_")
    return fields[1] if len(fields) >= 3 else ""


def _cuts(count: int, shares: Sequence[float]) -> list[int]:
    return [round(count * part / sum(shares)) for part in np.cumsum(shares)[:-1]]


def _read_split(path: Path, volumes: Mapping[str, int]) -> dict[str, str]:
    try:
        table = pd.read_csv(path, dtype=str, na_filter=False)  # a patient may be called NA
    except FileNotFoundError:
        raise InputError("is not there", where=path) from None
    except (OSError, ValueError) as error:
        raise InputError(f"cannot be read as CSV: {str(error).strip()}", where=path) from None
    if not {"patient_id", "split"} <= set(table.columns):
        raise InputError(f"needs columns patient_id and split, has {', '.join(table.columns)}", where=path)
    twice = table.patient_id[table.patient_id.duplicated()].unique().tolist()
    if twice:
        raise InputError(f"names these patients more than once: {' '.join(twice[:5])}", where=path)
    strange = sorted(set(table.split) - set(SPLITS))
    if strange:
        raise InputError(f"has splits {', '.join(map(repr, strange))}; train, val and test are known", where=path)
    of_patient = dict(zip(table.patient_id, table.split, strict=True))
    missing = [patient for patient in volumes if patient not in of_patient]
    if missing:
        raise InputError(f"leaves out {len(missing)} patients: {' '.join(missing[:5])}", where=path)
    return of_patient
