"""The words of a figure: where its title and legend stand, the same for pixels and for print."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from PIL import Image as PILImage
from PIL import ImageDraw, ImageFont

from brainseg_cli.figures.scene import HALO_COLOUR, Colour, Entry

PAPER_COLOUR: Colour = (255, 255, 255)
TEXT_COLOUR: Colour = (33, 33, 33)


class Swatch(NamedTuple):
    """A legend's entry in its place: a coloured box (left, top, right, bottom), half-open, and its label."""

    box: tuple[int, int, int, int]
    colour: Colour
    text_left: int
    label: str


@dataclass(frozen=True)
class Caption:
    """A title and below it a legend, in px from the caption's left upper corner; `middle` is that of its line."""

    width: int
    height: int
    font: ImageFont.FreeTypeFont
    title: str
    title_left: int
    title_middle: int
    swatches: list[Swatch]
    legend_middle: int


def lay_out_caption(
    title: str, legend: Sequence[Entry], *, min_width: int, font_px: int, swatch_half_px: int | None = None
) -> Caption:
    """Place a title and a legend; without either the caption is 0 px high.

    The caption is at least `min_width` px wide, wider where the legend needs it; a title too wide loses its
    middle. A swatch is a box, or a bar of twice `swatch_half_px`.
    """
    font = _load_font(font_px)
    title = _to_one_line(title)
    margin, row = round(font_px * 0.6), round(font_px * 1.5)
    swatch, gap = round(font_px * 1.6), round(font_px * 0.5)
    half = round(font_px * 0.4) if swatch_half_px is None else swatch_half_px
    rows = bool(title) + bool(legend)

    title_middle = margin + round(font_px * 0.6)
    middle = title_middle + (row if title else 0)
    left, swatches = margin, []
    for label, colour in legend:
        box = (left, middle - half, left + swatch, middle + half)
        swatches.append(Swatch(box, colour, left + swatch + gap, label))
        left += swatch + gap + round(font.getlength(label)) + 2 * gap
    width = max(min_width, left + margin if legend else 0)
    width += (width - min_width) % 2  # so that a picture stands in the exact middle, in every frame of an animation
    return Caption(
        width=width,
        height=rows * row + 2 * margin - row // 4 if rows else 0,
        font=font,
        title=_shorten(title, font, width - 2 * margin),
        title_left=margin,
        title_middle=title_middle,
        swatches=swatches,
        legend_middle=middle,
    )


def draw_caption(paper: PILImage.Image, caption: Caption, *, top: int) -> None:
    """Draw it into `paper`, at its left, from row `top` on."""
    draw = ImageDraw.Draw(paper)
    if caption.title:
        at = (caption.title_left, top + caption.title_middle)
        draw.text(at, caption.title, TEXT_COLOUR, caption.font, anchor="lm")
    for (left, upper, right, lower), colour, text_left, label in caption.swatches:
        box = (left, top + upper, right - 1, top + lower - 1)
        draw.rectangle((box[0] - 1, box[1] - 1, box[2] + 1, box[3] + 1), HALO_COLOUR)
        draw.rectangle(box, colour)
        draw.text((text_left, top + caption.legend_middle), label, TEXT_COLOUR, caption.font, anchor="lm")


def _to_one_line(text: str) -> str:
    """A file name may hold what no font can draw and no XML may hold: line breaks, control bytes, half characters."""
    known = (
        char if char.isspace() or unicodedata.category(char) not in ("Cc", "Cs", "Cn") else "\ufffd" for char in text
    )
    return " ".join("".join(known).split())


def _shorten(text: str, font: ImageFont.FreeTypeFont, width_px: int) -> str:
    """`text`, or its two ends around an ellipsis, at most `width_px` wide: the middle matters least."""
    shown = text
    while shown and font.getlength(shown) > width_px:
        text = text[: len(text) // 2] + text[len(text) // 2 + 1 :]
        shown = text[: len(text) // 2].rstrip() + "…" + text[len(text) // 2 :].lstrip() if text else ""
    return shown


@lru_cache
def _load_font(size_px: int) -> ImageFont.FreeTypeFont:
    import matplotlib  # only where its fonts are is asked, and only once something is drawn

    fonts = Path(matplotlib.get_data_path(), "fonts", "ttf")
    # the basic layout is the same everywhere; the other one depends on a library that Pillow may lack
    return ImageFont.truetype(str(fonts / "DejaVuSans.ttf"), size_px, layout_engine=ImageFont.Layout.BASIC)
