"""A network run by PyTorch itself, on any device."""

import copy

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from brainseg_cli.config import PreprocessConfig
from brainseg_cli.errors import BrainsegError
from brainseg_cli.models.build import to_channels_last
from brainseg_cli.models.devices import full_precision
from brainseg_cli.models.segmenter import BATCH_SIZE, Pending, Squares
from brainseg_cli.preprocess import scale_intensity
from brainseg_cli.types import Precision

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}

GPU_BATCH_SIZE = 64
"""A GPU is done with fewer sooner than Python has begun the next."""


class TorchNetwork:
    """A module on a device, in eval mode. fp32 is fp32: no TF32, so that a mask does not depend on the machine.

    In `bf16` or `fp16` weights and activations are halved, in a copy; scaling, logits and sigmoid stay fp32.
    """

    def __init__(
        self,
        model: nn.Module,
        preprocess: PreprocessConfig,
        in_channels: int,
        device: torch.device,
        precision: Precision = "fp32",
    ) -> None:
        self.preprocess, self.in_channels, self.device = preprocess, in_channels, device
        self.batch_size = GPU_BATCH_SIZE if device.type == "cuda" else BATCH_SIZE
        self.dtype = DTYPES.get(precision, torch.float32)
        self.described = f"torch {precision} {device.type}"
        if precision != "fp32":
            model = copy.deepcopy(model)
        self.model = to_channels_last(model.to(device, self.dtype))

    @torch.inference_mode()
    def logits(self, pixels: npt.NDArray[np.uint8] | Tensor) -> Tensor:
        """uint8 (N, size, size, C) -> float32 (N, 1, size, size) on the device; on a GPU it is only begun."""
        self.model.eval()
        inputs = prepare_input(torch.as_tensor(pixels), self.preprocess, self.device)
        with full_precision():
            if len(inputs) == 1 and self.device.type == "cpu":
                # alone, a slice meets other kernels on a CPU than in company, and its last bits differ: it never is
                return self._forward(inputs.repeat(2, 1, 1, 1))[:1]
            return self._forward(inputs)

    @torch.inference_mode()
    def submit(self, pixels: npt.NDArray[np.uint8]) -> Pending:
        """As `Network.submit`. On a GPU uint8 crosses the bus from pinned memory while it computes; else it is done.

        BrainsegError where the device has not enough memory for so many.
        """
        try:
            return self._submit(torch.from_numpy(pixels))
        except torch.OutOfMemoryError:
            told = f"{self.device} has not enough memory for {len(pixels)} slices at a time"
            raise BrainsegError(told, hint="a smaller --batch-size") from None

    def _submit(self, host: Tensor) -> Pending:
        if self.device.type != "cuda":
            done: Squares = self.logits(host).sigmoid()[:, 0].cpu().numpy()
            return lambda: done
        probs = self.logits(host.pin_memory()).sigmoid()[:, 0]
        landed = torch.empty(probs.shape, dtype=probs.dtype, pin_memory=True)
        landed.copy_(probs, non_blocking=True)
        finished = torch.cuda.Event()  # type: ignore[no-untyped-call]
        finished.record(torch.cuda.current_stream(self.device))

        def wait() -> Squares:
            finished.synchronize()
            squares: Squares = landed.numpy()
            return squares

        return wait

    def cancel(self) -> None:
        """Nothing: what was submitted is begun."""

    def _forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.model(inputs.to(self.dtype).contiguous(memory_format=torch.channels_last))
        return logits.float()


def prepare_input(pixels: Tensor, preprocess: PreprocessConfig, device: torch.device) -> Tensor:
    """uint8 (N, H, W, C) to scaled float32 (N, C, H, W) on the device, channels_last; uint8 over the bus."""
    # NHWC memory seen as NCHW is channels_last as it stands: no copy.
    floats = pixels.to(device, non_blocking=True).permute(0, 3, 1, 2).float()
    scaled: Tensor = scale_intensity(floats, preprocess)
    return scaled.contiguous(memory_format=torch.channels_last)
