"""Which slices make one file, and where it goes."""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from natsort import natsorted, ns

from brainseg_cli.errors import BrainsegError, InputError, UsageError
from brainseg_cli.io.atomic import check_absent
from brainseg_cli.io.inputs import Input, absolute
from brainseg_cli.io.outputs import Claims, Naming, drop_suffix
from brainseg_cli.overlay.matching import Failure, Slice, Told, fail
from brainseg_cli.overlay.settings import Places

Found = Slice | Failure

MOST_SLICES = 600
"""Of a patient in one file: beyond that it is rather many patients in one folder."""


class Job(NamedTuple):
    """One file to draw: `target` is None for stdout, and where there is no slice left to draw."""

    slices: list[Slice]
    failures: list[Failure]
    target: Path | None = None
    name: str = ""
    """Of the patient, where the file is a patient's."""


class Planner:
    """Gives each file its place, once. `read` are files that are to be read, besides those of the slices themselves."""

    def __init__(self, places: Places, read: Iterable[Path]) -> None:
        self._places = places
        self._naming = (
            None
            if places.folder is None
            else Naming(places.folder, places.suffix, drop_suffix(places.template, places.suffix))
        )
        self._claims = Claims()
        self._read = {os.path.realpath(path) for path in read}

    def plan_known(self, found: Sequence[Found]) -> list[Job]:
        """All that is drawn.

        UsageError where two files would have one place, or one would replace what is read; OutputExistsError for one
        that is there, unless it may be replaced.
        """
        for item in found:
            self._note(item)
        first: dict[Path, int] = {}
        for at, item in enumerate(found):
            if isinstance(item, Slice):
                first.setdefault(_folder(item), at)
        if self._places.form != "figure":  # a patient's slices in a row
            found = sorted(found, key=lambda item: first[_folder(item)] if isinstance(item, Slice) else -1)
        return [self._place(group) for group in self._group(found)]

    def plan_growing(self, found: Iterable[Found]) -> Iterator[Job]:
        """The same of a list that is still growing, as it comes: what is refused fails alone."""
        for group in self._group(found):
            for item in group:
                self._note(item)
            try:
                yield self._place(group)
            except BrainsegError as error:
                yield Job([], [item if isinstance(item, Failure) else fail(item.item, error) for item in group])

    def _note(self, item: Found) -> None:
        if isinstance(item, Slice):
            self._read.update(map(os.path.realpath, item.files))

    def _group(self, found: Iterable[Found]) -> Iterator[list[Found]]:
        if self._places.form == "figure":
            yield from ([item] for item in found)
            return
        done: set[Path] = set()
        waiting: list[Slice] = []
        for item in found:
            if isinstance(item, Failure):
                yield [item]
                continue
            if waiting and _folder(item) != _folder(waiting[0]):
                done.add(_folder(waiting[0]))
                yield _in_order(waiting)
                waiting = []
            if _folder(item) in done:
                told = f"comes after other patients' slices, and the {self._places.form} of its own was done"
                yield [fail(item.item, InputError(told, hint="a patient's slices in a row"))]
                continue
            waiting.append(item)
        if waiting:
            yield _in_order(waiting)

    def _place(self, group: Sequence[Found]) -> Job:
        slices = [item for item in group if isinstance(item, Slice) and item.fault is None]
        failures = [item for item in group if isinstance(item, Failure)]
        failures += [fail(item.item, item.fault) for item in group if isinstance(item, Slice) and item.fault]
        if not slices:
            return Job([], failures)
        owner = slices[0].item if self._places.form == "figure" else _name_patient(slices[0].item)
        name = "" if self._places.form == "figure" else owner.patient_id or ""
        if len(slices) > MOST_SLICES:
            told = f"holds {len(slices)} slices, too many for one {self._places.form}"
            raise InputError(told, where=owner.path, hint="a patient's slices are those of one folder")
        if self._naming is None:
            return Job(slices, failures, None, name)
        target = self._naming.place(owner)
        self._claims.claim(target, owner)
        if os.path.realpath(target) in self._read:
            raise UsageError("would be drawn over, and is to be read", where=target, hint="give another -o")
        check_absent(target, overwrite=self._places.overwrite)
        return Job(slices, failures, target, name)


def _folder(item: Slice) -> Path:
    """What tells patients apart: a patient's slices are those of one folder."""
    return item.item.relative.parent


def _in_order(slices: Iterable[Slice]) -> list[Found]:
    ordered = natsorted(slices, key=lambda item: item.item.relative, alg=ns.PATH)
    return list(ordered)


def _name_patient(item: Input) -> Input:
    """An input that stands for all of a patient: `study/p/p_7.tif` -> `study/p.png`, whatever it is called itself."""
    folder = item.relative.parent
    name = folder.name or absolute(item.path).parent.name
    return Told(item.path.parent, folder.parent / f"{name}.png", said=(item.patient_id or name, None))
