"""predictions.jsonl and failures.jsonl: the last that is known of every slice, whatever ended this run."""

import json
import os
from array import array
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from brainseg_cli.io.atomic import atomic_path, remove, telling
from brainseg_cli.io.lines import LinesWriter
from brainseg_cli.io.names import Numbers
from brainseg_cli.types import Json

GONE = -1


class Records:
    """Appends each record as it comes; at the end, also where it is an interrupt, one line a slice is left.

    What stands of earlier runs stays, at its place, where this run did not come by. Failures are listed twice: in
    failures.jsonl, which is there as long as there are any.
    """

    def __init__(self, predictions: Path, failures: Path, *, then: str) -> None:
        self.predictions, self.failures, self.then = predictions, failures, then
        self._stack = ExitStack()
        self._lines, self._failed = LinesWriter(predictions), LinesWriter(failures)
        self._former_bytes = 0

    def __enter__(self) -> "Records":
        self._stack.enter_context(self._lines)
        self._former_bytes = self.predictions.stat().st_size
        return self

    def write(self, record: Json) -> None:
        """Append one record. DiskError, with what to do and `then`, where there is no room."""
        with telling(self.predictions, then=self.then):
            self._lines.write(record)
        if record["status"] != "ok":
            with telling(self.failures, then=self.then):
                if not self._failed.is_open:
                    self._stack.enter_context(self._failed)
                self._failed.write(record)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        if not self._former_bytes:
            return
        with suppress(*(() if kind is None else (OSError,))):  # a full disk was told of already
            self._keep_last()

    def _keep_last(self) -> None:
        with self.predictions.open("rb") as file:
            kept, failed = self._find_last(file)
            _copy(file, kept, self.predictions)
            if failed:
                _copy(file, failed, self.failures)
            else:
                remove(self.failures)

    def _find_last(self, file: BinaryIO) -> tuple["array[int]", "array[int]"]:
        """Where the last line of each image begins, and of those that failed.

        In the order of this run, where it came by all of them, else in that of their first lines.
        """
        images, masks = Numbers(), Numbers()
        places, owners, failures = array("q"), array("q"), bytearray()
        end = 0
        for line in file:
            start, end = end, end + len(line)
            try:
                record = json.loads(line)
                image, mask, failed = str(record["image"]), record["mask"], record["status"] != "ok"
            except (ValueError, TypeError, KeyError):
                continue  # half a line, as a power cut leaves it
            if end <= self._former_bytes and failed and not os.path.lexists(image):
                continue  # gone, and with it what was wrong
            if (number := images.add(image)) == len(places):
                places.append(GONE)
                failures.append(failed)
            if mask is not None:
                if (place := masks.add(str(mask))) == len(owners):
                    owners.append(number)
                elif (owner := owners[place]) != number:  # the same mask, of an image that is named otherwise now
                    places[owner], owners[place] = GONE, number
            places[number], failures[number] = start, failed
        kept = [place for place in places if place != GONE]
        left = [place for place, failed in zip(places, failures, strict=True) if failed and place != GONE]
        if min(kept, default=0) >= self._former_bytes:
            # all have come by again: an interrupt may have left out one and told of those after it
            kept.sort()
            left.sort()
        return array("q", kept), array("q", left)


def _copy(file: BinaryIO, places: Iterable[int], path: Path) -> None:
    """The lines that begin at `places`, as a file that appears whole or not at all."""
    with atomic_path(path) as aside, aside.open("wb") as copy:
        for place in places:
            file.seek(place)
            copy.write(file.readline().removesuffix(b"\n") + b"\n")
