"""One slice with the outlines of its prediction and its reference, titled and with a legend, as an image."""

from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image as PILImage
from PIL import ImageDraw, ImageFont

from brainseg_cli.errors import InputError, UsageError
from brainseg_cli.types import Image, Mask

# Okabe and Ito's colour-blind-safe palette: sky blue and orange, apart in every common colour vision
REFERENCE_COLOUR = (86, 180, 233)
PREDICTION_COLOUR = (230, 159, 0)
HALO_COLOUR = (0, 0, 0)
PAPER_COLOUR = (255, 255, 255)
TEXT_COLOUR = (33, 33, 33)


class _Outline(NamedTuple):
    name: str
    colour: tuple[int, int, int]
    line: Mask  # (H', W') of the framed picture, 1 on the line


def draw_overlay(
    image: Image,
    prediction: Mask | None,
    reference: Mask | None = None,
    *,
    channel: int | None = None,
    title: str = "",
    min_side: int = 640,
) -> Image:
    """Draw the outlines of masks on a slice; below it a strip with the title and a legend.

    `image` is (H, W, C) uint8, C in {1, 3}; the masks are (H, W), 0 background and anything else tumour. The
    result is (H', W', 3) uint8, RGB. The slice, or its one `channel` (from 0) in grey, is enlarged by the
    smallest whole factor that brings its longer side to `min_side` px, without smoothing, and framed.

    The outlines run along the edges of the mask's pixels, as much inside as outside, with a dark halo; where
    the two outlines fall together they take turns, in dashes. A mask without tumour has no outline and is
    called empty in the legend. A title too wide for the figure loses its middle.

    UsageError where the image has no such channel; InputError where a mask is of another size.
    """
    height, width = image.shape[:2]
    for name, mask in (("prediction", prediction), ("reference", reference)):
        if mask is not None and mask.shape != (height, width):
            shape = "x".join(map(str, mask.shape))
            raise InputError(f"the {name} is {shape} pixels (rows x columns), the image {height}x{width}")
    if channel is not None and not 0 <= channel < image.shape[2]:
        raise UsageError(f"there is no channel {channel}: the image has {image.shape[2]}, counted from 0")
    shown = image if channel is None else image[..., channel : channel + 1]
    shown = np.broadcast_to(shown, (height, width, 3))

    factor = max(1, -(-min_side // max(height, width)))
    # a line is twice this wide: usually less than one enlarged pixel, so that neighbouring edges stay apart
    half_px = max(1, round(factor * max(height, width) / 600))
    frame_px = half_px + 1  # where tumour reaches the border of the slice, its outline runs in the frame
    picture = _enlarge(shown, factor, frame_px)
    outlines = [
        _Outline(name, colour, _edge(_enlarge((mask != 0).astype(np.uint8), factor, frame_px), half_px))
        for name, colour, mask in (
            ("reference", REFERENCE_COLOUR, reference),
            ("prediction", PREDICTION_COLOUR, prediction),
        )
        if mask is not None
    ]
    _draw_outlines(picture, outlines, dash_px=9 * half_px)
    return _add_strip(picture, title, outlines, half_px)


def _enlarge(array: Image, factor: int, frame_px: int) -> Image:
    """Each pixel as `factor` x `factor` of its kind, in a frame of zeros."""
    enlarged = array.repeat(factor, axis=0).repeat(factor, axis=1)
    return np.pad(enlarged, [(frame_px, frame_px)] * 2 + [(0, 0)] * (array.ndim - 2))


def _edge(mask: Mask, half_px: int) -> Mask:
    """The band within `half_px` of the mask's edge, inside and outside, as a mask."""
    return _grow(mask, half_px) & _grow(1 - mask, half_px)


def _draw_outlines(picture: Image, outlines: list[_Outline], *, dash_px: int) -> None:
    """Draw into `picture`: first every halo, so that none covers a line, then the lines."""
    for outline in outlines:
        picture[_grow(outline.line, 1) > 0] = HALO_COLOUR
    for outline in outlines:
        picture[outline.line > 0] = outline.colour
    if len(outlines) == 2:
        # dashes cut by a chequerboard: they alternate in whichever direction the line runs
        rows, columns = np.ogrid[: picture.shape[0], : picture.shape[1]]
        turn = (rows // dash_px + columns // dash_px) % 2 == 0
        picture[(outlines[0].line & outlines[1].line & turn) > 0] = outlines[0].colour


def _grow(mask: Mask, by_px: int) -> Mask:
    """Every pixel within `by_px` of the mask, by row or column or diagonally."""
    side = 2 * by_px + 1
    return np.asarray(cv2.dilate(mask, np.ones((side, side), np.uint8)), np.uint8)


def _add_strip(picture: Image, title: str, outlines: list[_Outline], half_px: int) -> Image:
    """The picture on paper, with the title and a legend below it."""
    height, width = picture.shape[:2]
    font = _load_font(max(16, round(max(height, width) / 38)))
    # a file name may hold what no font can draw: line breaks, and bytes that are not text
    title = " ".join(title.encode("utf-8", "replace").decode().split())
    legend = [o.name if o.line.any() else f"{o.name} (empty)" for o in outlines]
    margin, row = round(font.size * 0.6), round(font.size * 1.5)
    swatch, gap = round(font.size * 1.6), round(font.size * 0.5)
    legend_width = sum(swatch + gap + round(font.getlength(name)) + 2 * gap for name in legend)
    rows = bool(title) + bool(legend)

    paper = (
        max(width, legend_width + 2 * margin),
        height + (rows * row + 2 * margin - row // 4 if rows else 0),
    )
    figure = PILImage.new("RGB", paper, PAPER_COLOUR)
    figure.paste(PILImage.fromarray(picture), ((paper[0] - width) // 2, 0))
    draw = ImageDraw.Draw(figure)
    middle = height + margin + round(font.size * 0.6)
    if title:
        shown = _shorten(title, font, paper[0] - 2 * margin)
        draw.text((margin, middle), shown, TEXT_COLOUR, font, anchor="lm")
        middle += row
    left, half = margin, half_px + 1
    for outline, name in zip(outlines, legend, strict=True):
        box = (left, middle - half, left + swatch - 1, middle + half - 1)
        draw.rectangle((box[0] - 1, box[1] - 1, box[2] + 1, box[3] + 1), HALO_COLOUR)
        draw.rectangle(box, outline.colour)
        draw.text((left + swatch + gap, middle), name, TEXT_COLOUR, font, anchor="lm")
        left += swatch + gap + round(font.getlength(name)) + 2 * gap
    return np.array(figure)


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
