"""Test-time augmentation: one image seen turned and mirrored, each view with the way back. No torch here."""

from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from brainseg_cli.errors import UsageError
from brainseg_cli.types import Tta


class View(NamedTuple):
    """Two functions on arrays (N, H, W, ...): `backward(forward(x))` is `x`, bit for bit."""

    forward: Callable[[Any], Any]
    backward: Callable[[Any], Any]


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


def _turn(pixels: Any, quarters: int, mirrored: bool) -> Any:
    return np.rot90(np.flip(pixels, 2) if mirrored else pixels, quarters, (1, 2))


def _return(pixels: Any, quarters: int, mirrored: bool) -> Any:
    turned = np.rot90(pixels, -quarters, (1, 2))
    return np.flip(turned, 2) if mirrored else turned
