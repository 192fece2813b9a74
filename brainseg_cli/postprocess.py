"""Masks made plausible after the threshold: holes filled, specks dropped, the largest part kept. No torch here."""

from dataclasses import dataclass
from typing import Literal

import cc3d
import numpy as np
import numpy.typing as npt

from brainseg_cli.errors import InputError, UsageError
from brainseg_cli.types import Mask

Volume = npt.NDArray[np.bool_]
"""(S, H, W); a slice is a volume of one."""


@dataclass(frozen=True)
class Postprocess:
    """What is done to a mask, in the order fill_holes, min_size, largest_component. UsageError for a negative size."""

    largest_component: bool = False
    """Keep the component of the most pixels; of several as large, the first in reading order."""
    min_size: int = 0
    """Drop components of fewer pixels (voxels in a volume). 0 and 1 drop nothing."""
    fill_holes: bool = False
    """Fill background from which no path of neighbouring pixels (voxels), by edges (faces), leads to the border."""

    def __post_init__(self) -> None:
        if self.min_size < 0:
            raise UsageError(f"a component has no fewer than 0 pixels, its least size cannot be {self.min_size}")


def postprocess(mask: Mask, steps: Postprocess) -> Mask:
    """A mask (H, W), or a patient's (S, H, W), after `steps`: a new uint8 array of its shape, in {0, 1}.

    Masks are bool or integer, not 0 is tumour. Components touch at corners too: 8-connected in a slice, 26-connected
    in a volume. The border of a volume includes its first and last slice, so what is open there is no hole: a volume
    of one or two slices has none. Without steps, without tumour and without pixels the mask stays as it is. What has
    been through the steps is not changed by them again. InputError for other than 2 or 3 axes and for floating-point.
    """
    if mask.ndim not in (2, 3) or mask.dtype.kind not in "bui":
        raise InputError(f"an array of shape {mask.shape} and type {mask.dtype} is no mask of a slice or of a volume")
    tumour: Volume = mask != 0
    if not tumour.any():
        return np.zeros(mask.shape, np.uint8)
    volume: Volume = tumour.reshape((-1, *mask.shape[-2:]))
    if steps.fill_holes:
        volume = _fill_holes(volume, border_axes=(1, 2) if mask.ndim == 2 else (0, 1, 2))
    if steps.min_size > 1 or steps.largest_component:
        volume = _select(volume, steps)
    return volume.reshape(mask.shape).astype(np.uint8)


def _fill_holes(volume: Volume, border_axes: tuple[int, ...]) -> Volume:
    labels, found = _label(~volume, connectivity=6)  # in a volume of one slice these are the 4 neighbours
    is_open = np.zeros(found + 1, np.bool_)
    for axis in border_axes:
        is_open[labels.take((0, -1), axis)] = True
    filled: Volume = volume | ~is_open[labels]
    return filled


def _select(volume: Volume, steps: Postprocess) -> Volume:
    labels, found = _label(volume, connectivity=26)
    sizes = np.bincount(labels.ravel(), minlength=found + 1)
    sizes[0] = 0  # the background
    kept = sizes >= max(steps.min_size, 1)
    if steps.largest_component:
        kept &= np.arange(found + 1) == sizes.argmax()
    chosen: Volume = kept[labels]
    return chosen


def _label(volume: Volume, connectivity: Literal[6, 26]) -> tuple[npt.NDArray[np.integer], int]:
    """Components numbered from 1 in reading order, and how many."""
    # as uint8, because of a bool array cc3d makes a guess of how many labels it will need, and gives up where the
    # guess was low
    as_bytes = np.ascontiguousarray(volume).view(np.uint8)
    labels, found = cc3d.connected_components(as_bytes, connectivity=connectivity, return_N=True)
    return labels, int(found)
