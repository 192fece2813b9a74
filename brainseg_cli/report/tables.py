"""The tables of a page: which columns of slices.csv and patients.csv it shows, as rows for its script."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from brainseg_cli.report.wording import Kind, kind_of

COUNTS = (
    *("slice_index", "slices", "tumour_slices", "reference_px", "prediction_px", "fn", "fp"),
    *("lesions", "lesions_detected", "lesion_false_alarms"),
)
TEXTS = ("image", "patient_id")
SHOWN = (
    *("patient_id", "image", "slice_index", "slices", "tumour_slices"),
    *("dice", "iou", "sensitivity", "precision", "hd95_", "assd_", "nsd_"),
    *("reference_px", "prediction_px", "fn", "fp"),
    *("lesions", "lesions_detected", "lesion_false_alarms", "lesion_dice", "brier"),
)
ABOUT = {
    "image": "the slice's file",
    "patient_id": "the patient",
    "slice_index": "the place of the slice in its series",
    "slices": "how many slices the patient has",
    "tumour_slices": "slices with tumour in the reference",
    "reference_px": "tumour pixels in the reference",
    "prediction_px": "tumour pixels in the prediction",
    "fn": "missed: tumour pixels that the prediction leaves out",
    "fp": "false: predicted pixels that are no tumour in the reference",
    "lesions": "lesions in the reference",
    "lesions_detected": "lesions of the reference that the prediction touches",
    "lesion_false_alarms": "predicted lesions that touch none of the reference",
    "lesion_dice": "mean dice of the lesions detected",
}


@dataclass(frozen=True)
class Column:
    """One column: its name in the CSV, what sort of number it holds, and a line about it (may be empty)."""

    name: str
    kind: Kind
    about: str


@dataclass(frozen=True)
class Table:
    """`rows` hold str, int, float or None (not defined), one a column; `pictures` the picture of a row, by number."""

    columns: list[Column]
    rows: list[list[Any]]
    pictures: dict[int, int]

    def to_json(self) -> dict[str, Any]:
        """What the page's script reads."""
        columns = [{"name": column.name, "kind": column.kind} for column in self.columns]
        return {"columns": columns, "rows": self.rows, "pictures": self.pictures}


def build_table(table: pd.DataFrame, pictures: Sequence[str] = ()) -> Table:
    """The columns of `table` that SHOWN names or begins, in that order, with every number whole.

    A table of slices, which has no such columns, gains reference_px and prediction_px. `pictures` are the names of
    the slices in the gallery, in its order. A table without rows keeps its columns.
    """
    if "reference_px" not in table:
        table = table.assign(reference_px=table["tp"] + table["fn"], prediction_px=table["tp"] + table["fp"])
    names = [
        name
        for start in SHOWN
        for name in table.columns
        if name == start or (start.endswith("_") and name.startswith(start))
    ]
    columns = [Column(name, _kind_of(name), ABOUT.get(name, "")) for name in names]
    cells = [[_to_cell(value, column.kind) for value in table[column.name].tolist()] for column in columns]
    numbers: Mapping[str, int] = {image: number for number, image in enumerate(pictures)}
    images = table["image"].tolist() if numbers else []
    places = {row: numbers[image] for row, image in enumerate(images) if image in numbers}
    return Table(columns, [list(row) for row in zip(*cells, strict=True)], places)


def _kind_of(name: str) -> Kind:
    return "text" if name in TEXTS else "count" if name in COUNTS else kind_of(name)


def _to_cell(value: Any, kind: Kind) -> str | int | float | None:
    if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return "" if kind == "text" else None
    return str(value) if kind == "text" else int(value) if kind == "count" else float(value)
