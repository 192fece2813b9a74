"""Random changes of training slices, and the only importer of albumentations.

Every slice's change is drawn from a generator seeded by what the caller says (run seed, epoch, position), so
it does not depend on worker processes, on what came before, or on whether a run was interrupted.
"""

import os
from collections.abc import Callable

import cv2

from brainseg_cli.config import AugmentConfig
from brainseg_cli.types import Image, Mask

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # importing it would ask the network for its version

import albumentations as A

Augment = Callable[[Image, Mask, int], tuple[Image, Mask]]


def build_augment(config: AugmentConfig) -> Augment:
    """A function (image (H, W, C) uint8, mask (H, W) in {0, 1}, seed) -> the same shapes and types, changed.

    The same seed gives the same change. What the geometry brings in from outside is 0 in both.
    """
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
        steps.append(A.ElasticTransform(alpha=60, sigma=8, mask_interpolation=cv2.INTER_NEAREST, p=config.elastic))
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
    of_one_channel = of_several = A.Compose(steps)
    if config.channel_dropout:  # a grey image has no channel to spare
        of_several = A.Compose([*steps, A.ChannelDropout((1, 1), fill=0, p=config.channel_dropout)])

    def augment(image: Image, mask: Mask, seed: int) -> tuple[Image, Mask]:
        compose = of_several if image.shape[2] > 1 else of_one_channel
        compose.set_random_seed(seed)
        changed = compose(image=image, mask=mask)
        return changed["image"], changed["mask"]

    return augment
