"""Several figures one after the other, as an animated GIF."""

import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image as PILImage
from scipy.spatial import cKDTree

from brainseg_cli.errors import InputError, UsageError
from brainseg_cli.figures import caption, scene
from brainseg_cli.types import Image

Codes = npt.NDArray[np.uint32]
"""Colours as one number each: 0xRRGGBB."""

KEPT = [
    caption.PAPER_COLOUR,
    caption.TEXT_COLOUR,
    scene.HALO_COLOUR,
    scene.REFERENCE_COLOUR,
    scene.PREDICTION_COLOUR,
    scene.BOTH_COLOUR,
    scene.MISSED_COLOUR,
    scene.FALSE_ALARM_COLOUR,
]
PALETTE_COLOURS = 256
SAMPLED = 50_000
MS = (20, 655_350)  # viewers slow faster ones down; a GIF counts hundredths of a second in 16 bits


def encode_gif(frames: Sequence[Image], *, ms: int = 150) -> bytes:
    """Frames (H, W, C) uint8, C in {1, 3}, RGB, as a GIF that loops; each is shown for `ms` milliseconds.

    A GIF counts in hundredths of a second: what is left of `ms` is lost. Frames of unequal size stand at the top,
    in the middle, on white. All share one palette: the colours of the overlay's lines, paper and text are
    exact, the rest the nearest of what was chosen for them (all are exact where there are no more than 256).
    Equal frames, equal bytes; a frame equal to the one before it lengthens that one. InputError without a
    frame, UsageError for `ms` outside 20 to 655350.
    """
    if not frames:
        raise InputError("there is no frame to animate")
    if not MS[0] <= ms <= MS[1]:
        raise UsageError(f"a frame of {ms} ms cannot be shown", hint=f"{MS[0]} to {MS[1]}")
    codes = _pad_frames(frames)
    seen = np.zeros(1 << 24, bool)
    for frame in codes:
        seen[frame] = True
    colours = np.flatnonzero(seen).astype(np.uint32)
    rank = np.zeros(1 << 24, np.uint32)  # which of the colours a code is
    rank[colours] = np.arange(len(colours))
    ranked = [rank[frame] for frame in codes]
    palette = colours
    if len(colours) > PALETTE_COLOURS:
        counts = np.zeros(len(colours), np.int64)
        for frame in ranked:
            counts += np.bincount(frame.ravel(), minlength=len(colours))
        palette = _choose_palette(colours, counts)
    nearest = np.asarray(cKDTree(_to_rgb(palette)).query(_to_rgb(colours))[1], np.uint8)

    pages = []
    for frame in ranked:
        page = PILImage.fromarray(nearest[frame])
        page.putpalette(_to_rgb(palette).astype(np.uint8).tobytes())
        pages.append(page)
    out = io.BytesIO()
    pages[0].save(out, "GIF", save_all=True, append_images=pages[1:], duration=ms, loop=0, optimize=False)
    return out.getvalue()


def _pad_frames(frames: Sequence[Image]) -> list[Codes]:
    """The frames as codes, all as high and as wide as the highest and the widest."""
    height, width = (max(frame.shape[axis] for frame in frames) for axis in (0, 1))
    padded = []
    for frame in frames:
        left = (width - frame.shape[1]) // 2
        paper = np.full((height, width), 0xFFFFFF, np.uint32)
        paper[: frame.shape[0], left : left + frame.shape[1]] = _to_codes(frame)
        padded.append(paper)
    return padded


def _choose_palette(colours: Codes, counts: npt.NDArray[np.integer]) -> Codes:
    """The overlay's colours that are among `colours`; for the others, `counts` px each, means of their groups.

    A colour weighs the root of its pixels: by the pixels themselves the many shades of the slice would leave
    no place for the few tints of an area.
    """
    kept = np.intersect1d(_to_codes(np.array(KEPT)), colours)
    other = ~np.isin(colours, kept)
    weighed = np.repeat(colours[other], np.ceil(np.sqrt(counts[other])).astype(int))
    sample = _to_rgb(weighed[:: max(1, len(weighed) // SAMPLED)]).astype(np.uint8)
    room = PALETTE_COLOURS - len(kept)
    groups = PILImage.fromarray(sample[None]).quantize(room, PILImage.Quantize.MEDIANCUT, kmeans=1)
    chosen = np.array(groups.getpalette(), np.uint8).reshape(-1, 3)[:room]
    return np.unique(np.concatenate([kept, _to_codes(chosen)]))


def _to_codes(rgb: npt.NDArray[np.integer]) -> Codes:
    """(..., C), C in {1, 3}, to (...)."""
    red, green, blue = np.moveaxis(np.broadcast_to(rgb, (*rgb.shape[:-1], 3)).astype(np.uint32), -1, 0)
    codes: Codes = red << 16 | green << 8 | blue
    return codes


def _to_rgb(codes: Codes) -> npt.NDArray[np.uint32]:
    """(N,) to (N, 3)."""
    return np.stack([codes >> 16, codes >> 8 & 0xFF, codes & 0xFF], axis=-1)
