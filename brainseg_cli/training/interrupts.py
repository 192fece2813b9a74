"""SIGINT and SIGTERM while the loop runs: a step that has begun is finished first, so that what is left is whole."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """Within, the first signal raises KeyboardInterrupt as soon as nothing is held, a second one at once.

    Those alone that raised it before are taken over, and given back at the end; one that is ignored stays so. A
    process that does not lead hears the second one alone: the first ends who leads, and that one needs
    it until then. Outside the main thread nothing is taken over.
    """

    def __init__(self, *, leads: bool = True) -> None:
        self.leads = leads
        self.came = self.insisted = self._holding = False
        self._taken: list[signal.Signals] = []

    def __enter__(self) -> "Interrupts":
        self.came = self.insisted = self._holding = False
        if threading.current_thread() is threading.main_thread():
            self._taken = [number for number in SIGNALS if signal.getsignal(number) is signal.default_int_handler]
        for number in self._taken:
            signal.signal(number, self._hear)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number in self._taken:
            signal.signal(number, signal.default_int_handler)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Within, a first signal waits for the end."""
        self._holding = True
        yield
        self._holding = False
        if self.came and self.leads:
            raise KeyboardInterrupt

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self.insisted = self.came
        self.came = True
        if self.insisted or (self.leads and not self._holding):
            raise KeyboardInterrupt
