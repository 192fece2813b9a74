"""From images to probabilities at their own size: the one path that training's val, eval and predict share."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from brainseg_cli.config import PreprocessConfig
from brainseg_cli.errors import InputError
from brainseg_cli.models.build import to_channels_last
from brainseg_cli.models.devices import full_precision
from brainseg_cli.models.tta import View, views
from brainseg_cli.preprocess import Fit, fit_image, scale_intensity
from brainseg_cli.types import Image, Mask, Probs, Tta


class Segmenter:
    """A network with its preprocessing, on a device. Always fp32, so that a mask does not depend on the machine."""

    def __init__(self, model: nn.Module, preprocess: PreprocessConfig, in_channels: int, device: torch.device) -> None:
        self.model = to_channels_last(model.to(device))
        self.preprocess, self.in_channels, self.device = preprocess, in_channels, device

    def predict_probs(self, images: Sequence[Image], *, tta: Tta = "none") -> list[Probs]:
        """uint8 (H, W, C) each, sizes may differ -> float32 (H, W) in [0, 1] each. Nothing in, nothing out.

        A grey image is repeated for a network of three channels. With `tta` the probabilities are the mean over
        `views` of the network's square, one view after the other. InputError for other channel counts,
        UsageError as `views`.
        """
        seen = views(tta)
        if not images:
            return []
        pixels, fits = self.stack(images)
        return _restore(self._average(pixels, seen), fits)

    def stack(self, images: Sequence[Image]) -> tuple[torch.Tensor, list[Fit]]:
        """The images in the network's geometry, uint8 (N, size, size, C) on the CPU, and the way back of each."""
        images = [self._match_channels(image) for image in images]
        fits = [fit_image(image, self.preprocess) for image in images]
        return torch.from_numpy(np.stack([fit.image(image) for fit, image in zip(fits, images, strict=True)])), fits

    @torch.inference_mode()
    def predict_logits(self, pixels: torch.Tensor) -> torch.Tensor:
        """uint8 (N, size, size, C) -> float32 (N, 1, size, size) on the device, in eval mode."""
        return self._run(prepare_input(pixels, self.preprocess, self.device))

    def restore(self, logits: torch.Tensor, fits: Sequence[Fit]) -> list[Probs]:
        """(N, 1, size, size) logits -> float32 (H, W) in [0, 1], each at the size of its image."""
        return _restore(logits.sigmoid(), fits)

    def check_channels(self, image: Image) -> None:
        """InputError for an image that `predict_probs` would refuse."""
        if image.shape[2] not in (1, self.in_channels):
            raise InputError(f"an image of {image.shape[2]} channels, the model takes {self.in_channels}")

    @torch.inference_mode()
    def _average(self, pixels: torch.Tensor, seen: Sequence[View]) -> torch.Tensor:
        """uint8 (N, size, size, C) -> probabilities (N, 1, size, size), the mean over the views."""
        inputs = prepare_input(pixels, self.preprocess, self.device)
        return torch.stack([view.backward(self._run(view.forward(inputs)).sigmoid()) for view in seen]).mean(0)

    def _run(self, inputs: torch.Tensor) -> torch.Tensor:
        self.model.eval()
        with full_precision():
            if len(inputs) == 1 and self.device.type == "cpu":
                # alone, a slice meets other kernels on a CPU than in company, and its last bits differ: it never is
                return self._forward(inputs.repeat(2, 1, 1, 1))[:1]
            return self._forward(inputs)

    def _forward(self, inputs: torch.Tensor) -> torch.Tensor:
        # a quarter turn and a repeat change the layout in memory too
        logits: torch.Tensor = self.model(inputs.contiguous(memory_format=torch.channels_last))
        return logits.float()

    def _match_channels(self, image: Image) -> Image:
        self.check_channels(image)
        return image if image.shape[2] == self.in_channels else np.repeat(image, self.in_channels, axis=2)


def prepare_input(pixels: torch.Tensor, preprocess: PreprocessConfig, device: torch.device) -> torch.Tensor:
    """uint8 (N, H, W, C) to scaled float32 (N, C, H, W) on the device, channels_last; uint8 over the bus."""
    # NHWC memory seen as NCHW is channels_last as it stands: no copy.
    floats = pixels.to(device, non_blocking=True).permute(0, 3, 1, 2).float()
    scaled: torch.Tensor = scale_intensity(floats, preprocess)
    return scaled.contiguous(memory_format=torch.channels_last)


def _restore(probs: torch.Tensor, fits: Sequence[Fit]) -> list[Probs]:
    squares = probs[:, 0].cpu().numpy()
    return [fit.restore(square) for fit, square in zip(fits, squares, strict=True)]


def apply_threshold(probs: Probs, threshold: float) -> Mask:
    """Probabilities to a mask: at least `threshold` is tumour."""
    return (probs >= threshold).astype(np.uint8)
