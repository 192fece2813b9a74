"""What is drawn, where it goes, and how it looks."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from brainseg_cli.errors import UsageError
from brainseg_cli.figures.scene import ALPHA
from brainseg_cli.io.outputs import TEMPLATE
from brainseg_cli.io.sources import Request
from brainseg_cli.overlay.choosing import Only
from brainseg_cli.types import FigureFormat, Style

Form = Literal["figure", "sheet", "gif"]
"""A figure a slice, or a contact sheet or an animation a patient."""


@dataclass(frozen=True)
class Sources:
    """Images and their masks: either a request with the folder `masks` (or one mask), or predict's `records`."""

    request: Request = field(default_factory=Request)
    masks: Path | None = None
    records: str | None = None
    """A file of JSON lines, or `-`. Of `request` then only what chooses among images counts."""
    reference: Path | None = None
    """A folder of reference masks, or one."""
    only: Only | None = None
    report: Path | None = None
    """Of an eval; else `only` goes by the masks themselves."""

    def check(self) -> None:
        """UsageError where the parts contradict each other, or one is missing."""
        listed = self.request.files_from is not None or self.request.files0_from is not None
        if self.records is not None and (self.masks is not None or self.request.arguments or listed):
            raise UsageError("--from-jsonl names images and masks itself", hint="leave out INPUT, lists and --masks")
        if self.records is None and self.masks is None:
            raise UsageError("no masks were named", hint="--masks FOLDER, or --from-jsonl with predict's lines")
        if self.report is not None and self.only is None:
            raise UsageError("--report is what --only goes by", hint="--only worst:20")
        if self.only is not None and self.only.ranks and self.report is None and self.reference is None:
            raise UsageError(f"--only {self.only} needs to know the dice", hint="give --report or --reference")


@dataclass(frozen=True)
class Places:
    """Where figures go."""

    folder: Path | None
    """None is stdout, for one figure."""
    form: Form = "figure"
    figure_format: FigureFormat = "png"
    template: str = TEMPLATE
    overwrite: bool = False

    def check(self) -> None:
        """UsageError for a form that there is in one format alone."""
        if self.form != "figure" and self.figure_format != "png":
            raise UsageError(f"--{self.form} and --format {self.figure_format} do not go together")

    @property
    def suffix(self) -> str:
        return ".gif" if self.form == "gif" else f".{self.figure_format}"


@dataclass(frozen=True)
class Look:
    """As `figures.overlay.draw_overlay` has it; `label` says whether there is a title."""

    style: Style = "contour"
    alpha: float = ALPHA
    channel: int | None = None
    zoom: bool = False
    label: bool = True
