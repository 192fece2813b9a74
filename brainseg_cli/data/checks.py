"""What is wrong with a source before anything is made of it: every slice is decoded and looked at once."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
import numpy.typing as npt

from brainseg_cli.data.layouts import Pair
from brainseg_cli.errors import InputError, count
from brainseg_cli.io.archives import Source
from brainseg_cli.io.images import decode_image, decode_mask
from brainseg_cli.io.reading import Reading
from brainseg_cli.types import Image, Mask, Progress, no_progress


@dataclass(frozen=True)
class SliceFacts:
    """What one look at a slice tells. `histogram` is (C, 256) counts of grey values."""

    pair: Pair
    height: int
    width: int
    tumour_px: int
    sha256: str
    """Of the image's pixels and size, so that another file format of the same picture is recognised."""
    mask_sha256: str
    blank: bool
    equal_channels: tuple[tuple[int, int], ...]
    histogram: npt.NDArray[np.int64] = field(repr=False)


@dataclass
class Findings:
    """`errors` keep a dataset from being made; `warnings` go into dataset.json."""

    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def read_pair(source: Source, pair: Pair) -> tuple[Image, Mask]:
    """Image (H, W, C) uint8 and mask (H, W) in {0, 1}. InputError where one is unreadable or sizes differ."""
    image = decode_image(source.read(pair.image), source.where(pair.image))
    mask = decode_mask(source.read(pair.mask), source.where(pair.mask))
    if mask.shape != image.shape[:2]:
        raise InputError(
            f"is {mask.shape[1]}x{mask.shape[0]}, its image {image.shape[1]}x{image.shape[0]}",
            where=source.where(pair.mask),
        )
    return image, mask


def inspect_slices(
    source: Source,
    pairs: Sequence[Pair],
    *,
    workers: int,
    keep: Callable[[Image, Mask], None] | None = None,
    progress: Progress = no_progress,
) -> tuple[list[SliceFacts], list[str]]:
    """Decode every pair in parallel: facts of the good ones, in order, and one line for each bad one.

    `keep` is given each good slice, in that order, in the thread that called.
    """

    def look(pair: Pair) -> tuple[SliceFacts, Image, Mask] | str:
        try:
            image, mask = read_pair(source, pair)
        except InputError as error:
            return str(error)
        return _facts(pair, image, mask), image, mask

    facts: list[SliceFacts] = []
    errors: list[str] = []
    with Reading(pairs, look, workers=workers, ahead=4 * workers) as looked:
        for done in range(1, len(pairs) + 1):
            (outcome,) = looked.take(1, wait=True)
            if isinstance(outcome, str):
                errors.append(outcome)
            else:
                fact, image, mask = outcome
                facts.append(fact)
                if keep is not None:
                    keep(image, mask)
            progress(done, len(pairs), "checking slices")
    return facts, errors


def find_problems(facts: Sequence[SliceFacts]) -> Findings:
    """What only shows across slices: channel counts that differ, blank slices, copied channels, duplicates
    within a patient. Duplicates across patients depend on the split: `find_duplicates_across`."""
    found = Findings()
    channels = {len(fact.histogram) for fact in facts}
    if len(channels) > 1:
        least = min(channels, key=lambda count: sum(len(fact.histogram) == count for fact in facts))
        odd = [fact.pair.image for fact in facts if len(fact.histogram) == least]
        found.errors.append(
            f"images of {' and '.join(map(str, sorted(channels)))} channels are mixed; {_some(odd)} have {least}"
        )
    sizes = {(fact.height, fact.width) for fact in facts}
    if len(sizes) > 1:
        shown = ", ".join(f"{width}x{height}" for height, width in sorted(sizes)[:4])
        found.warnings.append(f"{len(sizes)} image sizes ({shown}); smaller ones are stored padded")
    if blank := [fact.pair.image for fact in facts if fact.blank]:
        found.warnings.append(f"{count(len(blank), 'blank image')}: {_some(blank)}")
    if marked := [fact.pair.mask for fact in facts if fact.blank and fact.tumour_px]:
        found.warnings.append(f"{count(len(marked), 'mask')} with tumour on a blank image: {_some(marked)}")
    visible = [fact for fact in facts if not fact.blank]
    for a, b in sorted({pair for fact in visible for pair in fact.equal_channels}):
        differ = {fact.pair.patient_id for fact in visible if (a, b) not in fact.equal_channels}
        if equal := sorted({fact.pair.patient_id for fact in visible} - differ):
            found.warnings.append(
                f"channels {a} and {b} are the same in {count(len(equal), 'patient')}: {_some(equal)}"
            )
    for group in _duplicates(facts):
        names = [fact.pair.image for fact in group]
        if len({fact.pair.patient_id for fact in group}) == 1:
            found.warnings.append(f"the same image {len(group)} times within a patient: {_some(names)}")
    return found


def find_duplicates_across(facts: Sequence[SliceFacts], by_row: Sequence[str], *, leaky: bool) -> Findings:
    """Exact copies of a slice in different patients: an error across splits, a warning within one.

    A split that is leaky by choice gets warnings only. Blank slices are all alike and not counted.
    """
    found = Findings()
    split_of = {fact.pair.image: split for fact, split in zip(facts, by_row, strict=True)}
    for group in _duplicates(facts):
        if len({fact.pair.patient_id for fact in group}) == 1:
            continue
        names = [fact.pair.image for fact in group]
        splits = sorted({split_of[name] for name in names})
        if len(splits) > 1 and not leaky:
            found.errors.append(
                f"the same image in {' and '.join(splits)}: {_some(names)}; remove one, or make them one patient"
            )
        else:
            found.warnings.append(f"the same image in several patients: {_some(names)}")
    return found


def _facts(pair: Pair, image: Image, mask: Mask) -> SliceFacts:
    channels = image.shape[2]
    digest = hashlib.sha256(repr(image.shape).encode())
    digest.update(np.ascontiguousarray(image).data)
    planes = cv2.split(image)
    equal = tuple((a, b) for a in range(channels) for b in range(a + 1, channels) if (planes[a] == planes[b]).all())
    # five times as quick as np.bincount, which holds up the other threads besides; exact up to 2**24 pixels
    counts = [cv2.calcHist([plane], [0], None, [256], [0, 256]).reshape(-1) for plane in planes]
    return SliceFacts(
        pair,
        height=mask.shape[0],
        width=mask.shape[1],
        tumour_px=int(np.count_nonzero(mask)),
        sha256=digest.hexdigest(),
        mask_sha256=hashlib.sha256(np.ascontiguousarray(mask).data).hexdigest(),
        blank=bool(image.min() == image.max()),
        equal_channels=equal,
        histogram=np.stack(counts).astype(np.int64),
    )


def _duplicates(facts: Sequence[SliceFacts]) -> list[list[SliceFacts]]:
    groups: dict[str, list[SliceFacts]] = {}
    for fact in facts:
        if not fact.blank:
            groups.setdefault(fact.sha256, []).append(fact)
    return [group for group in groups.values() if len(group) > 1]


def _some(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
