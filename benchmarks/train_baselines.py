"""What a user would otherwise run to train: a plain PyTorch loop, the same one tuned, and MONAI's parts."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from brainseg_cli import augment as _no_update_check  # noqa: F401  imported first, it keeps albumentations off the network
from brainseg_cli.config import AugmentConfig, Config
from brainseg_cli.preprocess import MIN_STD

import albumentations as A  # isort: skip
import segmentation_models_pytorch as smp  # isort: skip

Pair = tuple[Path, Path]
"""The files of an image and its mask."""
Step = Callable[[torch.Tensor, torch.Tensor], None]


class Files(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Image and mask files as a user of cv2 and albumentations reads them."""

    def __init__(self, pairs: Sequence[Pair], config: Config) -> None:
        self.pairs, self.zscore = pairs, config.preprocess.intensity == "zscore"
        size = config.preprocess.size
        self.transform = A.Compose([A.Resize(size, size, interpolation=cv2.INTER_AREA), *change(config.augment)])

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        image_path, mask_path = self.pairs[index]
        image = cv2.cvtColor(cv2.imread(str(image_path)), cv2.COLOR_BGR2RGB)
        mask = (cv2.imread(str(mask_path), cv2.IMREAD_GRAYSCALE) > 127).astype(np.float32)
        changed = self.transform(image=image, mask=mask)
        pixels = changed["image"].astype(np.float32) / 255
        if self.zscore:
            pixels = (pixels - pixels.mean((0, 1))) / np.maximum(pixels.std((0, 1)), MIN_STD)
        return torch.from_numpy(pixels.transpose(2, 0, 1)), torch.from_numpy(changed["mask"])[None]


def change(config: AugmentConfig) -> list[A.BasicTransform]:
    """The preset's changes, from albumentations as they come."""
    return [
        A.HorizontalFlip(p=config.flip_horizontal),
        A.VerticalFlip(p=config.flip_vertical),
        A.Affine(
            rotate=(-config.rotate_deg, config.rotate_deg),
            scale=(1 - config.zoom, 1 + config.zoom),
            translate_percent=(-config.shift, config.shift),
            shear=(-config.shear_deg, config.shear_deg),
            p=1.0,
        ),
        A.ElasticTransform(alpha=60, sigma=8, p=config.elastic),
        A.RandomBrightnessContrast(
            config.brightness, config.contrast, p=0.8 if config.brightness or config.contrast else 0
        ),
        A.RandomGamma((100 * (1 - config.gamma), 100 * (1 + config.gamma)), p=0.8 if config.gamma else 0),
    ]


def build_plain_epoch(
    model: nn.Module, pairs: Sequence[Pair], config: Config, device: torch.device, workers: int, *, tuned: bool
) -> Callable[[], None]:
    """One epoch: eager, fp32, NCHW, `loss.item()` at each step. `tuned` adds channels_last and bf16 autocast."""
    dice = smp.losses.DiceLoss("binary")

    def loss(logits: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
        return dice(logits, reference) + nn.functional.binary_cross_entropy_with_logits(logits, reference)

    loader = DataLoader(
        Files(pairs, config),
        batch_size=config.train.batch_size,
        shuffle=True,
        num_workers=workers,
        pin_memory=device.type == "cuda",
        persistent_workers=workers > 0,
        worker_init_fn=_be_one_thread,
    )
    model = model.to(device, memory_format=torch.channels_last) if tuned else model.to(device)
    return _build_epoch(loader, _build_step(model, loss, config, device, tuned=tuned))


def build_monai_epoch(
    model: nn.Module, pairs: Sequence[Pair], config: Config, device: torch.device, workers: int
) -> Callable[[], None]:
    """One epoch: CacheDataset, MONAI's random transforms, ThreadDataLoader, DiceCELoss; eager and fp32."""
    from monai import transforms as T
    from monai.data import CacheDataset, ThreadDataLoader
    from monai.losses import DiceCELoss

    keys, size, augment = ("image", "mask"), config.preprocess.size, config.augment
    scale = (
        T.NormalizeIntensityd("image", channel_wise=True)
        if config.preprocess.intensity == "zscore"
        else T.ScaleIntensityRanged("image", 0, 255, 0, 1)
    )
    shift = augment.shift * size
    transform = T.Compose(
        [
            T.LoadImaged(keys, reader="PILReader", image_only=True),
            T.EnsureChannelFirstd("image", channel_dim=-1),
            T.EnsureChannelFirstd("mask", channel_dim="no_channel"),
            T.Resized(keys, (size, size), mode=("area", "nearest")),
            scale,
            T.ScaleIntensityRanged("mask", 0, 255, 0, 1),
            T.RandFlipd(keys, prob=augment.flip_horizontal, spatial_axis=0),  # PIL gives columns first
            T.RandFlipd(keys, prob=augment.flip_vertical, spatial_axis=1),
            T.RandAffined(
                keys,
                prob=1.0,
                rotate_range=float(np.deg2rad(augment.rotate_deg)),
                scale_range=(augment.zoom, augment.zoom),
                translate_range=(shift, shift),
                shear_range=(float(np.tan(np.deg2rad(augment.shear_deg))),) * 2,
                mode=("bilinear", "nearest"),
                padding_mode="zeros",
            ),
            T.Rand2DElasticd(
                keys,
                spacing=(24, 24),
                magnitude_range=(0, 2),
                prob=augment.elastic,
                mode=("bilinear", "nearest"),
                padding_mode="zeros",
            ),
            T.RandScaleIntensityd("image", factors=augment.contrast, prob=0.8 if augment.contrast else 0),
            T.RandShiftIntensityd("image", offsets=augment.brightness, prob=0.8 if augment.brightness else 0),
            T.RandAdjustContrastd(
                "image", prob=0.8 if augment.gamma else 0, gamma=(1 - augment.gamma, 1 + augment.gamma + 1e-6)
            ),
        ]
    )
    items = [{"image": str(image), "mask": str(mask)} for image, mask in pairs]
    dataset = CacheDataset(items, transform, progress=False)
    loader = ThreadDataLoader(
        dataset,
        batch_size=config.train.batch_size,
        shuffle=True,
        num_workers=workers,
        persistent_workers=workers > 0,
    )
    batches = _Unpacked(loader)
    return _build_epoch(batches, _build_step(model.to(device), DiceCELoss(sigmoid=True), config, device, tuned=False))


class _Unpacked:
    """MONAI's batches, dictionaries of MetaTensors, as pairs of tensors."""

    def __init__(self, loader: Iterable[dict[str, Any]]) -> None:
        self.loader = loader

    def __iter__(self) -> Any:
        for batch in self.loader:
            yield batch["image"].as_tensor(), batch["mask"].as_tensor()


def _build_step(
    model: nn.Module, loss: Callable[..., torch.Tensor], config: Config, device: torch.device, *, tuned: bool
) -> Step:
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config.optimizer.lr, weight_decay=config.optimizer.weight_decay
    )
    running = 0.0
    model.train()

    def step(images: torch.Tensor, masks: torch.Tensor) -> None:
        nonlocal running
        images = images.to(device, non_blocking=True)
        masks = masks.to(device, non_blocking=True)
        if tuned:
            images = images.contiguous(memory_format=torch.channels_last)
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=tuned):
            logits = model(images)
        value = loss(logits.float(), masks)
        value.backward()
        optimizer.step()
        running += value.item()

    return step


def _build_epoch(loader: Iterable[tuple[torch.Tensor, torch.Tensor]], step: Step) -> Callable[[], None]:
    def epoch() -> None:
        for images, masks in loader:
            step(images, masks)

    return epoch


def _be_one_thread(_worker: int) -> None:
    cv2.setNumThreads(0)
