"""The overlay use-case: what is drawn is found and placed, drawn some ahead, and written in order."""

import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeVar

from brainseg_cli.errors import BrainsegError, DiskError, InputError, OutputExistsError, UsageError
from brainseg_cli.io.atomic import telling, write_bytes
from brainseg_cli.io.inputs import Input
from brainseg_cli.io.reading import Reading
from brainseg_cli.io.sources import Inputs, open_inputs
from brainseg_cli.overlay.choosing import Report, choose, measure_masks
from brainseg_cli.overlay.drawing import (
    Shown,
    cut_alike,
    draw_figure,
    draw_frame,
    draw_tile,
    lay_out_animation,
    lay_out_sheet,
    read_slice,
)
from brainseg_cli.overlay.matching import Failure, MaskFolder, Slice, fail, match
from brainseg_cli.overlay.plan import Found, Job, Planner
from brainseg_cli.overlay.records import Records
from brainseg_cli.overlay.settings import Look, Places, Sources

WORKERS = min(8, os.cpu_count() or 1)
STDOUT = Path("-")

Thing = TypeVar("Thing", Slice, Shown)
Made = TypeVar("Made")


class Outcome(NamedTuple):
    """One file, and the inputs that are not in it because they failed."""

    figure: Path | None
    """None where nothing was left to draw; `-` is stdout."""
    failures: list[Failure]
    data: bytes | None = None
    """The file itself, where it goes to stdout."""


@dataclass
class Drawing:
    """What is to be drawn, found and placed. `total` is how many files, None where the list is still growing."""

    total: int | None
    _jobs: Iterable[Job]
    _places: Places
    _look: Look
    _listing: Inputs | Records
    _report: Report | None

    @property
    def passed_over(self) -> dict[str, int]:
        """How many there were of what is no input after all, by what it is."""
        of_records = isinstance(self._listing, Records)
        counted = {"records without a mask" if of_records else "masks in the list": self._listing.passed_over}
        return counted if self._report is None else counted | {"images not in the report": self._report.unknown}

    def run(self) -> Generator[Outcome, None, None]:
        """Draw and write, in order, each as soon as it is done; may be called once, and not after `preview`.

        An input that cannot be read or drawn fails alone, as does a figure that cannot be written. Memory holds a few
        figures, or one patient, however many there are; of a list that is still growing none waits for a later
        one, but for a patient's last. UsageError for a channel that an image lacks; DiskError where nothing more can be
        written.
        """
        # one holds a whole patient, and two at once take as long
        workers = WORKERS if self._places.form == "figure" else 1
        with Reading(self._jobs, self._draw, workers=workers, ahead=2 * workers) as drawn:
            while one := drawn.take(1, wait=True):
                yield self._finish(*one[0])

    def preview(self) -> Generator[Outcome, None, None]:
        """What would be drawn, and what is known to fail; nothing is read that need not be, nothing written."""
        for job in self._jobs:
            yield Outcome((job.target or STDOUT) if job.slices else None, job.failures)

    def _draw(self, job: Job) -> tuple[Job, bytes | None, list[Failure]]:
        failures = list(job.failures)
        shown = _try_each(read_slice, job.slices, failures)
        look = self._look
        if self._places.form == "figure":
            drawn = _try_each(lambda one: draw_figure(one, look, self._places.figure_format), shown, failures)
            return job, drawn[0] if drawn else None, failures
        if look.zoom:
            shown, look = cut_alike(shown), replace(look, zoom=False)
        draw = draw_frame if self._places.form == "gif" else draw_tile
        frames = _try_each(lambda one: draw(one, look), shown, failures)
        if not frames:
            return job, None, failures
        if self._places.form == "gif":
            return job, lay_out_animation(frames), failures
        title = f"{job.name} · {len(frames)} slice{'s' if len(frames) > 1 else ''}"
        with_reference = any(one.reference is not None for one in shown)
        return job, lay_out_sheet(frames, look, title=title, reference=with_reference), failures

    def _finish(self, job: Job, data: bytes | None, failures: list[Failure]) -> Outcome:
        if data is None:
            return Outcome(None, failures)
        if job.target is None:
            return Outcome(STDOUT, failures, data)
        try:
            with telling(job.target, then="the same with --overwrite"):
                write_bytes(job.target, data)
        except DiskError:
            raise
        except BrainsegError as error:
            return Outcome(None, [*failures, Failure(str(job.target), error.what)])
        return Outcome(job.target, failures)


def overlay(sources: Sources, places: Places, look: Look, stdin: BinaryIO) -> Drawing:
    """Find the images and what belongs to them, choose among them, give each figure its place. Nothing is drawn.

    The figure of `p/p_7.tif` is `folder/p/p_7.png`, a patient's `folder/p.png` (or `.gif`). A mask belongs to an image
    by its place in the folder of masks (`p/p_7.png`, `p/p_7_mask.tif`), or, where one of the two trees starts higher
    than the other, by the part of the path that both have; an input whose mask or reference is missing or ambiguous
    fails alone. A patient's slices are those of one folder.

    UsageError, before anything is drawn, for parts that do not go together, where two inputs would share a figure,
    where a figure would replace a file that is read here, and for stdout where there is not one figure. InputError
    without inputs or where a folder is missing; OutputExistsError for a figure that is there, unless it may be
    replaced. Of a list that is still growing the same faults are those of single figures, when they come.
    """
    sources.check()
    places.check()
    if look.style == "errors" and sources.reference is None:
        raise UsageError("errors are seen against a reference", hint="--reference FOLDER")
    if places.folder is not None and places.folder.exists() and not places.folder.is_dir():
        raise OutputExistsError("is a file, a folder was to be written there", where=places.folder)
    report = None if sources.report is None else Report(sources.report)
    listing: Inputs | Records
    if sources.records is not None:
        listing = Records(sources.records, sources.request, stdin)
        growing = listing.growing
    else:
        listing = open_inputs(sources.request, stdin)
        growing = listing.total is None
    # what depends on all of them has to wait for them
    growing = growing and places.folder is not None and not (sources.only and sources.only.ranks)
    arriving: Iterable[Input | Failure] = listing if growing else list(listing)
    items = None if growing else [item for item in arriving if isinstance(item, Input)]
    masks = None if sources.masks is None else MaskFolder(sources.masks, "mask", items)
    references = None if sources.reference is None else MaskFolder(sources.reference, "reference", items)

    found: Iterable[Found] = match(arriving, masks, references)
    if sources.only is not None:
        found = choose(found, sources.only, measure_masks if report is None else report.measure)
    if report is not None:
        found = _check_known(found, report)
    planner = Planner(places, [path for folder in (masks, references) if folder for path in folder.files])
    if growing:
        return Drawing(None, planner.plan_growing(found), places, look, listing, report)
    jobs = planner.plan_known(list(found))
    if places.folder is None and len(jobs) != 1:
        raise UsageError("-o - is for one figure", hint=f"there are {len(jobs)}")
    return Drawing(len(jobs), jobs, places, look, listing, report)


def _check_known(found: Iterable[Found], report: Report) -> Iterator[Found]:
    yield from found
    report.check_known()


def _try_each(make: Callable[[Thing], Made], things: Sequence[Thing], failures: list[Failure]) -> list[Made]:
    """What was made of those of which it could be; the others are `failures`."""
    made = []
    for thing in things:
        try:
            made.append(make(thing))
        except InputError as error:
            failures.append(fail(thing.item, error))
    return made
