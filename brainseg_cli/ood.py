"""Whether a slice looks like those that a model was trained on: a few plain measures, each held against their range.

It says nothing of the mask. It warns of what a model cannot be asked: another orientation, an inverted or foreign
intensity scale, a picture of something else. Upside down cannot be told from a slice's mass alone, and is not.
"""

from collections.abc import Iterable
from functools import reduce
from typing import TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from brainseg_cli.preprocess import find_head
from brainseg_cli.types import Image

FOREGROUND = 10
"""Grey level of 255: below it is air, and what noise there is in it."""
LEAST_SHARE = 0.1
"""Of an image's pixels that are foreground: a slice with less, near crown or neck, is not judged."""
SAMPLED_PX, THUMBNAIL_PX = 64, 32
"""Of the box, no fewer are looked at along its longer side; and of what its symmetry is taken from."""
RARE = 0.002
"""The share of training slices that may lie beyond either end of a range."""
SLACK_SHAPE, SLACK_INTENSITY = 0.05, 0.15
"""By which a range is widened: a share of its width, or of each of its ends."""
FEW = 100
"""Slices that say little about what is rare: of so many the slack is doubled, of fewer it is more."""
EDGE_PX = 2

CHANNELS, INTENSITY, HEAD, ORIENTATION = "channels", "intensity", "head", "orientation"
REASONS = (CHANNELS, INTENSITY, HEAD, ORIENTATION)
SHAPES = {"edge": HEAD, "fill": HEAD, "symmetry": HEAD, "aspect": ORIENTATION, "upright": ORIENTATION}

Ranges: TypeAlias = dict[str, tuple[float, float]]
"""Least and largest of each measure that is nothing unusual."""


def measure_look(image: Image) -> dict[str, float] | None:
    """Of an (H, W, C) uint8 slice; None where there is too little on it to be judged.

    edge       mean grey of the outermost pixels over that of the head's box: near 0 where a head lies in air
    fill       share of foreground in the head's box
    symmetry   correlation of the box with its mirror image, left to right, in [-1, 1]
    upright    that, less the correlation with its image upside down: below 0 for a head that lies on its side
    aspect     height of the box over its width
    median_0, high_0, ...   of the foreground in the box, a channel: median and 95th percentile, in grey levels
    """
    box = find_head(image)
    step = max(1, max(box.height, box.width) // SAMPLED_PX)
    inner = image[box.top : box.top + box.height : step, box.left : box.left + box.width : step]
    planes = cv2.split(inner)
    foreground = (reduce(cv2.max, planes) > FOREGROUND).astype(np.uint8)
    count = int(np.count_nonzero(foreground))
    if count * step**2 < LEAST_SHARE * image.shape[0] * image.shape[1]:
        return None
    grey: npt.NDArray[np.float32] = np.stack(planes).mean(axis=0, dtype=np.float32)
    small = cv2.resize(grey, (THUMBNAIL_PX, THUMBNAIL_PX), interpolation=cv2.INTER_AREA)
    small = small - small.mean()
    power = float((small * small).sum()) or 1.0
    symmetry = float((small * small[:, ::-1]).sum()) / power
    edges = (image[:EDGE_PX], image[-EDGE_PX:], image[:, :EDGE_PX], image[:, -EDGE_PX:])
    measures = {
        "edge": float(np.mean([edge.mean() for edge in edges])) / max(float(grey.mean()), 1.0),
        "fill": count / foreground.size,
        "symmetry": symmetry,
        "upright": symmetry - float((small * small[::-1]).sum()) / power,
        "aspect": box.height / box.width,
    }
    for channel, plane in enumerate(planes):
        levels = np.cumsum(cv2.calcHist([plane], [0], foreground, [256], [0, 256]))
        measures[f"median_{channel}"] = float(np.searchsorted(levels, 0.5 * count))
        measures[f"high_{channel}"] = float(np.searchsorted(levels, 0.95 * count))
    return measures


def learn_ranges(images: Iterable[Image]) -> Ranges:
    """The range of each measure over training slices (H, W, C) uint8, all but the rarest, widened a little, and
    more where there are few.

    Nothing in it where no slice can be judged.
    """
    found = [measures for image in images if (measures := measure_look(image)) is not None]
    ranges: Ranges = {}
    unsure = 1 + FEW / len(found) if found else 1.0
    for name in found[0] if found else ():
        low, high = np.quantile([measures[name] for measures in found], [RARE, 1 - RARE]).tolist()
        low, high = (
            (low - unsure * SLACK_SHAPE * (high - low), high + unsure * SLACK_SHAPE * (high - low))
            if name in SHAPES
            else (low / (1 + unsure * SLACK_INTENSITY), high * (1 + unsure * SLACK_INTENSITY))
        )
        ranges[name] = (round(low, 4), round(high, 4))
    return ranges


def find_unlike(image: Image, *, known: Iterable[tuple[int, Ranges]]) -> list[str]:
    """What of an (H, W, C) uint8 slice is unlike the training of any model, `known` by its channels and ranges.

    Of REASONS, in their order; empty for a slice with nothing unusual, or too little on it. A grey slice has its level
    compared with every channel's, because it is repeated for them. A model without ranges is told apart by its
    channels alone.
    """
    found: set[str] = set()
    measures: dict[str, float] | None = None
    for channels, ranges in known:
        if image.shape[2] != channels:
            found.add(CHANNELS)
        if ranges and measures is None:
            measures = measure_look(image) or {}
        for name, (low, high) in ranges.items():
            of_grey = f"{name.partition('_')[0]}_0" if image.shape[2] == 1 and name not in SHAPES else name
            if measures and not low <= measures.get(of_grey, low) <= high:
                found.add(SHAPES.get(name, INTENSITY))
    return [reason for reason in REASONS if reason in found]
