"""A phantom: made-up heads with a made-up lesion, laid out on disk like the LGG set.

It lets the whole chain be run and tested where no real data may be. A head is drawn in 3-D and then sliced:
scalp, skull, folded grey and white matter, ventricles, and a lesion that is bright in FLAIR, dark in
pre-contrast and rimmed in post-contrast. Beside it stand things that are as bright but not in the mask, so
that no threshold finds the lesion and a bad model shows. Nothing here was taken from a patient's images.

Head coordinates: z up, y towards the back, x sideways; the head's surface is at radius 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from brainseg_cli.io.images import write_image, write_mask
from brainseg_cli.types import Image, Mask, Progress, no_progress

Field = npt.NDArray[np.floating[Any]]
"""(D, H, W): one value a voxel."""

Colour = Sequence[float]
"""Brightness in pre-contrast, FLAIR and post-contrast; 1 is the brightest an 8-bit image holds."""

TUMOUR_FREE_EVERY = 11
"""Of this many patients in a row, the last has no tumour."""

AIR, BONE, FLUID = (0.01, 0.01, 0.01), (0.06, 0.05, 0.07), (0.10, 0.05, 0.11)
GREY, WHITE, BLOOD = (0.27, 0.36, 0.30), (0.36, 0.29, 0.38), (0.62, 0.58, 0.64)
FOOT, CROWN = -0.60, 0.93  # height of the first and the last slice


@dataclass(frozen=True)
class Scanner:
    """What the images of one institution have in common."""

    code: str
    fat: Colour
    gain: float
    gamma: float
    noise: float
    bias: float


SCANNERS = (
    Scanner("AA", fat=(0.80, 0.66, 0.62), gain=0.85, gamma=1.05, noise=0.012, bias=0.10),
    Scanner("BB", fat=(0.70, 0.85, 0.70), gain=0.90, gamma=0.92, noise=0.019, bias=0.18),
    Scanner("CC", fat=(0.88, 0.48, 0.80), gain=0.70, gamma=1.00, noise=0.016, bias=0.14),
)


@dataclass(frozen=True)
class Lesion:
    """Where the lesion lies and how it looks, in head coordinates and brightness."""

    centre: tuple[float, float, float]  # z, y, x
    radius: float
    stretch: tuple[float, float, float]
    contrast: float
    rim: float


@dataclass(frozen=True)
class Head:
    """The voxels' head coordinates, and `px`: the width of one pixel in them."""

    z: Field
    y: Field
    x: Field
    px: float
    rng: np.random.Generator

    def noise(self, scale: float) -> Field:
        """Smooth noise of mean 0 and deviation 1, correlated over `scale` of a head's radius."""
        depth = len(self.z)
        sigma = (scale * depth / (CROWN - FOOT), scale / self.px, scale / self.px)
        white = self.rng.standard_normal(self.z.shape, dtype=np.float32)
        # truncate 2.5: the tails cost time and show nowhere
        field = ndimage.gaussian_filter(white, sigma, mode="wrap", truncate=2.5)
        field -= field.mean()
        return np.asarray(field / max(float(field.std()), 1e-6), np.float32)

    def inside(self, signed: Field, softness_px: float = 1.5) -> Field:
        """1 where `signed` is positive, 0 where negative, with an edge some pixels wide."""
        return np.asarray(np.clip(signed / (softness_px * self.px) + 0.5, 0, 1), np.float32)

    def ball(self, centre: Sequence[float], radius: float, stretch: Sequence[float] = (1, 1, 1)) -> Field:
        """Distance inwards from the surface of an ellipsoid, about in head coordinates."""
        axes = zip((self.z, self.y, self.x), centre, stretch, strict=True)
        return np.asarray(radius - np.sqrt(sum(((axis - at) / by) ** 2 for axis, at, by in axes)), np.float32)


def patient_name(number: int) -> str:
    """`PHANTOM_<institution>_<id>` of patient `number`, counted from 0; institutions take turns."""
    return f"PHANTOM_{SCANNERS[number % len(SCANNERS)].code}_{number + 1:04d}"


def make_patient(
    seed: int, number: int, *, slices: tuple[int, int] = (14, 20), height: int = 128, width: int = 128
) -> list[tuple[Image, Mask]]:
    """Patient `number` of the phantom `seed`, from the lowest slice to the highest.

    Each slice is an image (height, width, 3) uint8 and a mask (height, width) uint8 in {0, 1}. Between
    slices[0] and slices[1] of them, both included; at least 3, of at least 16 x 16 pixels, else ValueError.
    The first and the last hold no tumour, and every `TUMOUR_FREE_EVERY`th patient holds none at all. In some
    patients FLAIR stands in for a missing sequence, as in LGG. The result depends on the arguments alone.
    """
    if not 3 <= slices[0] <= slices[1] or min(height, width) < 16:
        raise ValueError(f"a phantom needs 3 slices of 16 x 16 or more, not {slices} of {height} x {width}")
    rng = np.random.default_rng([seed, number])
    scanner = SCANNERS[number % len(SCANNERS)]
    head = _pose(rng, (int(rng.integers(slices[0], slices[1] + 1)), height, width))
    lesion = _draw_lesion(rng)
    has_tumour = number % TUMOUR_FREE_EVERY != TUMOUR_FREE_EVERY - 1
    volume, brain = _build_anatomy(_push(head, lesion) if has_tumour else head, scanner)
    _add_lookalikes(volume, brain, head, lesion)
    masks = np.zeros(volume.shape[:3], np.uint8)
    if has_tumour:
        masks = _add_lesion(volume, brain, head, lesion)
    images = _scan(volume, head, scanner)
    missing = rng.random()
    if missing < 0.18:
        images[..., 0 if missing < 0.08 else 2] = images[..., 1]
    return list(zip(images, masks, strict=True))


def write_phantom(
    folder: Path,
    *,
    patients: int = 24,
    slices: tuple[int, int] = (14, 20),
    height: int = 128,
    width: int = 128,
    seed: int = 0,
    progress: Progress = no_progress,
) -> None:
    """Write `<folder>/<patient>/<patient>_<n>.tif` and `_mask.tif` (0/255), n from 1, as LGG has them.

    The same arguments give the same bytes, and a patient's do not depend on how many `patients` there are.
    Whatever else `folder` holds is left as it is. ValueError as in `make_patient`.
    """
    for number in range(patients):
        name = patient_name(number)
        made = make_patient(seed, number, slices=slices, height=height, width=width)
        for n, (image, mask) in enumerate(made, start=1):
            write_image(folder / name / f"{name}_{n}.tif", image)
            write_mask(folder / name / f"{name}_{n}_mask.tif", mask)
        progress(number + 1, patients, name)


def _pose(rng: np.random.Generator, shape: tuple[int, int, int]) -> Head:
    """Put a head of some size into the slices: off centre, turned, tilted."""
    depth, height, width = shape
    radius_px = 0.44 * min(height, width) * rng.uniform(0.88, 1.0)
    turn = rng.uniform(-0.14, 0.14)
    tilt_y, tilt_x = rng.uniform(-0.12, 0.12), rng.uniform(-0.06, 0.06)
    grid = np.meshgrid(np.linspace(FOOT, CROWN, depth), np.arange(height), np.arange(width), indexing="ij")
    z = grid[0]
    y = (grid[1] - (height - 1) / 2) / radius_px + rng.uniform(-0.04, 0.04)
    x = (grid[2] - (width - 1) / 2) / radius_px + rng.uniform(-0.06, 0.06)
    y, x = np.cos(turn) * y + np.sin(turn) * x, np.cos(turn) * x - np.sin(turn) * y
    y, x, z = y + tilt_y * z, (x + tilt_x * z) / rng.uniform(0.78, 0.86), z - tilt_y * y - tilt_x * x
    return Head(z.astype(np.float32), y.astype(np.float32), x.astype(np.float32), 1 / radius_px, rng)


def _draw_lesion(rng: np.random.Generator) -> Lesion:
    side = rng.choice((-1.0, 1.0))
    return Lesion(
        centre=(rng.uniform(-0.05, 0.38), rng.uniform(-0.48, 0.48), side * rng.uniform(0.24, 0.48)),
        radius=rng.triangular(0.16, 0.32, 0.42),
        stretch=(rng.uniform(1.3, 1.7), rng.uniform(0.85, 1.25), rng.uniform(0.8, 1.1)),
        contrast=rng.uniform(0.17, 0.34),
        rim=rng.choice((0.0, rng.uniform(0.1, 0.35))),
    )


def _push(head: Head, lesion: Lesion) -> Head:
    """The head again, its tissue shifted over the midline where the lesion has made room for itself."""
    near = np.exp(-3 * (1 - head.ball(lesion.centre, lesion.radius, lesion.stretch) / lesion.radius) ** 2)
    shift = 0.25 * lesion.radius * near
    return replace(head, x=(head.x + shift * np.sign(lesion.centre[2])).astype(np.float32))


def _build_anatomy(head: Head, scanner: Scanner) -> tuple[Field, Field]:
    """The head without its findings: (D, H, W, 3) brightness, and the share of brain in each voxel."""
    rng = head.rng
    z, y, x = head.z, head.y, head.x
    low = np.where(z < 0, 0.6 * z, z)  # below its middle a head hardly narrows
    radius = np.sqrt(low**2 + (y - 0.05 * y**2) ** 2 + (x / (1 + 0.1 * y)) ** 2)
    depth = 1 - radius + 0.012 * head.noise(0.3)
    folds = head.noise(0.04)
    floor = z + 0.40 - 0.12 * np.cos(2.5 * y) + 0.03 * head.noise(0.15)
    brain = head.inside(depth - 0.135) * head.inside(floor)

    volume = np.empty((*z.shape, 3), np.float32)
    volume[:] = AIR
    skin = [0.8 * channel for channel in scanner.fat]
    _paint(volume, head.inside(depth), skin, texture=0.12 * head.noise(0.04))
    _paint(volume, head.inside(depth - 0.03) * head.inside(0.06 - depth), scanner.fat)
    _paint(volume, head.inside(depth - 0.068), BONE)
    face = head.noise(0.07)  # muscle, fat and sinuses below the brain
    base = head.inside(depth - 0.1) * head.inside(-floor)
    _paint(volume, base, (0.30, 0.28, 0.34), texture=0.10 * face)
    _paint(volume, base * head.inside((face - 1.1) * 0.1), skin)
    _paint(volume, base * head.inside((-0.9 - face) * 0.1), AIR)
    for side in (-1, 1):
        eye = (-0.42, -0.66, 0.36 * side)
        _paint(volume, head.inside(head.ball(eye, 0.22)) * head.inside(depth - 0.02), scanner.fat)
        _paint(volume, head.inside(head.ball(eye, 0.13)) * head.inside(depth - 0.02), (0.16, 0.10, 0.18))

    _paint(volume, brain, FLUID)
    pia = depth - 0.15 - 0.03 * np.maximum(folds, 0)
    _paint(volume, brain * head.inside(pia), GREY, texture=0.018 * head.noise(0.05))
    _paint(volume, brain * head.inside(pia - 0.10 + 0.055 * folds), WHITE, texture=0.015 * head.noise(0.08))
    sulci = head.inside(0.013 - 0.05 * np.abs(folds - 0.5), 1) * head.inside(0.31 - depth, 4)
    _paint(volume, brain * 0.8 * sulci, FLUID)
    falx = head.inside(0.012 - np.abs(x + 0.01 * np.sin(9 * y)), 1.2) * head.inside(np.abs(y) + z - 0.55)
    _paint(volume, brain * falx, (0.14, 0.09, 0.20))

    wide, long = rng.uniform(0.05, 0.12), rng.uniform(0.32, 0.44)
    for side in (-1, 1):
        bowed = 0.07 + 0.55 * np.maximum(y, -0.6 * y) ** 1.5  # the horns lead away from the midline
        lengthwise, upwards = (y - 0.02) / long, (z - 0.18) / 0.22
        lateral = wide - np.hypot(side * x - bowed, wide * np.hypot(lengthwise, upwards))
        _paint(volume, brain * head.inside(lateral), FLUID)
        horn = head.inside(lateral + 0.035, 3) * head.inside(-lateral) * head.inside(np.abs(y) - 0.75 * long, 5)
        _paint(volume, brain * horn * rng.uniform(0.3, 0.9), (0.32, 0.60, 0.35))  # caps: bright, not tumour
        brain = brain * (1 - head.inside(lateral))
        _paint(volume, brain * head.inside(head.ball((0.05, 0.05, 0.19 * side), 0.09, (1, 1.7, 1))), GREY)
    return volume, brain


def _add_lookalikes(volume: Field, brain: Field, head: Head, lesion: Lesion) -> None:
    """Bright things that are in no mask, kept clear of the lesion."""
    rng = head.rng
    free = brain * head.inside(-head.ball(lesion.centre, 1.5 * lesion.radius, lesion.stretch))
    for _ in range(rng.integers(0, 6)):  # small vessel disease
        spot = head.ball((rng.uniform(0, 0.6), *rng.uniform(-0.55, 0.55, 2)), rng.uniform(0.03, 0.055))
        _paint(volume, free * head.inside(spot), (0.30, 0.58, 0.33))
    if rng.random() < 0.6:  # blood: as bright in the other sequences
        other_side = -np.sign(lesion.centre[2])
        centre = (rng.uniform(0, 0.45), rng.uniform(-0.5, 0.5), other_side * rng.uniform(0.3, 0.5))
        blob = head.ball(centre, rng.uniform(0.10, 0.20)) + 0.04 * head.noise(0.1)
        _paint(volume, free * head.inside(blob), BLOOD, texture=0.04 * head.noise(0.06))
    for _ in range(rng.integers(0, 3)):  # flow: a streak across a few slices of FLAIR
        at, height = rng.uniform(-0.5, 0.6), rng.uniform(-0.3, 0.6)
        streak = np.exp(-(((head.y - at) / 0.05) ** 2) - ((head.z - height) / 0.1) ** 2)
        volume[..., 1] += 0.16 * brain * streak * (1 + 0.4 * np.sin(14 * head.x))


def _add_lesion(volume: Field, brain: Field, head: Head, lesion: Lesion) -> npt.NDArray[np.uint8]:
    """Draw the lesion into the volume; its mask (D, H, W) is where it fills over half a voxel."""
    size = lesion.radius
    depth = head.ball(lesion.centre, size, lesion.stretch)
    depth = depth + size * (0.24 * head.noise(0.45 * size) + 0.10 * head.noise(0.18 * size))
    share = brain * head.inside(depth, 2)
    share[[0, -1]] = 0
    shell = head.inside(0.3 * size - np.abs(depth - 0.45 * size), 3)
    rim = lesion.rim * shell * head.inside(0.3 * head.noise(0.5 * size), 3)  # broken, as rims are
    flair = WHITE[1] + lesion.contrast
    dark = 0.10 * min(1.0, lesion.contrast / 0.25)
    _paint(volume, share, (WHITE[0] - dark, flair, WHITE[2] - dark), texture=0.025 * head.noise(0.3 * size))
    volume[..., 2] += rim * share
    return (share > 0.5).astype(np.uint8)


def _scan(volume: Field, head: Head, scanner: Scanner) -> npt.NDArray[np.uint8]:
    """What the scanner makes of it: blur, uneven brightness, magnitude noise, 8 bits."""
    rng = head.rng
    images = np.empty(volume.shape, np.uint8)
    for channel in range(3):
        blur = rng.uniform(0.007, 0.011) / head.px
        signal = ndimage.gaussian_filter(volume[..., channel], (0, blur, blur))
        signal = scanner.gain * rng.uniform(0.9, 1.1) * np.maximum(signal, 0) ** scanner.gamma
        slopes = scanner.bias * rng.uniform(-1, 1, 4)
        signal *= 1 + slopes[0] * head.z + slopes[1] * head.y + slopes[2] * head.x + slopes[3] * head.x * head.y
        real, imaginary = scanner.noise * rng.standard_normal((2, *signal.shape), dtype=np.float32)
        images[..., channel] = np.rint(255 * np.clip(np.hypot(signal + real, imaginary), 0, 1))
    return images


def _paint(volume: Field, share: Field, colour: Colour, texture: Field | float = 0.0) -> None:
    """Blend `colour` + `texture` into the volume, in place, `share` (0 to 1) of it in each voxel."""
    for channel in range(3):
        volume[..., channel] += share * (colour[channel] + texture - volume[..., channel])
