"""One slice with its prediction and its reference marked on it, titled and with a legend, as an image."""

import cv2
import numpy as np
from PIL import Image as PILImage

from brainseg_cli.figures.caption import PAPER_COLOUR, TEXT_COLOUR, Caption, draw_caption, lay_out_caption
from brainseg_cli.figures.scene import (
    ALPHA,
    HALO_COLOUR,
    MIN_SIDE_PX,
    PREDICTION_COLOUR,
    REFERENCE_COLOUR,
    Colour,
    Scale,
    Scene,
    build_scene,
)
from brainseg_cli.types import Image, Mask, Style

__all__ = ["HALO_COLOUR", "PAPER_COLOUR", "PREDICTION_COLOUR", "REFERENCE_COLOUR", "TEXT_COLOUR", "draw_overlay"]


def draw_overlay(
    image: Image,
    prediction: Mask | None,
    reference: Mask | None = None,
    *,
    style: Style = "contour",
    alpha: float = ALPHA,
    channel: int | None = None,
    zoom: bool = False,
    title: str = "",
    legend: bool = True,
    min_side: int = MIN_SIDE_PX,
) -> Image:
    """Draw masks on a slice; below it a strip with the title and a legend.

    `image` is (H, W, C) uint8, C in {1, 3}; the masks are (H, W), 0 background and anything else tumour. The
    result is (H', W', 3) uint8, RGB. The slice, or its one `channel` (from 0) in grey, is enlarged by the
    smallest whole factor that brings its longer side to `min_side` px, without smoothing, and framed. With
    `zoom` it is first cut to a square around the tumour of both masks, as `find_zoom` has it.

    Styles:

    - contour: outlines along the edges of the mask's pixels, as much inside as outside, with a dark halo.
    - fill: each mask tinted, `alpha` (in (0, 1]) of its colour, and outlined; what both have is of the colour
      between the two.
    - errors: what prediction and reference share (hit), what only the reference has (missed) and what only the
      prediction has (false alarm), each tinted, with a line along the inside of its edge, counted in the legend.

    Where two outlines fall together they take turns, in dashes. A mask without tumour has no outline and is
    called empty in the legend. A title too wide for the figure loses its middle.

    UsageError where the image has no such channel, for an alpha or a style that is none, and for errors without
    both masks; InputError for an image of another shape, or where a mask is of another size.
    """
    scene = build_scene(image, prediction, reference, style=style, alpha=alpha, channel=channel, zoom=zoom)
    scale = scene.scale(min_side)
    picture = _enlarge(scene.slice, scale)
    _draw_lines(picture, scene, scale)
    caption = caption_below(picture.shape[:2], scene, scale, title, legend=legend)
    return _add_strip(picture, caption)


def caption_below(size: tuple[int, ...], scene: Scene, scale: Scale, title: str, *, legend: bool) -> Caption:
    """The caption of a framed picture of this size (rows, columns) in px."""
    return lay_out_caption(
        title,
        scene.legend if legend else [],
        min_width=size[1],
        font_px=max(16, round(max(size) / 38)),
        swatch_half_px=scale.half_px + 1 if scene.style == "contour" else None,
    )


def _enlarge(array: Image, scale: Scale) -> Image:
    """Each pixel as a square of its kind, in a frame of zeros."""
    enlarged = array.repeat(scale.factor, axis=0).repeat(scale.factor, axis=1)
    return np.pad(enlarged, [(scale.frame_px, scale.frame_px)] * 2 + [(0, 0)] * (array.ndim - 2))


def _draw_lines(picture: Image, scene: Scene, scale: Scale) -> None:
    """Draw into `picture`: first every halo, so that none covers a line, then the lines."""
    inside = scene.style == "errors"
    lines: list[tuple[Colour, Mask]] = [
        (mark.colour, _edge(_enlarge(mark.mask, scale), scale.half_px, inside=inside)) for mark in scene.marks
    ]
    if scene.style == "contour":
        for _, line in lines:
            picture[_grow(line, 1) > 0] = HALO_COLOUR
    for colour, line in lines:
        picture[line > 0] = colour
    if len(lines) == 2:
        # dashes cut by a chequerboard: they alternate in whichever direction the line runs
        (colour, first), (_, second) = lines
        dash_px = dash_of(scale)
        rows, columns = np.ogrid[: picture.shape[0], : picture.shape[1]]
        turn = (rows // dash_px + columns // dash_px) % 2 == 0
        picture[(first & second & turn) > 0] = colour


def dash_of(scale: Scale) -> int:
    """How long a dash is, and the gap behind it, in px."""
    return 9 * scale.half_px


def _edge(mask: Mask, half_px: int, *, inside: bool) -> Mask:
    """The band within `half_px` of the mask's edge, inside and, unless told, outside, as a mask."""
    return (mask if inside else _grow(mask, half_px)) & _grow(1 - mask, half_px)


def _grow(mask: Mask, by_px: int) -> Mask:
    """Every pixel within `by_px` of the mask, by row or column or diagonally."""
    side = 2 * by_px + 1
    return np.asarray(cv2.dilate(mask, np.ones((side, side), np.uint8)), np.uint8)


def _add_strip(picture: Image, caption: Caption) -> Image:
    """The picture on paper, with the caption below it."""
    beside = caption.width - picture.shape[1]
    margins = 0, caption.height, beside // 2, beside - beside // 2
    paper = np.asarray(cv2.copyMakeBorder(picture, *margins, cv2.BORDER_CONSTANT, value=PAPER_COLOUR), np.uint8)
    if caption.height:
        strip = PILImage.new("RGB", (caption.width, caption.height), PAPER_COLOUR)
        draw_caption(strip, caption, top=0)
        paper[-caption.height :] = np.asarray(strip)
    return paper
