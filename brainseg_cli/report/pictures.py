"""Which slices a report shows, and each of them as one piece of SVG with its masks in layers to switch."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
import numpy.typing as npt
import pandas as pd
from markupsafe import Markup

from brainseg_cli.errors import InputError
from brainseg_cli.io.images import encode_image
from brainseg_cli.report.svg import element
from brainseg_cli.types import Image, Mask

BEST = "best"
PATIENT_LIMIT = 3
LONGEST_SIDE_PX = 512


@dataclass(frozen=True)
class Picture:
    """One slice for the gallery.

    `kind` says why it is shown: "worst", "missed" (nothing predicted), "false alarm" (nothing to find) or "best".
    `image` is the slice's name in the table of slices, `dice` in [0, 1] or None; `picture` is (H, W, C) uint8, C
    in {1, 3}, or None where there are masks only; the masks are (H, W), 0 background and anything else tumour.
    """

    kind: str
    image: str
    patient_id: str
    slice_index: int | None
    dice: float | None
    picture: Image | None
    reference: Mask
    prediction: Mask


def choose_pictures(slices: pd.DataFrame, count: int = 12) -> list[tuple[str, str]]:
    """(kind, image) of the `count` worst slices, the worst first, then of the `count` best, the best first.

    `slices` has the columns image, patient_id, tp, fp, fn and dice, one row a slice. Worst are, by dice, the slices
    with tumour in reference or prediction; among equals the one with more wrong pixels comes first. Best are those
    with reference tumour. No slice is chosen twice: where there are fewer than twice `count`, the worst take half.
    A patient has at most PATIENT_LIMIT slices among the worst and as many among the best, unless too few others
    are left. No slice with tumour, no picture.
    """
    table = slices.reset_index(drop=True).assign(wrong=slices["fp"] + slices["fn"], tumour=slices["tp"] + slices["fn"])
    shown = table[(table["tumour"] + table["fp"]) > 0]
    by_fault = shown.sort_values(["dice", "wrong"], ascending=[True, False], kind="stable")
    worst = _spread(by_fault, min(count, -(-len(shown) // 2)))
    found = shown[(shown["tumour"] > 0) & ~shown.index.isin(worst.index)]
    best = _spread(found.sort_values(["dice", "tumour"], ascending=[False, False], kind="stable"), count)
    faults = zip(worst["image"], worst["tumour"], worst["tp"] + worst["fp"], strict=True)
    kinds = [
        ("false alarm" if not tumour else "missed" if not predicted else "worst", image)
        for image, tumour, predicted in faults
    ]
    return kinds + [(BEST, image) for image in best["image"]]


def draw_picture(shown: Picture) -> Markup:
    """The slice as SVG in its own pixels: the image, then a layer each for errors, reference and prediction.

    A slice without an image is black. The image is a JPEG, at most LONGEST_SIDE_PX long; the masks are paths along
    the edges of their pixels, exact at any size. InputError where image and masks differ in size.
    """
    height, width = shown.reference.shape
    image_size = (height, width) if shown.picture is None else shown.picture.shape[:2]
    if not shown.prediction.shape == shown.reference.shape == image_size:
        raise InputError(f"image and masks of {shown.image} differ in size")
    reference, prediction = shown.reference != 0, shown.prediction != 0
    errors = {
        "hit": reference & prediction,
        "miss": reference & ~prediction,
        "false-alarm": ~reference & prediction,
    }
    layers = [element("rect", width=width, height=height, fill="#000")]
    if shown.picture is not None:
        layers.append(
            element("image", width=width, height=height, preserveAspectRatio="none", href=_to_data_uri(shown.picture))
        )
    fills = [element("path", class_=name, d=trace_edges(part)) for name, part in errors.items() if part.any()]
    layers.append(element("g", *fills, class_="layer errors"))
    outlines = {"reference": trace_edges(reference), "prediction": trace_edges(prediction)}
    for part in ("halo", "line"):  # first every halo, so that none covers a line
        layers += [element("path", class_=f"layer {name} {part}", d=edges) for name, edges in outlines.items() if edges]
    return element("svg", *layers, class_="slice", viewBox=f"0 0 {width} {height}")


def trace_edges(mask: npt.NDArray[np.bool_]) -> str:
    """The outline of a mask (H, W) along the edges of its pixels, as SVG path data; x is the column, y the row.

    Closed loops, clockwise around tumour, corners only. A mask without tumour gives an empty string.
    """
    inside = np.pad(mask, 1)
    core = inside[1:-1, 1:-1]
    # an edge goes from one corner of its pixel to the next, with the pixel on its right
    sides = (
        (inside[:-2, 1:-1], (0, 0), (0, 1)),
        (inside[1:-1, 2:], (0, 1), (1, 1)),
        (inside[2:, 1:-1], (1, 1), (1, 0)),
        (inside[1:-1, :-2], (1, 0), (0, 0)),
    )
    following: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for beyond, start, end in sides:
        for row, column in np.argwhere(core & ~beyond).tolist():
            corner = (row + start[0], column + start[1])
            following.setdefault(corner, []).append((row + end[0], column + end[1]))
    loops = []
    while following:
        first = next(iter(following))
        loop = [first]
        # where two pixels touch at a corner two edges leave it, and either way every loop closes
        while len(loop) == 1 or loop[-1] != first:
            ends = following[loop[-1]]
            if len(ends) == 1:
                del following[loop[-1]]
            loop.append(ends.pop())
        loops.append(_to_path(loop[:-1]))
    return "".join(loops)


def _to_path(loop: Sequence[tuple[int, int]]) -> str:
    """A closed loop of steps of one pixel as path data, straight steps joined."""
    before, after = (loop[-1], *loop[:-1]), (*loop[1:], loop[0])
    corners = [
        here
        for last, here, following in zip(before, loop, after, strict=True)
        if (here[0] - last[0], here[1] - last[1]) != (following[0] - here[0], following[1] - here[1])
    ]
    steps = [
        f"h{column - last_column}" if row == last_row else f"v{row - last_row}"
        for (last_row, last_column), (row, column) in pairwise(corners)
    ]
    return f"M{corners[0][1]} {corners[0][0]}{''.join(steps)}z"


def _spread(ordered: pd.DataFrame, count: int) -> pd.DataFrame:
    """The first `count` rows, patients above PATIENT_LIMIT passed over as long as there are others."""
    turn = ordered.groupby("patient_id", sort=False).cumcount()
    chosen = turn.index[np.argsort(turn.to_numpy() >= PATIENT_LIMIT, kind="stable")[:count]]
    return ordered[ordered.index.isin(chosen)]


def _to_data_uri(picture: Image) -> str:
    scale = LONGEST_SIDE_PX / max(picture.shape[:2])
    if scale < 1:
        smaller = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        picture = np.asarray(smaller, np.uint8)
    return "data:image/jpeg;base64," + base64.b64encode(encode_image(picture, ".jpg")).decode()
