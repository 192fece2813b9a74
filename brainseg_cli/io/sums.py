"""SHA-256 of files: told where they are written, held where they are read.

A JSON file that tells the sums of others has them under `sha256`, by name, and among them its own: of what it holds
without that entry, so that white space and the order of keys are free.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from brainseg_cli.errors import InputError
from brainseg_cli.types import Json


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


def with_own_sum(value: Json, name: str) -> Json:
    """What a JSON file called `name` is to hold, given what else it says: its own sum among those in `sha256`."""
    others = {key: digest for key, digest in value["sha256"].items() if key != name}
    return value | {"sha256": {name: _hash_value(value | {"sha256": others}), **others}}


def check_own_sum(path: Path, value: Json, *, hint: str) -> None:
    """InputError, with `hint`, where `value`, read from `path`, is not what `with_own_sum` gave.

    Where it has no sum of its own there is nothing to hold it against.
    """
    sums = value.get("sha256", {})
    if path.name in sums:
        check_sums(path.parent, {path.name: with_own_sum(value, path.name)["sha256"][path.name]}, sums, hint=hint)


def _hash_value(value: Json) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _hash_file(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        raise InputError("is not there", where=path) from None
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or error}", where=path) from None
