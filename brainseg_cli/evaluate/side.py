"""One side of an evaluation: a prediction, measured against its references."""

import ctypes
import gc
import multiprocessing
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass

from brainseg_cli.errors import BrainsegError
from brainseg_cli.metrics.measure import Load, Measures, Ruler, collect, measure_patients
from brainseg_cli.types import Image, Json, Mask, Progress, no_progress

MOST_WORKERS = 8
PR_SET_PDEATHSIG = 1

Look = Callable[[str], tuple[Image | None, Mask, Mask]]
"""A slice's name to the slice itself (None where only masks are known), its reference and its prediction."""


@dataclass(frozen=True)
class Side:
    """`name` is what to call it, `about` where it comes from (for summary.json), `look` shows one of its slices."""

    name: str
    about: Json
    notes: list[str]
    measures: Measures
    look: Look

    @property
    def split(self) -> str | None:
        """Of which split these are the slices; None where there is none."""
        split: str | None = self.about["split"]
        return split


@contextmanager
def open_pool(workers: int | None = None) -> Iterator[Executor | None]:
    """Processes for `measure_all` to measure in, by default one a core up to MOST_WORKERS; None for threads.

    Processes where they cost nothing to start and cannot start in the middle of something: forked, so open the
    pool before a progress bar or anything else has a thread.
    """
    workers = count_workers(workers)
    safe = threading.active_count() == 1 and "torch" not in sys.modules
    if workers == 1 or not safe or sys.platform != "linux":
        yield None
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads that libraries have: they wait for work
        pool = ProcessPoolExecutor(workers, multiprocessing.get_context("fork"), _begin_worker)
        gc.freeze()  # or each worker would copy what its collector looks through
        pool.submit(int).result()
    try:
        yield pool
    except BrokenProcessPool:
        raise BrainsegError("a worker process was killed", hint="is the memory full? --workers 1 needs least") from None
    finally:
        pool.shutdown(cancel_futures=True)
        gc.unfreeze()


def count_workers(workers: int | None) -> int:
    """`workers`, at least 1; None is one a core up to MOST_WORKERS."""
    return min(os.cpu_count() or 1, MOST_WORKERS) if workers is None else max(workers, 1)


def _begin_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears it, and ends the pool
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)  # whatever ends the parent ends its workers


def measure_all(
    patients: Iterable[tuple[str, Load]],
    images: Sequence[str],
    ruler: Ruler,
    *,
    workers: int | None = None,
    pool: Executor | None = None,
    progress: Progress = no_progress,
) -> Measures:
    """Measure patients, several at a time, and tabulate them in the order of `images`, all slices there are.

    In `pool`, else in threads, `count_workers` of them. `progress` hears how many slices are measured.
    """
    measured = []
    slices = 0
    for patient in measure_patients(patients, ruler, workers=count_workers(workers), pool=pool):
        measured.append(patient)
        slices += len(patient.slices)
        progress(slices, len(images), "measuring")
    return collect(measured, images, ruler)
