"""predictions.jsonl and failures.jsonl: the last that is known of every slice, whatever ended this run."""

import json
import os
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType

from brainseg_cli.io.atomic import remove, telling, write_bytes
from brainseg_cli.io.lines import LinesWriter
from brainseg_cli.types import Json


class Records:
    """Appends each record as it comes; at the end, also where it is an interrupt, one line a slice is left.

    What stands of earlier runs stays, at its place, where this run did not come by. Failures are listed twice: in
    failures.jsonl, which is there as long as there are any.
    """

    def __init__(self, predictions: Path, failures: Path, *, hint: str) -> None:
        self.predictions, self.failures, self.hint = predictions, failures, hint
        self._stack = ExitStack()
        self._lines, self._failed = LinesWriter(predictions), LinesWriter(failures)
        self._former_bytes = 0

    def __enter__(self) -> "Records":
        self._stack.enter_context(self._lines)
        self._former_bytes = self.predictions.stat().st_size
        return self

    def write(self, record: Json) -> None:
        """Append one record. DiskError, with the hint, where there is no room."""
        with telling(self.predictions, hint=self.hint):
            self._lines.write(record)
        if record["status"] != "ok":
            with telling(self.failures, hint=self.hint):
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
        lines: dict[str, tuple[bytes, bool]] = {}
        owners: dict[str, str] = {}
        read_bytes = 0
        with self.predictions.open("rb") as file:
            for line in file:
                read_bytes += len(line)
                former = read_bytes <= self._former_bytes
                try:
                    record = json.loads(line)
                    image, mask, failed = str(record["image"]), record["mask"], record["status"] != "ok"
                except (ValueError, TypeError, KeyError):
                    continue  # half a line, as a power cut leaves it
                if former and failed and not os.path.lexists(image):
                    continue  # gone, and with it what was wrong
                if mask is not None and (owner := owners.setdefault(str(mask), image)) != image:
                    lines.pop(owner, None)  # the same mask, of an image that is named otherwise now
                    owners[str(mask)] = image
                lines[image] = (line if line.endswith(b"\n") else line + b"\n", failed)
        write_bytes(self.predictions, b"".join(line for line, _ in lines.values()))
        failures = b"".join(line for line, failed in lines.values() if failed)
        if failures:
            write_bytes(self.failures, failures)
        else:
            remove(self.failures)
