"""The JSON files between the verbs: read into a frozen model that refuses what it does not know."""

from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from brainseg_cli.errors import InputError
from brainseg_cli.io.atomic import read_json


class Contract(BaseModel):
    """One such file. A reader takes files of its own schema version and of older ones."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int


AnyContract = TypeVar("AnyContract", bound=Contract)


def read_contract(path: Path, kind: type[AnyContract]) -> AnyContract:
    """Read `path` as `kind`. InputError for a file that is missing, broken, newer than `kind` or not of it."""
    return check_contract(read_json(path), kind, path)


def check_contract(value: Any, kind: type[AnyContract], path: Path) -> AnyContract:
    """What was read from `path`, as `kind`. InputError as `read_contract`."""
    known = kind.model_fields["schema_version"].default
    version = value.get("schema_version") if isinstance(value, dict) else None
    if isinstance(version, int) and version > known:
        raise InputError(f"has schema {version}, this program reads up to {known}", where=path, hint="update brainseg")
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "the file"
        told = f"{key}: {first['msg'].lower()}"
        raise InputError(told, where=path, hint="it is damaged, or not what brainseg wrote") from None
