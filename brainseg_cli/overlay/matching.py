"""Which mask and which reference belong to which image."""

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

from brainseg_cli.errors import InputError, UsageError
from brainseg_cli.io.inputs import Input, index_by_key

T = TypeVar("T")


class Failure(NamedTuple):
    """What cannot be drawn, an image or a line of a list, and why."""

    where: str
    reason: str

    def __str__(self) -> str:
        return self.reason if self.where in self.reason else f"{self.where}: {self.reason}"


def fail(item: Input, error: Exception) -> Failure:
    """Why an image cannot be drawn."""
    return Failure(str(item.path), str(error))


@dataclass(frozen=True, kw_only=True)
class Told(Input):
    """An image of which it was said whose it is, which slice, and where its mask lies; nothing of it is guessed."""

    said: tuple[str | None, int | None]
    mask: Path | None = None

    @property
    def patient_id(self) -> str | None:
        return self.said[0]

    @property
    def slice_index(self) -> int | None:
        return self.said[1]


@dataclass(frozen=True)
class Slice:
    """An image with its mask, and its reference if there are any; or, in a mask's place, why there is none."""

    item: Input
    prediction: Path | InputError
    reference: Path | InputError | None = None

    @property
    def fault(self) -> InputError | None:
        return next((found for found in (self.prediction, self.reference) if isinstance(found, InputError)), None)

    @property
    def files(self) -> list[Path]:
        """What is read of it."""
        image = self.item.path if self.item.data is None else None
        return [found for found in (image, self.prediction, self.reference) if isinstance(found, Path)]


class Index(Generic[T]):
    """What is known of slices, by key: `study/p/p_7`. Either side of a look-up may start higher than the other."""

    def __init__(self, known: Mapping[str, T]) -> None:
        self.known = known
        self._by_tail: dict[str, list[T]] = defaultdict(list)
        for key, value in known.items():
            for tail in _tails(key):
                self._by_tail[tail].append(value)

    def find(self, key: str) -> list[T]:
        """The one of just this key; else all whose keys end with it; else the one that it ends with, by most."""
        if key in self.known:
            return [self.known[key]]
        return self._by_tail.get(key) or [self.known[tail] for tail in _tails(key) if tail in self.known][:1]


class MaskFolder:
    """The masks below a folder, or one mask, and which of them is an image's.

    `items` are all images, or None where they are still being listed: then the first of several that could have one
    mask gets it. InputError where there is no folder, or two files stand for one slice.
    """

    def __init__(self, folder: Path, what: str, items: Sequence[Input] | None) -> None:
        self.folder, self.what = folder, what
        self._growing, self._claims = items is None, Counter[Path]()
        self.single = folder.is_file()
        if self.single:
            if items is None or len(items) > 1:
                raise UsageError(
                    f"{folder} is one {what}, and there may be many images", hint=f"name a folder of {what}s"
                )
            return
        own = {os.path.realpath(item.path) for item in items or ()}  # an image is never its own mask
        found = {key: path for key, path in index_by_key(folder).items() if os.path.realpath(path) not in own}
        self._index = Index(found)
        self._claims.update(paths[0] for item in items or () if len(paths := self._index.find(item.key)) == 1)

    @property
    def files(self) -> list[Path]:
        return [self.folder] if self.single else list(self._index.known.values())

    def find(self, item: Input) -> Path | InputError:
        """The mask, or why there is none that is certainly this image's."""
        if self.single:
            return self.folder
        paths = self._index.find(item.key)
        if self._growing:
            image = os.path.realpath(item.path)
            paths = [path for path in paths if os.path.realpath(path) != image]
            self._claims.update(paths if len(paths) == 1 else ())
        if not paths:
            return InputError(f"has no {self.what} in {self.folder}")
        if len(paths) > 1:
            return InputError(f"could belong to {len(paths)} files, such as {paths[0]} and {paths[1]}")
        if self._claims[paths[0]] > 1 and item.key not in self._index.known:
            return InputError(f"is one of several images that {paths[0]} could belong to")
        return paths[0]


def match(
    found: Iterable[Input | Failure], masks: MaskFolder | None, references: MaskFolder | None
) -> Iterator[Slice | Failure]:
    """Each image with what belongs to it; one that says where its mask lies is believed."""
    for item in found:
        if isinstance(item, Failure):
            yield item
            continue
        told = item.mask if isinstance(item, Told) else None
        prediction = told or (masks.find(item) if masks else InputError("names no mask"))
        yield Slice(item, prediction, references.find(item) if references else None)


def _tails(key: str) -> Iterator[str]:
    """`a/b/c` -> `a/b/c`, `b/c`, `c`."""
    parts = key.split("/")
    return ("/".join(parts[i:]) for i in range(len(parts)))
