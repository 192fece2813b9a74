"""Random changes of training slices, and the only importer of albumentations.

Every slice's change is drawn from a generator seeded by what the caller says (run seed, epoch, position), so
it does not depend on worker processes, on what came before, or on whether a run was interrupted.
"""

import os
import random
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np

from brainseg_cli.config import AugmentConfig
from brainseg_cli.types import Image, Mask

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # importing it would ask the network for its version

import albumentations as A

Augment = Callable[[Image, Mask, int], tuple[Image, Mask]]

ELASTIC_PX, ELASTIC_SIGMA_PX, ELASTIC_GRID_PX = 60, 8, 4
ELASTIC_NOISE_PEAK = 4.5
"""The largest of so much normal noise, in standard deviations: albumentations divides by it."""


class GridElastic(A.ElasticTransform):  # type: ignore[misc]
    """albumentations' elastic deformation, its field drawn a point every ELASTIC_GRID_PX and interpolated.

    The field is noise blurred over `sigma` px, in which there is nothing finer than that grid: amplitude and
    smoothness are the same, at an eighth of the cost.
    """

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        """The maps of `cv2.remap`, float32 (H, W) each."""
        height, width = params["shape"][:2]
        points = -(-height // ELASTIC_GRID_PX), -(-width // ELASTIC_GRID_PX)
        noise = self.random_generator.standard_normal((*points, 2), dtype=np.float32) / ELASTIC_NOISE_PEAK
        smooth = cv2.GaussianBlur(noise, (0, 0), self.sigma / ELASTIC_GRID_PX, borderType=cv2.BORDER_REPLICATE)
        # a blur over fewer points averages out less of the noise
        field = cv2.resize(smooth * (self.alpha / ELASTIC_GRID_PX), (width, height), interpolation=cv2.INTER_CUBIC)
        columns, rows = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)
        return {"map_x": columns + field[..., 0], "map_y": rows[:, None] + field[..., 1]}


class ChannelCopy(A.ImageOnlyTransform):  # type: ignore[misc]
    """Copies of one channel in the place of others: of every choice of at least one, each as likely."""

    def __init__(self, source: int, p: float) -> None:
        super().__init__(p=p)
        self.source = source

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        """`replaced`: the channels, by number."""
        others = [channel for channel in range(params["shape"][2]) if channel != self.source]
        choice = int(self.random_generator.integers(1, 2 ** len(others)))
        return {"replaced": [channel for bit, channel in enumerate(others) if choice >> bit & 1]}

    def apply(self, img: Image, replaced: list[int], **_: Any) -> Image:
        """(H, W, C) uint8 to a changed copy."""
        changed = img.copy()
        changed[..., replaced] = img[..., self.source, None]
        return changed


def build_augment(config: AugmentConfig, channel_names: Sequence[str] = ()) -> Augment:
    """A function (image (H, W, C) uint8, mask (H, W) in {0, 1}, seed) -> the same shapes and types, changed.

    `channel_names`, C of them, say which channel `channel_copy` copies; where its name is not among them, none.
    The same seed gives the same change. What the geometry brings in from outside is 0 in both. An image that
    nothing happens to is given back as it is, not copied.
    """
    geometry = A.Compose(_build_geometry(config), is_check_shapes=False)
    steps = _build_intensity(config)
    of_one_channel = of_several = A.Compose(steps, is_check_shapes=False)
    if missing := _build_missing(config, channel_names):  # a grey image has no channel to spare
        of_several = A.Compose([*steps, *missing], is_check_shapes=False)

    def augment(image: Image, mask: Mask, seed: int) -> tuple[Image, Mask]:
        intensity = of_several if image.shape[2] > 1 else of_one_channel
        # shared by all steps: seeded each for itself they draw the same numbers, and what should vary by itself
        # varies together (gamma rises with contrast, elastic slices are always flipped)
        state = np.random.default_rng(seed), random.Random(seed)
        geometry.set_random_state(*state)
        intensity.set_random_state(*state)
        if image.shape[2] == 3:  # OpenCV moves four channels in half the time of three, to the same values
            moved = geometry(image=cv2.cvtColor(image, cv2.COLOR_RGB2RGBA), mask=mask)
            moved["image"] = cv2.cvtColor(moved["image"], cv2.COLOR_RGBA2RGB)
        else:
            moved = geometry(image=image, mask=mask)
        return intensity(image=moved["image"])["image"], moved["mask"]

    return augment


def _build_geometry(config: AugmentConfig) -> list[A.BasicTransform]:
    steps: list[A.BasicTransform] = []
    if config.flip_horizontal:
        steps.append(A.HorizontalFlip(p=config.flip_horizontal))
    if config.flip_vertical:
        steps.append(A.VerticalFlip(p=config.flip_vertical))
    if config.rotate_deg or config.zoom or config.shift or config.shear_deg:
        steps.append(
            A.Affine(
                rotate=(-config.rotate_deg, config.rotate_deg),
                scale=(1 - config.zoom, 1 + config.zoom),
                translate_percent=(-config.shift, config.shift),
                shear=(-config.shear_deg, config.shear_deg),
                interpolation=cv2.INTER_LINEAR,
                mask_interpolation=cv2.INTER_NEAREST,
                border_mode=cv2.BORDER_CONSTANT,
                p=1.0,
            )
        )
    if config.elastic:
        steps.append(GridElastic(ELASTIC_PX, ELASTIC_SIGMA_PX, mask_interpolation=cv2.INTER_NEAREST, p=config.elastic))
    return steps


def _build_intensity(config: AugmentConfig) -> list[A.BasicTransform]:
    steps: list[A.BasicTransform] = []
    if config.brightness or config.contrast:
        steps.append(
            A.RandomBrightnessContrast(brightness_limit=config.brightness, contrast_limit=config.contrast, p=0.8)
        )
    if config.gamma:
        span = (100 * (1 - config.gamma), 100 * (1 + config.gamma))
        steps.append(A.RandomGamma(gamma_limit=span, p=0.8))
    if config.tone:
        steps.append(A.RandomToneCurve(scale=config.tone, per_channel=True, p=0.8))
    if config.noise:
        steps.append(A.GaussNoise(std_range=(0.0, config.noise), p=0.5))
    return steps


def _build_missing(config: AugmentConfig, channel_names: Sequence[str]) -> list[A.BasicTransform]:
    steps: list[A.BasicTransform] = []
    if config.channel_copy and config.copied_channel in channel_names:
        steps.append(ChannelCopy(channel_names.index(config.copied_channel), config.channel_copy))
    if config.channel_dropout:  # last: a blank channel is not to be copied
        steps.append(A.ChannelDropout((1, 1), fill=0, p=config.channel_dropout))
    return steps
