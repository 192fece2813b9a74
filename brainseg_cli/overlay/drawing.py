"""Slices, read, to the bytes of one file: a figure, a patient's contact sheet or a patient's animation."""

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from brainseg_cli.figures.overlay import draw_overlay
from brainseg_cli.figures.scene import MIN_SIDE_PX, find_zoom, name_colours
from brainseg_cli.figures.sheet import draw_sheet
from brainseg_cli.io.images import encode_image, read_mask
from brainseg_cli.io.inputs import Input
from brainseg_cli.io.sources import read_input
from brainseg_cli.metrics.counts import compute_counts, dice
from brainseg_cli.overlay.matching import Slice
from brainseg_cli.overlay.settings import Look
from brainseg_cli.types import FigureFormat, Image, Mask

SHEET_SIDE_PX = 256
FRAME_SIDE_PX = 512
SHEET_ASPECT = 4 / 3


class Shown(NamedTuple):
    """A slice as it was read."""

    item: Input
    image: Image
    prediction: Mask
    reference: Mask | None

    @property
    def masks(self) -> list[Mask]:
        return [self.prediction] if self.reference is None else [self.prediction, self.reference]

    @property
    def size(self) -> tuple[int, ...]:
        return self.image.shape[:2]

    @property
    def fits(self) -> bool:
        """Whether the masks are of the image's size."""
        return all(mask.shape == self.size for mask in self.masks)

    def cut(self, box: tuple[slice, slice]) -> "Shown":
        reference = None if self.reference is None else self.reference[box]
        return Shown(self.item, self.image[box], self.prediction[box], reference)


def read_slice(item: Slice) -> Shown:
    """InputError where there is no mask, or a file cannot be read."""
    if item.fault is not None:
        raise item.fault
    assert not isinstance(item.prediction, Exception) and not isinstance(item.reference, Exception)
    reference = None if item.reference is None else read_mask(item.reference)
    return Shown(item.item, read_input(item.item), read_mask(item.prediction), reference)


def draw_figure(shown: Shown, look: Look, figure_format: FigureFormat) -> bytes:
    """One slice. The errors are those of `draw_overlay`."""
    title = tell_slice(shown) if look.label else ""
    if figure_format == "png":
        return encode_image(_draw(shown, look, title=title), ".png")
    from brainseg_cli.figures.vector import draw_vector  # matplotlib, which nothing else here needs to load

    return draw_vector(
        shown.image,
        shown.prediction,
        shown.reference,
        figure_format=figure_format,
        style=look.style,
        alpha=look.alpha,
        channel=look.channel,
        zoom=look.zoom,
        title=title,
    )


def draw_frame(shown: Shown, look: Look) -> Image:
    """One slice of an animation."""
    return _draw(shown, look, title=tell_slice(shown) if look.label else "", min_side=FRAME_SIDE_PX)


def draw_tile(shown: Shown, look: Look) -> Image:
    """One slice of a contact sheet, on which the patient and the colours are named once."""
    title = tell_slice(shown, short=True) if look.label else ""
    return _draw(shown, look, title=title, min_side=SHEET_SIDE_PX, legend=False)


def lay_out_sheet(tiles: Sequence[Image], look: Look, *, title: str, reference: bool) -> bytes:
    """The tiles in rows, somewhat wider than high."""
    columns = math.ceil(math.sqrt(len(tiles) * SHEET_ASPECT))
    legend = name_colours(look.style, reference=reference)
    return encode_image(draw_sheet(tiles, columns=columns, title=title if look.label else "", legend=legend), ".png")


def lay_out_animation(frames: Sequence[Image]) -> bytes:
    """The frames one after the other."""
    from brainseg_cli.figures.animation import encode_gif  # scipy, likewise

    return encode_gif(frames)


def cut_alike(slices: Sequence[Shown]) -> list[Shown]:
    """All slices cut to the tumour of all of them, so that the patient does not move; each size by itself.

    A slice whose masks are of another size stays as it is, for drawing to refuse.
    """
    masks: dict[tuple[int, ...], list[Mask]] = defaultdict(list)
    for shown in slices:
        if shown.fits:
            masks[shown.size] += shown.masks
    boxes = {size: find_zoom(found) for size, found in masks.items()}
    return [shown.cut(boxes[shown.size]) if shown.fits else shown for shown in slices]


def tell_slice(shown: Shown, *, short: bool = False) -> str:
    """`TCGA_x · slice 7 · 1529 px · dice 0.912`: whose it is, the predicted area, the dice with a reference.

    `short` is without the patient, and without the area where there is a dice. Masks of two sizes have none.
    """
    item, area_px = shown.item, int((shown.prediction != 0).sum())
    known = item.patient_id is not None and item.slice_index is not None
    names = (
        [item.patient_id or "", f"slice {item.slice_index}"] if known else [item.relative.stem if short else item.key]
    )
    facts = [f"{area_px} px"]
    if shown.reference is not None and shown.reference.shape == shown.prediction.shape:
        counts = compute_counts(shown.reference, shown.prediction)
        value = float(dice(counts.tp, counts.fp, counts.fn))
        facts = ["both empty"] if math.isnan(value) else [*([] if short else facts), f"dice {value:.3f}"]
    return " · ".join([*(names[-1:] if short else names), *facts])


def _draw(shown: Shown, look: Look, *, title: str, min_side: int = MIN_SIDE_PX, legend: bool = True) -> Image:
    return draw_overlay(
        shown.image,
        shown.prediction,
        shown.reference,
        style=look.style,
        alpha=look.alpha,
        channel=look.channel,
        zoom=look.zoom,
        title=title,
        legend=legend,
        min_side=min_side,
    )
