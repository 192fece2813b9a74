"""prepare: a folder or zip of slices and masks to a checked dataset, split by patient, ready to stream."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from natsort import natsorted

from brainseg_cli import __version__
from brainseg_cli.data.checks import (
    SliceFacts,
    find_duplicates_across,
    find_problems,
    inspect_slices,
    read_pair,
)
from brainseg_cli.data.layouts import pair_files
from brainseg_cli.data.manifest import COLUMNS, ChannelStats, DatasetInfo, write_info
from brainseg_cli.data.splits import DEFAULT_SPLIT, SPLITS, Split, assign_split, hash_split
from brainseg_cli.errors import InputError, OutputExistsError, count
from brainseg_cli.io.archives import Source, open_source
from brainseg_cli.io.atomic import check_absent, write_text
from brainseg_cli.io.folders import atomic_folder
from brainseg_cli.io.reading import Reading
from brainseg_cli.io.rows import RowsWriter
from brainseg_cli.types import Image, Layout, Mask, Progress, ZipBounds, no_progress

LGG_CHANNELS = ["pre-contrast", "FLAIR", "post-contrast"]


@dataclass(frozen=True)
class Preparation:
    """A source that was looked at: what would be written, and everything found wrong with it."""

    source: Source
    info: DatasetInfo
    slices: pd.DataFrame
    facts: list[SliceFacts]
    errors: list[str]
    """Every problem that keeps a dataset from being made, or that `skip_bad` left out."""
    skipped: int
    arrays_in: Path | None
    """The folder that holds images.npy and masks.npy already."""


def check(
    source: Path,
    *,
    layout: Layout = "auto",
    patient_regex: str | None = None,
    split: str = DEFAULT_SPLIT,
    seed: int = 0,
    allow_leakage: bool = False,
    skip_bad: bool = False,
    bounds: ZipBounds | None = None,
    into: Path | None = None,
    workers: int | None = None,
    progress: Progress = no_progress,
) -> Preparation:
    """Look at every slice of `source` and deal it to a split; write nothing, but the arrays into the folder `into`.

    What is written on the way is not read a second time; where sizes differ it has to be, for the largest is not
    known yet. With `skip_bad`, slices that cannot be read or lack a partner are left out and counted in `skipped`;
    otherwise they are among `errors`; so are entries of a zip that are not read. `bounds` are a zip's. InputError where
    nothing usable is there.
    """
    opened = open_source(source, bounds)
    pairing = pair_files(opened.sizes, layout, patient_regex)
    workers = _count_workers(workers)
    with nullcontext() if into is None else _open_arrays(into) as arrays:
        keep = None if arrays is None else arrays.append
        facts, bad = inspect_slices(opened, pairing.pairs, workers=workers, keep=keep, progress=progress)
    bad += [
        *opened.refused,
        *(
            f"{opened.where(name)}: has no partner (image without mask, or mask without image)"
            for name in pairing.unpaired
        ),
    ]
    if not facts:
        raise InputError(f"none of {len(pairing.pairs)} slices can be read; first: {bad[0]}", where=source)
    found = find_problems(facts)
    patients = [fact.pair.patient_id for fact in facts]
    dealt = assign_split(split, patients, [fact.tumour_px for fact in facts], seed=seed, allow_leakage=allow_leakage)
    across = find_duplicates_across(facts, dealt.by_row, leaky=dealt.leaky)
    warnings = _source_warnings(opened, pairing.patients_known, dealt) + found.warnings + across.warnings
    if skip_bad:
        warnings += [f"left out: {line}" for line in bad]
    slices = _build_table(facts, dealt)
    info = DatasetInfo(
        brainseg_version=__version__,
        source=source.name or str(source),
        layout=pairing.layout,
        patient_regex=patient_regex,
        patients=len(set(patients)),
        slices=len(facts),
        tumour_slices=sum(fact.tumour_px > 0 for fact in facts),
        channel_names=_name_channels(pairing.layout, len(facts[0].histogram)),
        intensity=_fingerprint(facts) if not found.errors else [],
        split=split,
        split_seed=seed,
        split_hash=hash_split(slices["image"].tolist(), dealt.by_row),
        content_hash=_hash_content(facts),
        leaky=dealt.leaky,
        patients_known=pairing.patients_known,
        warnings=warnings,
    )
    fatal = found.errors + across.errors
    return Preparation(
        opened,
        info,
        slices,
        facts,
        errors=fatal if skip_bad else fatal + bad,
        skipped=len(bad) if skip_bad else 0,
        arrays_in=into if arrays is not None and arrays.images.alike else None,
    )


def write_dataset(
    preparation: Preparation,
    out: Path,
    *,
    overwrite: bool = False,
    workers: int | None = None,
    progress: Progress = no_progress,
) -> None:
    """Write dataset.json, slices.csv, images.npy and masks.npy as the folder `out`, whole or not at all.

    InputError, with nothing written, where the preparation has errors; OutputExistsError as `new_dataset`.
    """
    _check_sound(preparation)
    with new_dataset(out, overwrite=overwrite) as folder:
        complete_dataset(preparation, folder, workers=workers, progress=progress)


@contextmanager
def new_dataset(out: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield the empty folder that becomes the dataset `out` on a clean exit, for `check` and `complete_dataset`.

    BusyError where another command writes it; OutputExistsError, with nothing written, as `check_writable`.
    """
    check_writable(out, overwrite=overwrite)
    with atomic_folder(out, "prepare", overwrite=overwrite) as folder:
        yield folder


def complete_dataset(
    preparation: Preparation, folder: Path, *, workers: int | None = None, progress: Progress = no_progress
) -> DatasetInfo:
    """Write dataset.json and slices.csv into `folder`, and the arrays where `check` could not.

    What dataset.json holds is returned: with the hash of each file.

    InputError where the preparation has errors.
    """
    _check_sound(preparation)
    if preparation.arrays_in != folder:
        _write_arrays(preparation, folder, workers=workers, progress=progress)
    write_text(folder / "slices.csv", preparation.slices.to_csv(index=False))
    return write_info(folder, preparation.info)


def check_writable(out: Path, *, overwrite: bool) -> None:
    """OutputExistsError where `out` holds something: with `overwrite`, where that is anything but a dataset."""
    check_absent(out, overwrite=overwrite)
    if out.is_dir() and any(out.iterdir()) and not (out / "dataset.json").exists():
        raise OutputExistsError("holds something else than a dataset", where=out, hint="give another -o")


def summarise_splits(slices: pd.DataFrame) -> pd.DataFrame:
    """One row a split: patients, with_tumour, slices, tumour_slices, tumour_px and median_tumour_px (the
    median, over patients with tumour, of a patient's tumour pixels; NaN where there is none)."""
    rows = []
    names = natsorted(slices["split"].unique(), key=lambda name: (SPLITS.index(name) if name in SPLITS else 3, name))
    for name in names:
        group = slices[slices["split"] == name]
        volumes = group.groupby("patient_id")["tumour_px"].sum()
        rows.append(
            {
                "split": name,
                "patients": len(volumes),
                "with_tumour": int((volumes > 0).sum()),
                "slices": len(group),
                "tumour_slices": int((group["tumour_px"] > 0).sum()),
                "tumour_px": int(volumes.sum()),
                "median_tumour_px": float(volumes[volumes > 0].median()),
            }
        )
    return pd.DataFrame(rows)


@dataclass(frozen=True)
class Arrays:
    """images.npy and masks.npy, being written slice by slice."""

    images: RowsWriter
    masks: RowsWriter

    def append(self, image: Image, mask: Mask) -> None:
        self.images.append(image)
        self.masks.append(mask)


@contextmanager
def _open_arrays(folder: Path) -> Iterator[Arrays]:
    with RowsWriter(folder / "images.npy") as images, RowsWriter(folder / "masks.npy") as masks:
        yield Arrays(images, masks)


def _count_workers(workers: int | None) -> int:
    return workers or min(16, os.cpu_count() or 1)


def _check_sound(preparation: Preparation) -> None:
    if preparation.errors:
        first, more = preparation.errors[0], len(preparation.errors) - 1
        raise InputError(
            first + (f" (and {count(more, 'more problem')})" if more else ""), hint="--check lists them all"
        )


def _write_arrays(preparation: Preparation, folder: Path, *, workers: int | None, progress: Progress) -> None:
    """Read every slice again, now that the largest is known, and write it padded with 0."""
    facts = preparation.facts
    height, width = max(fact.height for fact in facts), max(fact.width for fact in facts)

    def read(fact: SliceFacts) -> tuple[Image, Mask]:
        image, mask = read_pair(preparation.source, fact.pair)
        below, beside = (0, height - fact.height), (0, width - fact.width)
        return np.pad(image, (below, beside, (0, 0))), np.pad(mask, (below, beside))

    workers = _count_workers(workers)
    with _open_arrays(folder) as arrays, Reading(facts, read, workers=workers, ahead=4 * workers) as slices:
        for done in range(1, len(facts) + 1):
            arrays.append(*slices.take(1, wait=True)[0])
            progress(done, len(facts), "writing slices")


def _build_table(facts: Sequence[SliceFacts], dealt: Split) -> pd.DataFrame:
    rows = [
        (
            f.pair.patient_id,
            f.pair.slice_index,
            f.pair.image,
            f.pair.mask,
            f.height,
            f.width,
            f.tumour_px,
            f.sha256,
            s,
        )
        for f, s in zip(facts, dealt.by_row, strict=True)
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _source_warnings(source: Source, patients_known: bool, dealt: Split) -> list[str]:
    warnings = []
    if source.nested_copies:
        warnings.append(f"the source holds {source.nested_copies} files a second time; one copy of each is used")
    if not patients_known:
        warnings.append(
            "the layout does not say which slices are one patient's: each file counts as a patient of its own, "
            "so NO SPLIT OF IT CAN GUARD AGAINST LEAKAGE; --patient-regex tells patients from file names"
        )
    if dealt.leaky:
        warnings.append("LEAKY by choice: slices of one patient stand in several splits; its figures flatter")
    return warnings


def _hash_content(facts: Sequence[SliceFacts]) -> str:
    digests = "".join(fact.sha256 + fact.mask_sha256 for fact in facts)
    return hashlib.sha256(digests.encode()).hexdigest()[:16]


def _name_channels(layout: str, channels: int) -> list[str]:
    if layout == "lgg" and channels == len(LGG_CHANNELS):
        return LGG_CHANNELS
    return ["grey"] if channels == 1 else ["red", "green", "blue"]


def _fingerprint(facts: Sequence[SliceFacts]) -> list[ChannelStats]:
    levels = np.arange(256)
    stats = []
    for counts in np.sum([fact.histogram for fact in facts], axis=0):
        share = counts / counts.sum()
        mean = float((levels * share).sum())
        below = np.cumsum(share)
        p01, p50, p99 = (int(np.searchsorted(below, q)) for q in (0.01, 0.5, 0.99))
        std = float(np.sqrt((((levels - mean) ** 2) * share).sum()))
        stats.append(ChannelStats(mean=round(mean, 4), std=round(std, 4), p01=p01, p50=p50, p99=p99))
    return stats
