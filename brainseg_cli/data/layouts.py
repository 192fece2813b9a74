"""Which files of a source belong together: image, mask, patient and slice, by name alone."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from natsort import natsorted, ns

from brainseg_cli.errors import InputError, UsageError
from brainseg_cli.io.inputs import IMAGE_FOLDERS, MASK_ENDING, MASK_FOLDERS, parse_slice_index
from brainseg_cli.types import Layout


@dataclass(frozen=True)
class Pair:
    """One slice: names of its image and mask within the source."""

    image: str
    mask: str
    patient_id: str
    slice_index: int


@dataclass(frozen=True)
class Pairing:
    """What a layout makes of a source. `unpaired` names files without their partner."""

    layout: str
    pairs: list[Pair]
    unpaired: list[str]
    patients_known: bool
    """False where files that lie in no patient's folder had to be taken for patients of their own."""


def pair_files(names: Iterable[str], layout: Layout = "auto", patient_regex: str | None = None) -> Pairing:
    """Pair image and mask files by `layout`, found by looking where it is `auto`.

    `lgg`: `x.tif` and `x_mask.tif` side by side, the folder is the patient. `folders`: two parallel trees
    `images/` and `masks/` with the same relative stems (a mask may end in `_mask`); the patient is group
    `patient`, or the first group, of `patient_regex` searched in the relative name, else the parent folder,
    else each file for itself. Order: patients, then slices, as a person counts; slice_index is the number
    at the end of the name, or the place in that order where some name has none or two share one.

    InputError if nothing pairs up; UsageError for a pattern that is no regular expression or has no group.
    """
    ordered = sorted(names)
    pattern = _compile(patient_regex)
    if layout == "auto":
        layout = "lgg" if any(PurePosixPath(n).stem.endswith(MASK_ENDING) for n in ordered) else "folders"
        if layout == "lgg" and _is_parallel(ordered):
            layout = "folders"
    pairing = _pair_lgg(ordered, pattern) if layout == "lgg" else _pair_folders(ordered, pattern)
    if not pairing.pairs:
        raise InputError(
            f"no image has its mask in the layout {layout!r}",
            hint="x.tif beside x_mask.tif in a folder a patient, or images/ and masks/ with the same names",
        )
    return pairing


def _in_order(names: Iterable[str]) -> list[str]:
    """As a person counts; sorted first, so that `x_1` and `x_01`, alike to natsort, never depend on the disk."""
    return natsorted(sorted(names), alg=ns.PATH)


def _compile(patient_regex: str | None) -> re.Pattern[str] | None:
    if patient_regex is None:
        return None
    try:
        pattern = re.compile(patient_regex)
    except re.error as error:
        raise UsageError(f"--patient-regex {patient_regex!r} is no regular expression: {error}") from None
    if not pattern.groups:
        raise UsageError(f"--patient-regex {patient_regex!r} has no group", hint="put the patient in brackets")
    return pattern


def _patient_by_regex(pattern: re.Pattern[str], name: str) -> str:
    found = pattern.search(name)
    patient = found and (found["patient"] if "patient" in pattern.groupindex else found[1])
    if not patient:
        raise InputError(f"--patient-regex {pattern.pattern!r} finds no patient in it", where=name)
    return patient


def _is_parallel(names: list[str]) -> bool:
    folders = {part.lower() for name in names for part in PurePosixPath(name).parts[:-1]}
    return bool(folders & set(IMAGE_FOLDERS)) and bool(folders & set(MASK_FOLDERS))


def _pair_lgg(names: list[str], pattern: re.Pattern[str] | None) -> Pairing:
    masks: dict[str, str] = {}
    images: dict[str, str] = {}
    for name in names:
        stem = str(PurePosixPath(name).with_suffix(""))
        side = masks if stem.endswith(MASK_ENDING) else images
        key = stem.removesuffix(MASK_ENDING)
        if key in side:
            raise InputError(f"stands for the same slice as {side[key]}", where=name)
        side[key] = name
    return _join("lgg", images, masks, pattern)


def _pair_folders(names: list[str], pattern: re.Pattern[str] | None) -> Pairing:
    sides: dict[str, dict[str, str]] = {"images": {}, "masks": {}}
    stray: list[str] = []
    placed: list[tuple[str, tuple[str, ...], int]] = []
    for name in names:
        parts = PurePosixPath(name).parts
        at = next((i for i, part in enumerate(parts[:-1]) if part.lower() in IMAGE_FOLDERS + MASK_FOLDERS), None)
        if at is None:
            stray.append(name)
        else:
            placed.append((name, parts, at))
    wrapped = len({parts[:at] for _, parts, at in placed}) == 1  # a folder around both trees is no patient
    for name, parts, at in placed:
        side = sides["images" if parts[at].lower() in IMAGE_FOLDERS else "masks"]
        rest = PurePosixPath(*(() if wrapped else parts[:at]), *parts[at + 1 :]).with_suffix("")
        key = str(rest).removesuffix(MASK_ENDING) if side is sides["masks"] else str(rest)
        if key in side:
            raise InputError(f"stands for the same slice as {side[key]}", where=name)
        side[key] = name
    pairing = _join("folders", sides["images"], sides["masks"], pattern)
    return Pairing(pairing.layout, pairing.pairs, _in_order(stray) + pairing.unpaired, pairing.patients_known)


def _join(layout: str, images: dict[str, str], masks: dict[str, str], pattern: re.Pattern[str] | None) -> Pairing:
    """`images` and `masks` map a slice's key (its name without suffix) to the file."""
    by_patient: dict[str, list[str]] = {}
    patients_known = True
    for key in _in_order(images.keys() & masks.keys()):
        parent, _, stem = key.rpartition("/")
        if pattern is not None:
            patient = _patient_by_regex(pattern, images[key])
        else:
            patient = parent.rpartition("/")[2] or stem
            patients_known &= bool(parent)
        by_patient.setdefault(patient, []).append(key)
    pairs = []
    for patient, keys in by_patient.items():
        numbers = [parse_slice_index(key.rpartition("/")[2]) for key in keys]
        if None in numbers or len(set(numbers)) < len(keys):
            numbers = list(range(1, len(keys) + 1))
        slices = sorted((number or 0, key) for number, key in zip(numbers, keys, strict=True))
        pairs += [Pair(images[key], masks[key], patient, number) for number, key in slices]
    unpaired = [images[key] for key in images.keys() - masks.keys()]
    unpaired += [masks[key] for key in masks.keys() - images.keys()]
    return Pairing(layout, pairs, _in_order(unpaired), patients_known)
