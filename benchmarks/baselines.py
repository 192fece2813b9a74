"""What a user would otherwise run to segment files: a plain PyTorch loop, and MONAI's parts put together."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from brainseg_cli.models.locate import BundleInfo
from brainseg_cli.preprocess import MIN_STD

BATCH = 8


class Slices(Dataset[tuple[torch.Tensor, str, int, int]]):
    """Files as a network's input, as a user of cv2 and NumPy writes it."""

    def __init__(self, paths: Sequence[Path], info: BundleInfo) -> None:
        self.paths, self.info = paths, info

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, str, int, int]:
        image = cv2.cvtColor(cv2.imread(str(self.paths[index])), cv2.COLOR_BGR2RGB)
        height, width = image.shape[:2]
        size = self.info.preprocess.size
        if (height, width) != (size, size):
            image = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
        pixels = image.astype(np.float32) / 255
        if self.info.preprocess.intensity == "zscore":
            pixels = (pixels - pixels.mean((0, 1))) / np.maximum(pixels.std((0, 1)), MIN_STD)
        return torch.from_numpy(pixels.transpose(2, 0, 1)), self.paths[index].stem, height, width


def segment_plainly(
    model: nn.Module, info: BundleInfo, paths: Sequence[Path], out: Path, device: torch.device, workers: int
) -> None:
    """DataLoader with workers, eager fp32, cv2.imwrite."""
    loader = DataLoader(Slices(paths, info), BATCH, num_workers=workers, pin_memory=device.type == "cuda")
    for pixels, names, heights, widths in loader:
        probs = model(pixels.to(device, non_blocking=True)).sigmoid().cpu().numpy()[:, 0]
        for square, name, height, width in zip(probs, names, heights.tolist(), widths.tolist(), strict=True):
            if square.shape != (height, width):
                square = cv2.resize(square, (width, height), interpolation=cv2.INTER_LINEAR)
            cv2.imwrite(str(out / f"{name}.png"), (square >= info.threshold).astype(np.uint8) * 255)


def segment_with_monai(
    model: nn.Module, info: BundleInfo, paths: Sequence[Path], out: Path, device: torch.device, workers: int
) -> None:
    """MONAI's transforms, DataLoader, inferer and SaveImage."""
    from monai.data import DataLoader as MonaiLoader
    from monai.data import Dataset as MonaiDataset
    from monai.data import decollate_batch
    from monai.inferers import SimpleInferer
    from monai.transforms import (
        Activations,
        AsDiscrete,
        Compose,
        EnsureChannelFirst,
        LoadImage,
        NormalizeIntensity,
        Resize,
        SaveImage,
        ScaleIntensityRange,
    )

    size = info.preprocess.size
    scale = (
        [NormalizeIntensity(channel_wise=True)]
        if info.preprocess.intensity == "zscore"
        else [ScaleIntensityRange(0, 255, 0, 1)]
    )
    before = Compose(
        [
            LoadImage(reader="PILReader", image_only=True),
            EnsureChannelFirst(channel_dim=-1),
            Resize((size, size), mode="area"),
            *scale,
        ]
    )
    loader = MonaiLoader(MonaiDataset([str(path) for path in paths], before), batch_size=BATCH, num_workers=workers)
    height, width = cv2.imread(str(paths[0])).shape[:2]
    after = Compose(
        [Activations(sigmoid=True), Resize((width, height), mode="bilinear"), AsDiscrete(threshold=info.threshold)]
    )
    save = SaveImage(
        out, output_postfix="", output_ext=".png", scale=255, separate_folder=False, resample=False, print_log=False
    )
    inferer = SimpleInferer()
    for pixels in loader:
        # PIL gives columns first, as MONAI has it; the network was trained on rows first
        logits = inferer(pixels.to(device).transpose(-1, -2), model).transpose(-1, -2)
        for each in decollate_batch(logits):
            save(after(each).cpu())
