"""A plan carried out: read ahead, whole batches through the network, masks and records in the order of the inputs."""

import time
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import chain
from typing import NamedTuple

from brainseg_cli.errors import BrainsegError, DiskError
from brainseg_cli.io.atomic import remove, telling, write_bytes
from brainseg_cli.io.embedded import encode_mask, encode_probs
from brainseg_cli.io.images import MASK_SUFFIXES
from brainseg_cli.io.reading import Reading
from brainseg_cli.metrics.finding import describe_finding, measure_disagreement
from brainseg_cli.models.ensemble import Ensemble
from brainseg_cli.models.segmenter import apply_threshold
from brainseg_cli.postprocess import postprocess
from brainseg_cli.predict.plan import Job, Plan
from brainseg_cli.predict.recorded import hash_bytes, hash_mask, is_mask_of
from brainseg_cli.predict.records import Records
from brainseg_cli.predict.slices import Slice, read_slice
from brainseg_cli.predict.volumes import gather_patients, postprocess_volume
from brainseg_cli.types import Json

BATCH_SIZE = 16
WORKERS = 4
GO_ON = "make room, then the same with --resume"


class Outcome(NamedTuple):
    """One slice, done or failed: its record as in predictions.jsonl, and what is of this run alone."""

    record: Json
    seconds: float | None
    """Of the network and what belongs to it, shared out over the batch; None where nothing was computed."""
    unchanged: bool
    """Whether --resume found the mask made already."""
    mask: bytes | None
    """The encoded mask, where it goes to stdout."""


def run(plan: Plan, ensemble: Ensemble, *, batch_size: int = BATCH_SIZE) -> Generator[Outcome]:
    """Segment and write, in the order of the inputs; an outcome a slice as soon as its mask is on disk.

    A slice that cannot be read, segmented or written has `status` `failed` and `error` instead of numbers; the others
    go on. Memory holds a few batches and the inputs' names; of volumes, a patient. Of a list that is
    still growing, no slice waits for a later one, but for a patient's last. The records go into predictions.jsonl,
    those of failures into failures.jsonl too. DiskError where nothing more can be written.
    """
    if plan.places.folder is None:
        yield from _run(plan, ensemble, batch_size)
        return
    predictions, failures = plan.places.name_lines("predictions"), plan.places.name_lines("failures")
    with Records(predictions, failures, hint=GO_ON) as records:
        for outcome in _run(plan, ensemble, batch_size):
            records.write(outcome.record)
            yield outcome


def _run(plan: Plan, ensemble: Ensemble, batch_size: int) -> Iterator[Outcome]:
    def read(job: Job) -> Slice:
        return read_slice(job, plan)

    def finish(item: Slice, seconds: float) -> Outcome:
        return _finish(item, plan, seconds)

    with (
        ThreadPoolExecutor(WORKERS) as pool,
        Reading(plan.jobs(), read, workers=WORKERS, ahead=2 * batch_size) as reading,
    ):
        batches = iter(lambda: reading.take(batch_size, wait=plan.inputs.total is not None), [])
        groups = gather_patients(chain.from_iterable(batches), plan) if plan.settings.volume else batches
        for group in groups:
            started = time.perf_counter()
            waiting = [item for item in group if item.waits]
            _segment(waiting, ensemble, plan, batch_size)
            seconds = (time.perf_counter() - started) / max(len(waiting), 1)
            yield from pool.map(finish, group, [seconds] * len(group))


def _segment(waiting: Sequence[Slice], ensemble: Ensemble, plan: Plan, batch_size: int) -> None:
    """Probabilities and masks of all that the network takes."""
    settings = plan.settings
    for item in waiting:
        assert item.image is not None
        try:
            ensemble.check_channels(item.image)
        except BrainsegError as error:
            item.fault = error
    fit = [(item, item.image) for item in waiting if item.waits and item.image is not None]
    for start in range(0, len(fit), batch_size):
        items, images = zip(*fit[start : start + batch_size], strict=True)
        for item, (probs, members) in zip(items, ensemble.predict(images, tta=settings.tta), strict=True):
            item.probs, item.image = probs, None
            item.mask = apply_threshold(probs, plan.threshold)
            item.disagreement = measure_disagreement([apply_threshold(each, plan.threshold) for each in members])
            if not settings.volume:
                item.mask = postprocess(item.mask, settings.steps)
    if settings.volume:
        postprocess_volume(waiting, settings.steps)


def _finish(item: Slice, plan: Plan, seconds: float) -> Outcome:
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
        provenance = (item.provenance or {}) | {"mask_sha256": hash_mask(item.mask)}
        about |= {"disagreement": item.disagreement, "provenance": provenance}
        encoded_map = b""
        if map_target is not None:
            encoded_map = encode_probs(item.probs, map_target.suffix, about)
            provenance["probabilities_sha256"] = hash_bytes(encoded_map)
        encoded = encode_mask(item.mask, MASK_SUFFIXES[plan.places.mask_format], about)
        if map_target is not None:
            if target is not None:
                # a mask says that all of its slice is done: it never stands beside another map
                with telling(target, hint=GO_ON):
                    target.unlink(missing_ok=True)
            with telling(map_target, hint=GO_ON):
                write_bytes(map_target, encoded_map)
        if target is not None:
            with telling(target, hint=GO_ON):
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
