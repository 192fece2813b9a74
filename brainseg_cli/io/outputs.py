"""Where results go: the input tree mirrored, names from a template, inside the folder, no two in one place."""

import os
import string
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brainseg_cli.errors import UsageError
from brainseg_cli.io.inputs import Input

TEMPLATE = "{stem}"
ENDINGS = (".png", ".tif", ".tiff", ".jpg", ".jpeg", ".npy", ".svg", ".pdf", ".gif")
FIELDS = ("stem", "name", "patient_id", "slice_index")


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
        self._fill(stem="s", name="s.tif", patient_id="p", slice_index=1)

    def place(self, item: Input) -> Path:
        """The result's path for this input. UsageError where the template asks for what the input has not."""
        values = {"patient_id": item.patient_id, "slice_index": item.slice_index}
        known = {name: value for name, value in values.items() if value is not None}
        name = self._fill(item, stem=item.relative.stem, name=item.relative.name, **known)
        if not name or name.endswith("/"):
            raise UsageError(f"--name {self.template} leaves nothing of the name", where=item.path)
        filled = Path(name + self.suffix)
        if filled.is_absolute() or ".." in filled.parts:
            raise UsageError(f"--name {self.template} would leave the folder", where=item.path)
        return self.folder / (filled if "/" in self.template else item.relative.parent / filled)

    def _fill(self, item: Input | None = None, **values: Any) -> str:
        try:
            used = [name for _, name, _, _ in string.Formatter().parse(self.template) if name is not None]
            if unknown := sorted(set(used) - set(FIELDS)):
                told = ", ".join(f"{{{name}}}" for name in FIELDS)
                raise UsageError(f"--name {self.template}: there is no {{{unknown[0]}}}", hint=f"{told} are filled in")
            if absent := sorted(set(used) - set(values)):
                where = None if item is None else item.path
                raise UsageError(f"has no {absent[0]}, and --name {self.template} asks for it", where=where)
            return self.template.format(**values)
        except (ValueError, TypeError, LookupError) as error:  # a lookup: a field within a format, {stem:{x}}
            raise UsageError(f"--name {self.template} cannot be filled in: {error}") from None


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
        self._owners: dict[Path, Path] = {}

    def claim(self, target: Path, item: Input) -> None:
        """UsageError where another input has it."""
        owner = self._owners.setdefault(target, item.path)
        if owner is not item.path:
            told = f"{owner} and {item.path} would both be written to {target}"
            raise UsageError(told, hint="--name can tell them apart")


def check_not_read(targets: Sequence[Path], read: Sequence[Path]) -> None:
    """UsageError where a result would replace a file that is to be read."""
    sources = {os.path.realpath(path) for path in read}
    if clash := next((target for target in targets if os.path.realpath(target) in sources), None):
        raise UsageError("would be written over, and is to be read", where=clash, hint="give another -o")
