"""Which slices are drawn: all with tumour, or the worst, the best or those in the middle by dice."""

import csv
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

import numpy as np

from brainseg_cli.errors import InputError, UsageError
from brainseg_cli.io.images import is_image_name, read_mask
from brainseg_cli.io.inputs import mask_key, slice_key
from brainseg_cli.metrics.counts import Counts, compute_counts, dice
from brainseg_cli.overlay.matching import Failure, Index, Slice, fail

Kind = Literal["worst", "best", "median", "tumour"]
Measure = Callable[[Slice], Counts | None]
"""Counts the pixels of a slice; None where nothing is known of it, InputError where they cannot be told."""


@dataclass(frozen=True)
class Only:
    """`worst:20` or `tumour`."""

    kind: Kind
    count: int | None = None

    @property
    def ranks(self) -> bool:
        """Whether all slices have to be known before one is chosen."""
        return self.count is not None

    def __str__(self) -> str:
        return self.kind if self.count is None else f"{self.kind}:{self.count}"


def parse_only(text: str) -> Only:
    """UsageError for what is neither `tumour` nor one of the others with a number above 0."""
    kind, _, number = text.partition(":")
    if text == "tumour":
        return Only("tumour")
    if kind != "tumour" and kind in get_args(Kind) and number.isdecimal() and int(number):
        return Only(cast(Kind, kind), int(number))
    raise UsageError(f"--only {text} chooses nothing", hint="worst:20, best:5, median:5 or tumour")


def choose(found: Iterable[Slice | Failure], only: Only, measure: Measure) -> Iterator[Slice | Failure]:
    """The slices that `only` names, with what failed on the way. A slice of which nothing is known is not among them.

    - tumour: with tumour in reference or prediction, in their order, as they come.
    - worst: of these, the least dice first, and of equals the one with more wrong pixels (as a report shows them).
    - best: with tumour in the reference, the highest dice first, and of equals the one with more tumour.
    - median: of those, ordered as the worst are, the ones in the middle.
    """
    measured: list[tuple[Slice, Counts]] = []
    for item in found:
        if isinstance(item, Failure):
            yield item
            continue
        try:
            counts = measure(item)
        except InputError as error:
            yield fail(item.item, error)
            continue
        if counts is None or not _has_tumour(counts):
            continue
        if only.ranks:
            measured.append((item, counts))
        else:
            yield item
    if only.count is not None:
        yield from (item for item, _ in rank(measured, only.kind, only.count))


def rank(measured: Iterable[tuple[Slice, Counts]], kind: Kind, count: int) -> list[tuple[Slice, Counts]]:
    """The `count` worst, best or middle ones of slices with tumour; fewer where there are fewer."""
    by_fault = sorted(measured, key=lambda pair: (_dice(pair[1]), -pair[1].fp - pair[1].fn))
    if kind == "worst":
        return by_fault[:count]
    with_reference = [pair for pair in by_fault if pair[1].tp + pair[1].fn]
    if kind == "best":
        return sorted(with_reference, key=lambda pair: (-_dice(pair[1]), -pair[1].tp - pair[1].fn))[:count]
    start = max(0, len(with_reference) - count) // 2
    return with_reference[start : start + count]


def measure_masks(item: Slice) -> Counts:
    """From the masks themselves; without a reference all that was predicted counts as false."""
    if item.fault is not None:
        raise item.fault
    assert isinstance(item.prediction, Path) and not isinstance(item.reference, InputError)
    prediction = read_mask(item.prediction)
    return compute_counts(
        np.zeros_like(prediction) if item.reference is None else read_mask(item.reference), prediction
    )


class Report:
    """The slices.csv of an eval report. `unknown` counts the slices it does not have, `known` those it has."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "slices.csv"
        self.known = self.unknown = 0
        counts: dict[str, Counts] = {}
        for key, counted in self._read():
            if key in counts:
                raise InputError(f"names {key} twice", where=self.path)
            counts[key] = counted
        self._index = Index({key: (key, counted) for key, counted in counts.items()})
        self._taken: set[str] = set()

    def measure(self, item: Slice) -> Counts | None:
        """What the report says of a slice, by its place in the tree. InputError where it is not certain which it is."""
        found = self._index.find(item.item.key) or self._index.find(mask_key(item.item.relative))
        if not found:
            self.unknown += 1
            return None
        if len(found) > 1:
            raise InputError(f"could be any of {len(found)} slices in {self.path}")
        ((key, counts),) = found
        if key in self._taken:
            raise InputError(f"is one of several images that {key} in {self.path} could be")
        self._taken.add(key)
        self.known += 1
        return counts

    def check_known(self) -> None:
        """InputError where it had none of the slices that were asked for."""
        if self.unknown and not self.known:
            raise InputError(f"has none of the {self.unknown} images given", where=self.path)

    def _read(self) -> Iterator[tuple[str, Counts]]:
        try:
            with self.path.open(encoding="utf-8", newline="") as file:
                for row in csv.DictReader(file):
                    name = str(row["image"])
                    key = slice_key(Path(name)) if is_image_name(name) else name
                    yield key, Counts(*(int(row[column]) for column in Counts._fields))
        except FileNotFoundError:
            raise InputError("is not there", where=self.path, hint="--report names a folder that eval wrote") from None
        except (OSError, ValueError, TypeError, KeyError, csv.Error) as error:
            raise InputError(f"is no table of slices: {type(error).__name__}: {error}", where=self.path) from None


def _has_tumour(counts: Counts) -> bool:
    return counts.tp + counts.fp + counts.fn > 0


def _dice(counts: Counts) -> float:
    return float(dice(counts.tp, counts.fp, counts.fn))
