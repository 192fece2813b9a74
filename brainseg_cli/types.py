"""Shapes as named aliases. Arrays are row first: (H, W) and (H, W, C)."""

from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]
"""(H, W, C) uint8, C in {1, 3}, channels in file order (RGB, never BGR)."""

Mask = npt.NDArray[np.uint8]
"""(H, W) uint8 in {0, 1}; 1 is tumour."""

Probs = npt.NDArray[np.float32]
"""(H, W) float32 in [0, 1]."""

Json = dict[str, Any]

Layout = Literal["auto", "lgg", "folders"]
SplitName = Literal["train", "val", "test"]
MaskFormat = Literal["png", "tiff"]
ProbsFormat = Literal["png", "npy"]
FigureFormat = Literal["png", "svg", "pdf"]
Style = Literal["contour", "fill", "errors"]
Tta = Literal["none", "flips", "d4"]


class Progress(Protocol):
    """How a use-case tells how far it is. The command line draws it; tests pass nothing."""

    def __call__(self, done: int, total: int, what: str) -> None: ...


def no_progress(done: int, total: int, what: str) -> None:
    """Say nothing."""
