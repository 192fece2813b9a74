"""Test-time augmentation: one image seen turned and mirrored, each view with the way back."""

from collections.abc import Callable
from functools import partial
from itertools import product
from typing import NamedTuple

import torch

from brainseg_cli.errors import UsageError
from brainseg_cli.types import Tta


class View(NamedTuple):
    """Two functions on tensors whose last axes are (H, W): `backward(forward(x))` is `x`, bit for bit."""

    forward: Callable[[torch.Tensor], torch.Tensor]
    backward: Callable[[torch.Tensor], torch.Tensor]


TURNS: dict[str, tuple[tuple[int, bool], ...]] = {
    "none": ((0, False),),
    "flips": tuple(product((0, 2), (False, True))),
    "d4": tuple(product(range(4), (False, True))),
}
"""Quarter turns, after mirroring left and right or not. Half a turn of a mirrored image is it upside down."""


def views(tta: Tta) -> list[View]:
    """The views of a square, itself first: `none` 1, `flips` 4 (left-right, up-down, both), `d4` all 8.

    UsageError for any other name.
    """
    if tta not in TURNS:
        raise UsageError(f"there is no test-time augmentation {tta!r}", hint=", ".join(TURNS))
    return [
        View(
            partial(_turn, quarters=quarters, mirrored=mirrored), partial(_return, quarters=quarters, mirrored=mirrored)
        )
        for quarters, mirrored in TURNS[tta]
    ]


def _turn(pixels: torch.Tensor, quarters: int, mirrored: bool) -> torch.Tensor:
    return torch.rot90(pixels.flip(-1) if mirrored else pixels, quarters, (-2, -1))


def _return(pixels: torch.Tensor, quarters: int, mirrored: bool) -> torch.Tensor:
    turned = torch.rot90(pixels, -quarters, (-2, -1))
    return turned.flip(-1) if mirrored else turned
