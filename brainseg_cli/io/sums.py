"""SHA-256 of files: told where they are written, held where they are read."""

import hashlib
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from brainseg_cli.errors import InputError


def hash_files(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """64 hex digits by name, several files at a time. InputError where one cannot be read."""
    ordered = list(names)
    with ThreadPoolExecutor(max(1, len(ordered))) as pool:
        return dict(zip(ordered, pool.map(lambda name: _hash_file(folder / name), ordered), strict=True))


def check_sums(folder: Path, found: Mapping[str, str], wanted: Mapping[Any, str], *, hint: str) -> None:
    """InputError, with `hint`, for the first file in `folder` that was `found` with another hash than is `wanted`.

    Where no hash is known there is nothing to hold it against.
    """
    for name, digest in found.items():
        if wanted.get(name, digest) != digest:
            raise InputError("is not as it was written: its checksum does not fit", where=folder / name, hint=hint)


def _hash_file(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        raise InputError("is not there", where=path) from None
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or error}", where=path) from None
