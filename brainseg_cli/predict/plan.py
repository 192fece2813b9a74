"""What is to be done: which images, where each result goes, and what is there already. No network is loaded."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from brainseg_cli.errors import BrainsegError, OutputExistsError, UsageError
from brainseg_cli.io.atomic import check_absent
from brainseg_cli.io.embedded import read_about
from brainseg_cli.io.images import ARRAY_SUFFIX, MASK_SUFFIXES, read_encoded
from brainseg_cli.io.inputs import Input, is_there
from brainseg_cli.io.outputs import TEMPLATE, Claims, Guard, Naming, drop_suffix
from brainseg_cli.io.sources import Inputs, Shard
from brainseg_cli.models.ensemble import mean_threshold
from brainseg_cli.models.locate import Bundle, find_bundles, open_bundles
from brainseg_cli.predict.recorded import find_recorded
from brainseg_cli.predict.settings import Settings, tell_provenance
from brainseg_cli.types import Json, MaskFormat


@dataclass(frozen=True)
class Places:
    """Where results go, and what becomes of what is there."""

    folder: Path | None
    """For the masks and the records; None is stdout, for the one mask there is."""
    mask_format: MaskFormat = "png"
    template: str = TEMPLATE
    maps: Path | None = None
    """For maps of probabilities."""
    overwrite: bool = False
    resume: bool = False
    shard: Shard | None = None

    def name_lines(self, kind: str) -> Path:
        """`predictions` -> predictions.jsonl in the folder, a file of its own for a shard."""
        assert self.folder is not None
        share = "" if self.shard is None else f"-{self.shard.name}"
        return self.folder / f"{kind}{share}.jsonl"


class Job(NamedTuple):
    """One image, the places of its mask and of its map of probabilities, and why it cannot be done at all."""

    item: Input
    target: Path | None
    map_target: Path | None
    fault: BrainsegError | None = None

    @property
    def targets(self) -> list[Path]:
        """Both places, those that there are."""
        return [target for target in (self.target, self.map_target) if target is not None]


@dataclass(frozen=True)
class Plan:
    """Which images become which masks."""

    inputs: Inputs
    places: Places
    settings: Settings
    bundles: list[Bundle]
    threshold: float
    """The one asked for, else the mean of the models'."""
    _planner: "_Planner"

    def jobs(self) -> Iterator[Job]:
        """In the order of the inputs; of a growing list as they come, and once."""
        plan = self._planner.check_growing if self.inputs.total is None else self._planner.plan_known
        return plan(self.inputs)

    def tell_provenance(self, image_sha256: str, *, volume_sha256: str | None = None) -> Json:
        """`settings.tell_provenance` of a slice of this plan."""
        hashes = [bundle.sha256 for bundle in self.bundles]
        return tell_provenance(image_sha256, hashes, self.threshold, self.settings, volume_sha256)

    def preview(self) -> Iterator[Json]:
        """A record for each image, of what would be done: `planned`, `unchanged` (by --resume) or `failed`.

        Slices that are seen together, as volumes, are not compared: they are all `planned`.
        """
        for item, target, map_target, fault in self.jobs():
            record: Json = {"image": str(item.path), "mask": None if target is None else str(target)}
            if fault is not None:
                yield record | {"mask": None, "status": "failed", "error": str(fault)}
                continue
            unchanged = False
            if self.places.resume and not self.settings.volume and target is not None and is_there(target):
                try:
                    sha256 = hashlib.sha256(item.data or read_encoded(item.path)).hexdigest()
                except BrainsegError as error:
                    yield record | {"mask": None, "status": "failed", "error": str(error)}
                    continue
                unchanged = find_recorded(target, map_target, self.tell_provenance(sha256)) is not None
            yield record | {"status": "unchanged" if unchanged else "planned"}


def make_plan(
    inputs: Inputs, models: Sequence[Path], places: Places, settings: Settings, *, verify: bool = True
) -> Plan:
    """Decide where each mask goes, and refuse what cannot be, before any work. Nothing is written.

    The mask of `p/p_7.tif` is `folder/p/p_7.png` (or `.tif`). InputError where a model is missing; UsageError where
    two inputs would share a mask, a mask would replace an input, or one mask was asked for and there are several;
    OutputExistsError for a mask or records that are there, unless `overwrite` or `resume`. Of a growing list the
    same faults are those of single images, when they come.
    """
    if places.overwrite and places.resume:
        raise UsageError("--overwrite makes all anew, --resume only what is missing", hint="give one of them")
    if places.maps is not None and places.folder is not None and _is_same(places.maps, places.folder):
        raise UsageError("masks and maps of probabilities would lie in one folder", where=places.maps)
    if places.folder is None and inputs.total != 1:
        several = "any number of" if inputs.total is None else inputs.total
        raise UsageError("-o - is for one mask", hint=f"there are {several} images")
    if inputs.total is None and places.shard is not None and places.template != TEMPLATE:
        told = "shares of a growing list cannot know whether --name gives two of them one place"
        raise UsageError(told, hint="write the list to a file first")
    for model in models:
        find_bundles(model)
    planner = _Planner(places, settings)
    if inputs.total is not None:
        planner.check_known(inputs)
    for folder in filter(None, (places.folder, places.maps)):
        if folder.exists() and not folder.is_dir():
            raise OutputExistsError("is a file, a folder was to be written there", where=folder)
    if places.folder is not None:
        _check_lines(places)
    bundles = open_bundles(models, verify=verify)
    threshold = settings.threshold
    if threshold is None:
        threshold = mean_threshold([bundle.info for bundle in bundles])
    return Plan(inputs, places, settings, bundles, threshold, planner)


class _Planner:
    def __init__(self, places: Places, settings: Settings) -> None:
        self.places = places
        suffix = MASK_SUFFIXES[places.mask_format]
        template = drop_suffix(places.template, suffix)
        self.masks = None if places.folder is None else Naming(places.folder, suffix, template)
        self.maps = None if places.maps is None else Naming(places.maps, f".{settings.probabilities}", template)

    def check_known(self, inputs: Inputs) -> None:
        """Whether all of a list can be done; nothing is remembered of it."""
        claims, guard = Claims(), Guard()
        total = there = 0
        first: Path | None = None
        for item in inputs:
            targets = self.place(item).targets
            for target in targets:
                claims.claim(target, item)
            guard.read(item.path)
            guard.write(targets)
            found = list(filter(is_there, targets))
            first = first or next(iter(found), None)
            there, total = there + len(found), total + len(targets)
        for item in inputs.elsewhere:
            for target in self.place(item).targets:  # no two shares write to one place
                claims.claim(target, item)
            guard.read(item.path)
        if there and not (self.places.overwrite or self.places.resume):
            told = f"{there} of {total} results are already there"
            raise OutputExistsError(
                told,
                where=first,
                hint="--overwrite replaces them, --resume makes what is missing or was made otherwise",
            )

    def plan_known(self, inputs: Inputs) -> Iterator[Job]:
        """What was checked."""
        jobs = map(self.place, inputs)
        # to resume is to replace our own masks alone
        return map(self.check_foreign, jobs) if self.places.resume else jobs

    def check_growing(self, inputs: Inputs) -> Iterator[Job]:
        """What cannot be done of a list that grows is the fault of one image."""
        claims, guard = Claims(), Guard()
        for item in inputs:
            job = Job(item, None, None)
            try:
                placed = self.place(item)
                for target in placed.targets:
                    claims.claim(target, item)
                job = placed
                guard.read(item.path)
                guard.write(job.targets)
                there = next(filter(is_there, job.targets), None)
                if there is not None and not (self.places.overwrite or self.places.resume):
                    raise OutputExistsError("is already there", where=there, hint="--overwrite replaces it")
                # with --overwrite too: it may be an image that comes later
                job = self.check_foreign(job)
            except BrainsegError as error:
                job = job._replace(fault=error)
            yield job

    def place(self, item: Input) -> Job:
        """Where its mask and its map go. UsageError as `Naming.place`."""
        mask, map_target = (None if naming is None else naming.place(item) for naming in (self.masks, self.maps))
        return Job(item, mask, map_target)

    def check_foreign(self, job: Job) -> Job:
        """A fault where a result would replace what is not brainseg's: it may have been drawn by hand."""
        for target in job.targets:  # a .npy has no place for a note
            if target.suffix != ARRAY_SUFFIX and is_there(target) and read_about(target) is None:
                told = "is there and was not made by brainseg"
                return job._replace(
                    fault=OutputExistsError(told, where=target, hint="remove it first, or name another place")
                )
        return job


def _check_lines(places: Places) -> None:
    try:
        check_absent(places.name_lines("predictions"), overwrite=places.overwrite or places.resume)
    except OutputExistsError as error:
        hint = "--resume adds to it, --overwrite makes masks anew too; of other slices both keep what is there"
        raise OutputExistsError(error.what, where=error.where, hint=hint) from None


def _is_same(one: Path, other: Path) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)
