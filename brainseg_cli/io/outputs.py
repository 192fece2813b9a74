"""Where results go: the input tree mirrored, names from a template, inside the folder, no two in one place."""

# Names are texts here: of very many, Paths take several times the memory and the time.
# ruff: noqa: PTH115, PTH118, PTH120

import os
import string
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from brainseg_cli.errors import UsageError
from brainseg_cli.io.inputs import Input
from brainseg_cli.io.names import Names, Numbers

TEMPLATE = "{stem}"
ENDINGS = (".png", ".tif", ".tiff", ".jpg", ".jpeg", ".npy", ".svg", ".pdf", ".gif")
FIELDS: dict[str, Callable[[Input], str | int | None]] = {
    "stem": lambda item: item.relative.stem,
    "name": lambda item: item.relative.name,
    "patient_id": lambda item: item.patient_id,
    "slice_index": lambda item: item.slice_index,
}
MOST_LINKS, MOST_NAME = 40, 4096


@dataclass(frozen=True)
class Naming:
    """`folder`, the folders of the input, the name from `template`, and `suffix`.

    A template with a `/` stands for the folders too. FIELDS may be used in it, with a format: `{slice_index:03d}`.
    UsageError for a template that is none.
    """

    folder: Path
    suffix: str
    template: str = TEMPLATE

    def __post_init__(self) -> None:
        self._fill({"stem": "s", "name": "s.tif", "patient_id": "p", "slice_index": 1})

    def place(self, item: Input) -> Path:
        """The result's path for this input.

        UsageError where the template asks for what the input has not, or the result would leave the folder: by its
        name, or by a link within the folder that leads out of it.
        """
        name = item.relative.stem if self.template == TEMPLATE else self._fill(_Filled(item, self.template))
        if not name or name.endswith("/"):
            raise UsageError(f"--name {self.template} leaves nothing of the name", where=item.path)
        filled = name + self.suffix
        if len(filled) > MOST_NAME:
            raise UsageError(f"--name {self.template} gives a name of {len(filled)} characters", where=item.path)
        if filled.startswith("/") or ".." in filled.split("/"):
            raise UsageError(f"--name {self.template} would leave the folder", where=item.path)
        target = self.folder.joinpath("" if "/" in self.template else os.path.dirname(item.relative), filled)
        if _leads_out(str(target.parent), str(self.folder)):
            raise UsageError(
                f"a link leads out of {self.folder}", where=target.parent, hint="give -o where it leads to"
            )
        return target

    def _fill(self, values: dict[str, Any]) -> str:
        try:
            used = {name for _, name, _, _ in string.Formatter().parse(self.template) if name is not None}
            if unknown := sorted(used - FIELDS.keys()):
                told = ", ".join(f"{{{name}}}" for name in FIELDS)
                raise UsageError(f"--name {self.template}: there is no {{{unknown[0]}}}", hint=f"{told} are filled in")
            return self.template.format_map(values)
        except (ValueError, TypeError, LookupError, AttributeError, OverflowError, MemoryError) as error:
            told = str(error) or "it would be too long"
            raise UsageError(f"--name {self.template} cannot be filled in: {told}") from None


@lru_cache(1024)
def _leads_out(folder: str, top: str) -> bool:
    real = os.path.realpath(top)
    return os.path.commonpath([os.path.realpath(folder), real]) != real


class _Filled(dict[str, Any]):
    """What a template asks for of one input."""

    def __init__(self, item: Input, template: str) -> None:
        self._item, self._template = item, template

    def __missing__(self, name: str) -> str | int:
        value = FIELDS[name](self._item)
        if value is None:
            raise UsageError(f"has no {name}, and --name {self._template} asks for it", where=self._item.path)
        return value


def drop_suffix(template: str, suffix: str) -> str:
    """`{stem}_mask.png` -> `{stem}_mask` for results that end in `.png` anyhow. UsageError for another ending."""
    ending = Path(template).suffix.lower()
    alike = {".tiff": ".tif"}
    if alike.get(ending, ending) == suffix:
        return template[: -len(ending)]
    if ending in ENDINGS:
        raise UsageError(f"--name {template}: results end in {suffix}", hint="--format makes others")
    return template


class Claims:
    """Which places are taken. One after another, so that a list may still be growing."""

    def __init__(self) -> None:
        self._places, self._owners = Numbers(), Names()
        self._latest: Input | None = None
        self._since = 0  # places from this number on are those of the latest

    def claim(self, target: Path, item: Input) -> None:
        """UsageError where another input has it."""
        if item is not self._latest:
            self._latest, self._since = item, len(self._places)
        number = self._places.add(str(target))
        if number == len(self._owners):
            self._owners.append(str(item.path))
        elif number < self._since:
            told = f"{self._owners[number]} and {item.path} would both be written to {target}"
            raise UsageError(told, hint="--name can tell them apart")


class Guard:
    """No file is both read and written, wherever links lead. Told one after another too, in any order."""

    def __init__(self) -> None:
        self._read, self._written = Numbers(), Numbers()
        self._resolve_folder = lru_cache(1024)(os.path.realpath)

    def read(self, path: Path) -> None:
        """UsageError where it is to be written."""
        real = self._resolve(path)
        self._read.add(real)
        if real in self._written:
            raise UsageError("would be written over, and is to be read", where=path, hint="give another -o")

    def write(self, targets: Iterable[Path]) -> None:
        """UsageError where one is to be read; then none is to be written."""
        real = [self._resolve(target) for target in targets]
        for target, name in zip(targets, real, strict=True):
            if name in self._read:
                raise UsageError("would be written over, and is to be read", where=target, hint="give another -o")
        for name in real:
            self._written.add(name)

    def _resolve(self, path: Path) -> str:
        """`os.path.realpath`, with what is known of the folders of others."""
        name = str(path)
        for _ in range(MOST_LINKS):
            folder, last = os.path.split(name)
            if last in ("", ".", ".."):
                break
            name = os.path.join(self._resolve_folder(folder), last)
            try:
                linked = os.readlink(name)
            except OSError:  # no link, or nothing at all
                return name
            name = os.path.join(os.path.dirname(name), linked)
        return os.path.realpath(name)
