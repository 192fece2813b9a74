"""Inputs read ahead, in their order, while the list of them may still be growing."""

import queue
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, TypeVar

Job = TypeVar("Job")
Read = TypeVar("Read")

POLL_S = 0.1


class Reading(Generic[Job, Read]):
    """Takes jobs off an iterable that may block, in a thread of its own, and has `workers` others `read` them.

    At most `ahead` are read and not yet taken. The thread ends with the program, even where the iterable never does.
    """

    def __init__(self, jobs: Iterable[Job], read: Callable[[Job], Read], *, workers: int, ahead: int) -> None:
        self._jobs, self._read = jobs, read
        self._pool = ThreadPoolExecutor(workers)
        self._queue: queue.Queue[Future[Read] | BaseException | None] = queue.Queue(ahead)
        self._stopped = threading.Event()
        self._ended: BaseException | bool = False

    def __enter__(self) -> "Reading[Job, Read]":
        threading.Thread(target=self._feed, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._pool.shutdown(cancel_futures=True)

    def take(self, most: int, *, wait: bool) -> list[Read]:
        """The next ones: `most` with `wait`, else at least one and what has come by now. None are left: [].

        What the iterable or `read` raises is raised here, in its turn.
        """
        taken: list[Future[Read]] = []
        while len(taken) < most and not self._ended:
            try:
                entry = self._queue.get(block=wait or not taken)
            except queue.Empty:
                break
            if isinstance(entry, Future):
                taken.append(entry)
            else:
                self._ended = entry or True
        if not taken and isinstance(self._ended, BaseException):
            raise self._ended
        return [future.result() for future in taken]

    def _feed(self) -> None:
        try:
            for job in self._jobs:
                if not self._put(self._pool.submit(self._read, job)):
                    return
        except BaseException as error:
            self._put(error)
        else:
            self._put(None)

    def _put(self, entry: "Future[Read] | BaseException | None") -> bool:
        while not self._stopped.is_set():
            try:
                self._queue.put(entry, timeout=POLL_S)
            except queue.Full:
                continue
            return True
        return False
