"""A contact sheet: several figures in rows, for example the slices of a patient, with a title and a legend."""

from collections.abc import Sequence

import numpy as np
from PIL import Image as PILImage

from brainseg_cli.errors import InputError, UsageError
from brainseg_cli.figures.caption import PAPER_COLOUR, draw_caption, lay_out_caption
from brainseg_cli.figures.scene import Entry
from brainseg_cli.types import Image

MARGIN_PX = 16


def draw_sheet(figures: Sequence[Image], *, columns: int, title: str = "", legend: Sequence[Entry] = ()) -> Image:
    """Lay out figures row by row, `columns` in a row (fewer where there are fewer figures), on white.

    Each figure is (H, W, C) uint8, C in {1, 3}, sizes may differ: a column is as wide as its widest figure, a
    row as high as its highest, and a smaller figure stands at the top, in the middle of its column, unscaled.
    Above them stand the `title`, without its middle where it is too wide, and a `legend` (as `name_colours`
    has it) for all figures. Returns (H', W', 3) uint8. InputError without a figure, UsageError for fewer than
    one column.
    """
    if not figures:
        raise InputError("there is no figure to lay out")
    if columns < 1:
        raise UsageError(f"a sheet of {columns} columns cannot be drawn", hint="at least 1")
    columns = min(columns, len(figures))
    widths = [max(figure.shape[1] for figure in figures[i::columns]) for i in range(columns)]
    rows = [figures[i : i + columns] for i in range(0, len(figures), columns)]
    heights = [max(figure.shape[0] for figure in row) for row in rows]

    size = (sum(heights) + MARGIN_PX * (len(heights) + 1), sum(widths) + MARGIN_PX * (columns + 1), 3)
    sheet = np.full(size, PAPER_COLOUR, np.uint8)
    top = MARGIN_PX
    for row, row_height in zip(rows, heights, strict=True):
        left = MARGIN_PX
        for figure, column_width in zip(row, widths, strict=False):  # the last row may be short
            height, width = figure.shape[:2]
            start = left + (column_width - width) // 2
            sheet[top : top + height, start : start + width] = figure
            left += column_width + MARGIN_PX
        top += row_height + MARGIN_PX
    return _add_head(sheet, title, legend)


def _add_head(sheet: Image, title: str, legend: Sequence[Entry]) -> Image:
    """The sheet below its title and legend, on paper wide enough for both."""
    height, width = sheet.shape[:2]
    caption = lay_out_caption(title, legend, min_width=width, font_px=max(20, round(width / 70)))
    paper = PILImage.new("RGB", (caption.width, caption.height + height), PAPER_COLOUR)
    draw_caption(paper, caption, top=0)
    paper.paste(PILImage.fromarray(sheet), ((caption.width - width) // 2, caption.height))
    return np.array(paper)
