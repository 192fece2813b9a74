"""predict's records as the images to draw, each with its mask, while predict may still be at work."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from brainseg_cli.errors import BrainsegError, InputError
from brainseg_cli.io.images import read_bytes
from brainseg_cli.io.sources import STDIN, Request, is_chosen, is_own, mirror, read_chunks
from brainseg_cli.overlay.matching import Failure, Told

OK = "ok"


class Records:
    """The images of JSON lines, in their order, to be walked through once; a line that is no record is a Failure.

    Of `request` count what chooses among the images and where they are mirrored, as for a list of paths. Records of
    slices that failed are passed over, and counted. InputError, in the end, where there was no record at all.
    """

    def __init__(self, source: str, request: Request, stdin: BinaryIO) -> None:
        self.growing = source == STDIN
        self.passed_over = 0
        self._where = "stdin" if self.growing else source
        self._request = request
        self._chunks: Iterable[bytes] = read_chunks(stdin) if self.growing else [read_bytes(Path(source), piped=True)]

    def __iter__(self) -> Iterator[Told | Failure]:
        empty = True
        for number, line in enumerate(_split(self._chunks), 1):
            if not line.strip():
                continue
            empty = False
            try:
                item = self._read(line)
            except BrainsegError as error:
                yield Failure(f"{self._where}, line {number}", str(error))
                continue
            if item is None:
                self.passed_over += 1
            elif is_chosen(item.relative, self._request) and is_own(item, self._request):
                yield item
        if empty:
            raise InputError("holds no record", where=self._where, hint="brainseg predict writes one a line")

    def _read(self, line: bytes) -> Told | None:
        """None for a slice that has no mask because it failed."""
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            raise InputError("is no JSON") from None
        if not isinstance(record, dict) or not isinstance(record.get("status"), str):
            raise InputError("is no record of predict: it has no status")
        if record["status"] != OK:
            return None
        image, mask = (_get_path(record.get(name), name) for name in ("image", "mask"))
        patient, index = record.get("patient_id"), record.get("slice_index")
        is_named = patient is None or (isinstance(patient, str) and "\0" not in patient)
        if not is_named or not isinstance(index, int | None) or isinstance(index, bool):
            raise InputError("is no record of predict: patient_id is no text, or slice_index no number")
        return Told(image, mirror(image, self._request.relative_to), said=(patient, index), mask=mask)


def _get_path(value: object, name: str) -> Path:
    if not isinstance(value, str) or not value or "\0" in value:
        raise InputError(f"names no {name}")
    return Path(value)


def _split(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Lines, each as soon as it is whole; empty ones too, so that they can be counted."""
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        yield from whole
    yield rest
