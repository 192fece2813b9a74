"""One step of a pipeline: work taken off an iterable and done ahead, in its order, while the next step goes on."""

import queue
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from types import TracebackType
from typing import Generic, TypeVar

Job = TypeVar("Job")
Read = TypeVar("Read")

POLL_S = 0.1


class Reading(Generic[Job, Read]):
    """Takes jobs off an iterable that may block, in a thread of its own, and has `workers` others `read` them.

    At most `ahead` are read and not yet taken. The thread ends with the program, even where the iterable never does;
    where it does end once what feeds it is closed, `joined` waits for that.
    """

    def __init__(
        self, jobs: Iterable[Job], read: Callable[[Job], Read], *, workers: int, ahead: int, joined: bool = False
    ) -> None:
        self._jobs, self._read, self._joined = jobs, read, joined
        self._pool = ThreadPoolExecutor(workers)
        self._queue: queue.Queue[Future[Read] | BaseException | None] = queue.Queue(ahead)
        self._stopped = threading.Event()
        self._ended: BaseException | bool = False
        self._left: list[Future[Read]] = []
        self._in_hand: list[Future[Read]] = []
        """What was to be put into the queue when it was closed."""
        self._thread = threading.Thread(target=self._feed, daemon=True)

    def __enter__(self) -> "Reading[Job, Read]":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._pool.shutdown(cancel_futures=True)
        self._wake()
        if self._joined:
            self._thread.join()
            self._wake()  # it may have had one in hand

    def take(self, most: int, *, wait: bool) -> list[Read]:
        """The next ones: `most` with `wait`, else at least one and what has come by now. None are left: [].

        What the iterable or `read` raises is raised here, in its turn.
        """
        taken: list[Future[Read]] = []
        try:
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
        except BaseException:  # whatever it is, an interrupt too: what was taken is not lost to `leave`
            self._left.extend(taken)
            raise

    def leave(self) -> list[Read]:
        """What was done and not taken, in order, without what went wrong. To be asked once it is closed."""
        done = [
            future for future in [*self._left, *self._in_hand] if not future.cancelled() and future.exception() is None
        ]
        return [future.result() for future in done]

    def _wake(self) -> None:
        """Whoever waits in `take` is told that there is no more."""
        while True:
            with suppress(queue.Empty):
                entry = self._queue.get_nowait()
                if isinstance(entry, Future):
                    self._left.append(entry)
                continue
            with suppress(queue.Full):
                self._queue.put_nowait(None)
                return

    def _feed(self) -> None:
        try:
            for job in self._jobs:
                if self._stopped.is_set() or not self._put(self._pool.submit(self._read, job)):
                    return
        except BaseException as error:  # whatever it is: `take` raises it, in its turn
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
        if isinstance(entry, Future):
            self._in_hand.append(entry)
        return False
