"""The overlay use-case: images and the masks predicted for them to figures, one an image."""

import math
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from brainseg_cli.errors import BrainsegError, InputError, OutputExistsError, UsageError
from brainseg_cli.figures.overlay import draw_overlay
from brainseg_cli.io.atomic import check_absent
from brainseg_cli.io.images import read_image, read_mask, write_image
from brainseg_cli.io.inputs import Input, find_inputs, index_by_key, plan_outputs
from brainseg_cli.metrics.counts import compute_counts, dice
from brainseg_cli.types import Mask, Progress, no_progress

WORKERS = min(8, os.cpu_count() or 1)


@dataclass(frozen=True)
class OverlayResult:
    """The figures written and the inputs that failed, each with the reason; both in the order of the inputs."""

    written: list[Path]
    failures: list[tuple[Path, str]]


@dataclass(frozen=True)
class _Job:
    item: Input
    target: Path
    prediction: Path | InputError
    reference: Path | InputError | None


def overlay(
    inputs: Sequence[str],
    masks: Path,
    out: Path,
    *,
    reference: Path | None = None,
    channel: int | None = None,
    overwrite: bool = False,
    progress: Progress = no_progress,
) -> OverlayResult:
    """Draw the predicted mask of every input, and its reference where a folder of them is given.

    `inputs` are files, folders and globs; the figure of `p/p_7.tif` is `out/p/p_7.png`. A mask belongs to an
    image by its place in `masks` (`p/p_7.png`, `p/p_7_mask.tif`), or, where one of the two trees starts higher
    than the other, by the part of the path that both have. `channel` (from 0) shows one channel in grey.

    An input whose mask or reference is missing, ambiguous, unreadable or of another size is a failure of that
    input; the others are drawn. UsageError for a channel that an image lacks, and, before anything is drawn,
    where two inputs would share a figure or a figure would replace a file that is read here. InputError
    without inputs or where a folder is missing; OutputExistsError for a figure that is there, unless
    `overwrite`.
    """
    items = find_inputs(inputs)
    targets = plan_outputs(items, out, ".png")
    predictions = _match(items, masks, "mask")
    references = _match(items, reference, "reference") if reference else [None] * len(items)
    jobs = [_Job(*parts) for parts in zip(items, targets, predictions, references, strict=True)]
    _check_targets(jobs, out, overwrite=overwrite)

    written: list[Path] = []
    failures: list[tuple[Path, str]] = []
    with ThreadPoolExecutor(WORKERS) as pool:
        outcomes = pool.map(lambda job: _draw(job, channel), jobs)
        for done, (job, fault) in enumerate(zip(jobs, outcomes, strict=True), start=1):
            if fault is None:
                written.append(job.target)
            else:
                failures.append((job.item.path, str(fault)))
            progress(done, len(jobs), job.item.relative.as_posix())
    return OverlayResult(written, failures)


def _match(items: Sequence[Input], folder: Path, what: str) -> list[Path | InputError]:
    """The file below `folder` for each item, or why there is none."""
    own = {os.path.realpath(item.path) for item in items}  # an image is never its own mask
    index = {key: path for key, path in index_by_key(folder).items() if os.path.realpath(path) not in own}
    by_tail: dict[str, list[Path]] = defaultdict(list)
    for key, path in index.items():
        for tail in _tails(key):
            by_tail[tail].append(path)

    def candidates(key: str) -> list[Path]:
        if key in index:
            return [index[key]]
        # either tree may start higher: its keys then end with the other's
        return by_tail.get(key) or [index[tail] for tail in _tails(key) if tail in index][:1]

    found = [candidates(item.key) for item in items]
    claims = Counter(paths[0] for paths in found if len(paths) == 1)
    matched: list[Path | InputError] = []
    for item, paths in zip(items, found, strict=True):
        if not paths:
            matched.append(InputError(f"has no {what} in {folder}"))
        elif len(paths) > 1:
            matched.append(InputError(f"could belong to {len(paths)} files, such as {paths[0]} and {paths[1]}"))
        elif claims[paths[0]] > 1 and index.get(item.key) is None:
            matched.append(InputError(f"is one of several images that {paths[0]} could belong to"))
        else:
            matched.append(paths[0])
    return matched


def _tails(key: str) -> Iterator[str]:
    """`a/b/c` -> `a/b/c`, `b/c`, `c`."""
    parts = key.split("/")
    return ("/".join(parts[i:]) for i in range(len(parts)))


def _check_targets(jobs: Sequence[_Job], out: Path, *, overwrite: bool) -> None:
    if out.exists() and not out.is_dir():
        raise OutputExistsError("is a file, a folder was to be written there", where=out)
    read = {
        os.path.realpath(path)
        for job in jobs
        for path in (job.item.path, job.prediction, job.reference)
        if isinstance(path, Path)
    }
    for job in jobs:
        if os.path.realpath(job.target) in read:
            raise UsageError("would be drawn over, and is to be read", where=job.target, hint="name another -o")
        check_absent(job.target, overwrite=overwrite)


def _draw(job: _Job, channel: int | None) -> BrainsegError | None:
    """Write the figure; what was wrong with the input, if anything."""
    try:
        image = read_image(job.item.path)
        prediction, reference = _read(job.prediction), _read(job.reference)
        title = _title(job.item, prediction, reference)
        write_image(job.target, draw_overlay(image, prediction, reference, channel=channel, title=title))
    except InputError as error:
        return error
    return None


def _read(source: Path | InputError | None) -> Mask | None:
    if isinstance(source, InputError):
        raise source
    return None if source is None else read_mask(source)


def _title(item: Input, prediction: Mask | None, reference: Mask | None) -> str:
    if item.patient_id is not None and item.slice_index is not None:
        parts = [item.patient_id, f"slice {item.slice_index}"]
    else:
        parts = [item.key]
    # masks of two sizes have no dice; drawing refuses them, and says which is wrong
    if prediction is not None and reference is not None and prediction.shape == reference.shape:
        counts = compute_counts(reference, prediction)
        value = float(dice(counts.tp, counts.fp, counts.fn))
        parts.append("both empty" if math.isnan(value) else f"dice {value:.3f}")
    return " · ".join(parts)
