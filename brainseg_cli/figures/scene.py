"""What a figure of one slice shows, before it is drawn: the slice, its marks, the legend, how large, how thick."""

import math
from dataclasses import dataclass
from typing import NamedTuple, get_args

import numpy as np

from brainseg_cli.errors import InputError, UsageError
from brainseg_cli.types import Image, Mask, Style

Colour = tuple[int, int, int]

# Okabe and Ito's colour-blind-safe palette: sky blue and orange, apart in every common colour vision
REFERENCE_COLOUR: Colour = (86, 180, 233)
PREDICTION_COLOUR: Colour = (230, 159, 0)
BOTH_COLOUR: Colour = (158, 170, 116)
"""Halfway between the two."""
# of that palette the three that stay furthest apart, from each other and from a grey slice, tinted or not
HIT_COLOUR: Colour = (86, 180, 233)
MISSED_COLOUR: Colour = (213, 94, 0)
FALSE_ALARM_COLOUR: Colour = (240, 228, 66)
HALO_COLOUR: Colour = (0, 0, 0)

ALPHA = 0.45
MIN_SIDE_PX = 640
ZOOM_MARGIN = 0.25
MIN_MARGIN_PX = 8


class Entry(NamedTuple):
    """One line of a legend."""

    label: str
    colour: Colour


class Mark(NamedTuple):
    """A region of the slice whose edge is drawn."""

    name: str
    colour: Colour
    mask: Mask


class Scale(NamedTuple):
    """How a slice is enlarged, and the lines on it."""

    factor: int
    half_px: int  # half the width of a line
    frame_px: int  # where tumour reaches the border of the slice, its outline runs in the frame


@dataclass(frozen=True)
class Scene:
    """A slice (H, W, 3) uint8 with its areas already tinted, and the marks (H, W) to be outlined on it."""

    slice: Image
    marks: list[Mark]
    legend: list[Entry]
    style: Style

    def scale(self, min_side: int) -> Scale:
        """The smallest whole factor that brings the slice's longer side to `min_side` px."""
        side = max(self.slice.shape[:2])
        factor = max(1, -(-min_side // side))
        # a line is twice this wide: usually less than one enlarged pixel, so that neighbouring edges stay apart
        half_px = max(1, round(factor * side / 600))
        return Scale(factor, half_px, half_px + 1)


def build_scene(
    image: Image,
    prediction: Mask | None,
    reference: Mask | None,
    *,
    style: Style,
    alpha: float,
    channel: int | None,
    zoom: bool,
) -> Scene:
    """What is to be drawn of an image (H, W, C) uint8, C in {1, 3}, and its masks (H, W), 0 or tumour.

    The errors and options are those of `draw_overlay`.
    """
    _check(image, prediction, reference, style, alpha, channel)
    shown = image if channel is None else image[..., channel : channel + 1]
    shown = np.broadcast_to(shown, (*image.shape[:2], 3))
    named = {"reference": (REFERENCE_COLOUR, reference), "prediction": (PREDICTION_COLOUR, prediction)}
    masks = [Mark(name, colour, (m != 0).astype(np.uint8)) for name, (colour, m) in named.items() if m is not None]
    if zoom:
        box = find_zoom([mark.mask for mark in masks])
        shown = shown[box]
        masks = [mark._replace(mask=mark.mask[box]) for mark in masks]

    if style == "contour":
        return Scene(shown, masks, [_name(mark) for mark in masks], style)
    if style == "errors":
        areas = _split(masks, [MISSED_COLOUR, FALSE_ALARM_COLOUR, HIT_COLOUR], ["missed", "false alarm", "hit"])
        areas = [areas[2], *areas[:2]]
        legend = [Entry(f"{mark.name} {mark.mask.sum()} px", mark.colour) for mark in areas]
        return Scene(_tint(shown, areas, alpha), areas, legend, style)
    areas = _split(masks, [*(mark.colour for mark in masks), BOTH_COLOUR], [*(mark.name for mark in masks), "both"])
    both = [_name(mark) for mark in areas[2:] if mark.mask.any()]
    return Scene(_tint(shown, areas, alpha), masks, [*map(_name, masks), *both], style)


def name_colours(style: Style, *, reference: bool = True) -> list[Entry]:
    """The legend that many figures of one style share, with a `reference` among their masks or without."""
    if style == "errors":
        return [Entry("hit", HIT_COLOUR), Entry("missed", MISSED_COLOUR), Entry("false alarm", FALSE_ALARM_COLOUR)]
    prediction = Entry("prediction", PREDICTION_COLOUR)
    if not reference:
        return [prediction]
    both = [Entry("both", BOTH_COLOUR)] if style == "fill" else []
    return [Entry("reference", REFERENCE_COLOUR), prediction, *both]


def find_zoom(masks: list[Mask]) -> tuple[slice, slice]:
    """Rows and columns around the tumour of all masks (H, W): a square, shifted and cut to lie inside the slice.

    On each side of the tumour's box stays a margin of a quarter of its longer side, at least 8 px, but for what
    the slice lacks. Everything where no mask has tumour.
    """
    tumour = np.any(masks, axis=0) if masks else np.zeros(0)
    if not tumour.any():
        return slice(None), slice(None)
    spans = [np.flatnonzero(tumour.any(axis=axis))[[0, -1]] + (0, 1) for axis in (1, 0)]
    longer = max(int(stop - start) for start, stop in spans)
    side = longer + 2 * max(MIN_MARGIN_PX, math.ceil(ZOOM_MARGIN * longer))
    window = []
    for (start, stop), size in zip(spans, tumour.shape, strict=True):
        first = min(max(0, int(start + stop - side) // 2), max(0, size - side))
        window.append(slice(first, min(first + side, size)))
    return window[0], window[1]


def _check(
    image: Image, prediction: Mask | None, reference: Mask | None, style: Style, alpha: float, channel: int | None
) -> None:
    if image.ndim != 3 or image.shape[2] not in (1, 3) or not image.size:
        raise InputError(f"an image of shape {image.shape} cannot be drawn", hint="(H, W, 1) or (H, W, 3)")
    height, width, channels = image.shape
    for name, mask in (("prediction", prediction), ("reference", reference)):
        if mask is not None and mask.shape != (height, width):
            shape = "x".join(map(str, mask.shape))
            raise InputError(f"the {name} is {shape} pixels (rows x columns), the image {height}x{width}")
    if channel is not None and not 0 <= channel < channels:
        raise UsageError(f"there is no channel {channel}: the image has {channels}, counted from 0")
    if style not in get_args(Style):
        raise UsageError(f"there is no style {style}", hint=", ".join(get_args(Style)))
    if not 0 < alpha <= 1:  # NaN is neither
        raise UsageError(f"an alpha of {alpha} cannot be drawn", hint="above 0, at most 1")
    if style == "errors" and (prediction is None or reference is None):
        lacking = "reference" if reference is None else "prediction"
        raise UsageError(f"errors cannot be drawn without a {lacking}")


def _name(mark: Mark) -> Entry:
    return Entry(mark.name if mark.mask.any() else f"{mark.name} (empty)", mark.colour)


def _split(masks: list[Mark], colours: list[Colour], names: list[str]) -> list[Mark]:
    """What each of two masks has alone and what both have, named and coloured so; one mask alone is itself."""
    parts = [mark.mask for mark in masks]
    if len(parts) == 2:
        first, second = parts
        parts = [first & ~second, second & ~first, first & second]
    return [Mark(*part) for part in zip(names, colours, parts, strict=False)]


def _tint(image: Image, areas: list[Mark], alpha: float) -> Image:
    """The image with `alpha` of each area's colour mixed in there."""
    tinted = image.copy()
    for area in areas:
        inside = area.mask > 0
        tinted[inside] = np.rint((1 - alpha) * image[inside] + alpha * np.array(area.colour)).astype(np.uint8)
    return tinted
