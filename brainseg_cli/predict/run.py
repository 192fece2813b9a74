"""A plan carried out: reading, network and writing overlap; masks and records come in the order of the inputs."""

import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from contextlib import closing, suppress
from itertools import chain
from typing import NamedTuple

from brainseg_cli.errors import BrainsegError, DiskError
from brainseg_cli.io.atomic import remove, telling, write_bytes
from brainseg_cli.io.embedded import encode_mask, encode_probs
from brainseg_cli.io.images import MASK_SUFFIXES
from brainseg_cli.io.reading import Reading
from brainseg_cli.metrics.finding import describe_finding
from brainseg_cli.models.ensemble import Ensemble, Ensembled
from brainseg_cli.postprocess import postprocess
from brainseg_cli.predict.plan import Job, Plan
from brainseg_cli.predict.recorded import hash_bytes, hash_mask, is_mask_of
from brainseg_cli.predict.records import Records
from brainseg_cli.predict.slices import Slice, read_slice
from brainseg_cli.predict.volumes import gather_patients, postprocess_volume
from brainseg_cli.types import Json

WORKERS = 4
"""Threads that read and as many that write, where the user does not say."""
GO_ON = "the same with --resume"


class Outcome(NamedTuple):
    """One slice, done or failed: its record as in predictions.jsonl, and what is of this run alone."""

    record: Json
    seconds: float | None
    """Of the network, shared out over the batch; None where nothing was computed."""
    unchanged: bool
    """Whether --resume found the mask made already."""
    mask: bytes | None
    """The encoded mask, where it goes to stdout."""


def run(
    plan: Plan,
    ensemble: Ensemble,
    *,
    batch_size: int | None = None,
    workers: int | None = None,
    on_left: Callable[[Outcome], object] = lambda _: None,
) -> Generator[Outcome]:
    """Segment and write, in the order of the inputs; an outcome a slice as soon as its mask is on disk.

    A slice that cannot be read, segmented or written has `status` `failed` and `error` instead of numbers; the others
    go on. Memory holds a few batches and the inputs' names; of volumes, a few patients. Of a list that is
    still growing, no slice waits for a later one, but for a patient's last. The records go into predictions.jsonl,
    those of failures into failures.jsonl too. Where it is left before its end, `on_left` hears of what was
    written and not asked for any more. DiskError where nothing more can be written.
    """
    left: list[Outcome] = []
    outcomes = _run(
        plan, ensemble, batch_size or ensemble.batch_size, max(1, WORKERS if workers is None else workers), left
    )
    if plan.places.folder is None:
        yield from outcomes
        return
    predictions, failures = plan.places.name_lines("predictions"), plan.places.name_lines("failures")
    with Records(predictions, failures, then=GO_ON) as records:
        try:
            with closing(outcomes):
                for outcome in outcomes:
                    records.write(outcome.record)
                    yield outcome
        finally:
            with suppress(DiskError):
                for outcome in left:
                    records.write(outcome.record)
                    on_left(outcome)


class Batch(NamedTuple):
    """Slices that are finished together, and what the network was given of them: a few, or in a volume all."""

    slices: list[Slice]
    begun: list[tuple[list[Slice], Callable[[], list[Ensembled]]]]
    started: float


def _run(plan: Plan, ensemble: Ensemble, batch_size: int, workers: int, left: list[Outcome]) -> Generator[Outcome]:
    """Three steps that overlap: readers prepare slices, one thread feeds the network, writers finish batches.

    What was written and not asked for any more, when it is left before its end, is put into `left`.
    """
    clock = _Clock()

    def read(job: Job) -> Slice:
        item = read_slice(job, plan)
        if item.image is not None:
            try:
                item.prepared = ensemble.prepare(item.image)
                item.ood = ensemble.find_unlike(item.image)
            except BrainsegError as error:
                item.fault = error
            item.image = None
        return item

    def finish(batch: Batch) -> list[Outcome | DiskError]:
        return _finish_batch(batch, plan, ensemble, clock)

    reading = Reading(plan.jobs(), read, workers=workers, ahead=2 * batch_size)
    groups = iter(lambda: reading.take(batch_size, wait=plan.inputs.total is not None), [])
    if plan.settings.volume:
        groups = gather_patients(chain.from_iterable(groups), plan)
    batches = (_begin(group, ensemble, plan, batch_size) for group in groups)
    # the network's thread waits for the readers: they are closed first
    finishing = Reading(batches, finish, workers=workers, ahead=2, joined=True)
    done: deque[Outcome | DiskError] = deque()
    try:
        with finishing, reading:
            try:
                while batch := finishing.take(1, wait=True):
                    done.extend(batch[0])
                    while done:
                        outcome = done.popleft()
                        if isinstance(outcome, DiskError):
                            raise outcome
                        yield outcome
            finally:
                ensemble.cancel()  # who leaves early does not wait for what is queued; at the end nothing is
    finally:
        ensemble.cancel()  # what the network's thread began meanwhile
        done.extend(chain.from_iterable(finishing.leave()))
        left.extend(outcome for outcome in done if isinstance(outcome, Outcome))


def _begin(group: list[Slice], ensemble: Ensemble, plan: Plan, batch_size: int) -> Batch:
    """Hand what waits to the network; PyTorch on a CPU computes it here and now."""
    waiting = [item for item in group if item.waits]
    batch = Batch(group, [], time.perf_counter())
    for start in range(0, len(waiting), batch_size):
        items = waiting[start : start + batch_size]
        prepared = [item.prepared for item in items if item.prepared is not None]
        batch.begun.append((items, ensemble.submit(prepared, tta=plan.settings.tta)))
    return batch


def _finish_batch(batch: Batch, plan: Plan, ensemble: Ensemble, clock: "_Clock") -> list[Outcome | DiskError]:
    """Masks of what the network found, written; the outcomes of all in their order, until the disk is full."""
    settings = plan.settings
    for items, pending in batch.begun:
        for item, found in zip(items, pending(), strict=True):
            item.probs, item.prepared = found.probs, None
            item.mask, item.disagreement = found.decide(plan.threshold)
            if not settings.volume:
                item.mask = postprocess(item.mask, settings.steps)
    count = sum(len(items) for items, _ in batch.begun)
    seconds = clock.share(batch.started) / max(count, 1)
    if settings.volume:
        postprocess_volume([item for items, _ in batch.begun for item in items], settings.steps)
    outcomes: list[Outcome | DiskError] = []
    for item in batch.slices:
        try:
            outcomes.append(_finish(item, plan, ensemble.described, seconds))
        except DiskError as error:
            return [*outcomes, error]
    return outcomes


class _Clock:
    """Shares the time out over batches of which the next is begun before one is done."""

    def __init__(self) -> None:
        self._lock, self._last = threading.Lock(), 0.0

    def share(self, started: float) -> float:
        """Seconds since `started`, or since the batch before was done."""
        with self._lock:
            now = time.perf_counter()
            begun, self._last = max(started, self._last), now
            return now - begun


def _finish(item: Slice, plan: Plan, runtime: str, seconds: float) -> Outcome:
    """Write the map and the mask; the record, done or failed."""
    (source, target, map_target, fault) = item.job
    record: Json = {
        "image": str(source.path),
        "mask": None if target is None else str(target),
        "patient_id": source.patient_id,
        "slice_index": source.slice_index,
    }
    if item.recorded is not None:
        return Outcome(record | _complete(item.recorded), None, True, None)
    try:
        if item.fault is not None:
            raise item.fault
        assert item.probs is not None and item.mask is not None
        about = describe_finding(item.mask, item.probs, pixel_mm=plan.settings.pixel_mm)
        provenance = (item.provenance or {}) | {"runtime": runtime, "mask_sha256": hash_mask(item.mask)}
        about |= {"disagreement": item.disagreement, "ood": item.ood, "provenance": provenance}
        encoded_map = b""
        if map_target is not None:
            encoded_map = encode_probs(item.probs, map_target.suffix, about)
            provenance["probabilities_sha256"] = hash_bytes(encoded_map)
        encoded = encode_mask(item.mask, MASK_SUFFIXES[plan.places.mask_format], about)
        if map_target is not None:
            if target is not None:
                # a mask says that all of its slice is done: it never stands beside another map
                with telling(target, then=GO_ON):
                    target.unlink(missing_ok=True)
            with telling(map_target, then=GO_ON):
                write_bytes(map_target, encoded_map)
        if target is not None:
            with telling(target, then=GO_ON):
                write_bytes(target, encoded)
    except DiskError:
        raise
    except BrainsegError as error:
        if target is not None and fault is None and item.sha256 and not is_mask_of(target, item.sha256):
            # the mask of what the image was before would be taken for its own. Of an image that could not be read
            # nothing is known, and its mask stays
            with suppress(OSError):
                remove(target)
        return Outcome(record | {"mask": None, "status": "failed", "error": str(error)}, None, False, None)
    return Outcome(record | _complete(about), seconds, False, encoded if target is None else None)


def _complete(about: Json) -> Json:
    """What a mask says of itself, in a record's order."""
    finding = {name: value for name, value in about.items() if name != "provenance"}
    return {**finding, "status": "ok", "provenance": about["provenance"]}
