"""From images to probabilities at their own size, by whatever runs the network. No torch here.

The work lies in three parts, so that they can overlap: `prepare` (a reader's), `submit` (the network's) and
`Prepared.restore` (a writer's).
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from brainseg_cli.config import PreprocessConfig
from brainseg_cli.errors import InputError
from brainseg_cli.models.tta import views
from brainseg_cli.preprocess import Fit, fit_image
from brainseg_cli.types import Image, Mask, Probs, Tta

Squares: TypeAlias = npt.NDArray[np.float32]
"""(N, size, size) float32 in [0, 1]: probabilities as the network gives them."""

Pending: TypeAlias = Callable[[], Squares]
"""Waits for what was submitted, and gives it; may be asked again, and by another thread."""


BATCH_SIZE = 16


class Network(Protocol):
    """What runs a network, intensity scaling and sigmoid included, on images in its geometry."""

    preprocess: PreprocessConfig
    in_channels: int
    described: str
    """What runs it where and in which precision, for the record: `openvino fp32`."""
    batch_size: int
    """Slices that are best submitted together, where the user does not say."""

    def submit(self, pixels: npt.NDArray[np.uint8]) -> Pending:
        """uint8 (N, size, size, C), N at least 1, is begun; what is pending is (N, size, size)."""

    def cancel(self) -> None:
        """Give up what was submitted and is not begun: whoever waits for it gets CancelledError."""


class Prepared(NamedTuple):
    """An image in the network's geometry, (size, size, C) uint8, and the way back."""

    square: Image
    fit: Fit

    def restore(self, probs: Probs) -> Probs:
        """(size, size) probabilities to the image's own (H, W)."""
        return self.fit.restore(probs)


class Segmenter:
    """A network with the geometry of its images around it."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self._blank: dict[Tta, Squares] = {}

    def prepare(self, image: Image) -> Prepared:
        """(H, W, C) uint8; a grey image is repeated for a network of three channels. InputError for other counts."""
        self.check_channels(image)
        if image.shape[2] != self.network.in_channels:
            image = np.repeat(image, self.network.in_channels, axis=2)
        fit = fit_image(image, self.network.preprocess)
        return Prepared(fit.image(image), fit)

    def submit(self, prepared: Sequence[Prepared], *, tta: Tta = "none") -> Pending:
        """Begin with at least one image; with `tta` the probabilities are the mean over `views` of the square.

        A square without a pixel above 0 is not computed again and again: what the network says of it is remembered.
        UsageError as `views`.
        """
        squares = np.stack([each.square for each in prepared])
        blank = ~squares.any(axis=(1, 2, 3))
        if not blank.any():
            return self._submit(squares, tta)
        if tta not in self._blank:
            self._blank[tta] = self._submit(squares[blank][:1], tta)()
        rest = None if blank.all() else self._submit(squares[~blank], tta)

        def wait() -> Squares:
            probs = np.empty(squares.shape[:3], np.float32)
            probs[blank] = self._blank[tta]
            if rest is not None:
                probs[~blank] = rest()
            return probs

        return wait

    def predict_probs(self, images: Sequence[Image], *, tta: Tta = "none") -> list[Probs]:
        """uint8 (H, W, C) each, sizes may differ -> float32 (H, W) in [0, 1] each. Nothing in, nothing out.

        InputError as `prepare`, UsageError as `views`.
        """
        views(tta)
        if not images:
            return []
        prepared = [self.prepare(image) for image in images]
        squares = self.submit(prepared, tta=tta)()
        return [each.restore(square) for each, square in zip(prepared, squares, strict=True)]

    def check_channels(self, image: Image) -> None:
        """InputError for an image that `prepare` would refuse."""
        if image.shape[2] not in (1, self.network.in_channels):
            raise InputError(f"an image of {image.shape[2]} channels, the model takes {self.network.in_channels}")

    def _submit(self, squares: npt.NDArray[np.uint8], tta: Tta) -> Pending:
        seen = views(tta)
        if len(seen) == 1:
            return self.network.submit(squares)
        pending = [self.network.submit(np.ascontiguousarray(view.forward(squares))) for view in seen]

        def wait() -> Squares:
            found = [view.backward(each()) for view, each in zip(seen, pending, strict=True)]
            mean: Squares = np.stack(found).mean(axis=0)
            return mean

        return wait


def apply_threshold(probs: Probs, threshold: float) -> Mask:
    """Probabilities to a mask: at least `threshold` is tumour."""
    return (probs >= threshold).astype(np.uint8)
