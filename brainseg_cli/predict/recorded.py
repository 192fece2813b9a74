"""What a mask says of itself, believed only where it holds."""

import hashlib
from pathlib import Path
from types import NoneType

import numpy as np

from brainseg_cli.errors import BrainsegError
from brainseg_cli.io.embedded import read_about
from brainseg_cli.io.images import read_bytes, read_mask
from brainseg_cli.ood import REASONS
from brainseg_cli.predict.settings import is_made_alike
from brainseg_cli.types import Json, Mask

FINDING: dict[str, tuple[type, ...]] = {
    "tumour": (bool,),
    "area_px": (int,),
    "area_mm2": (float, int, NoneType),
    "max_prob": (float, int, NoneType),
    "mean_prob": (float, int, NoneType),
    "centroid_px": (list, NoneType),
    "box_px": (list, NoneType),
    "entropy": (float, int, NoneType),
    "disagreement": (float, int, NoneType),
    "ood": (list,),
}
"""What stands beside the provenance: a note may come from anybody, and goes into records."""


def hash_mask(mask: Mask) -> str:
    """SHA-256 of the pixels (H, W) and the size, as 64 hex digits: the same for PNG and TIFF."""
    return hashlib.sha256(f"{mask.shape} ".encode() + np.ascontiguousarray(mask, np.uint8).tobytes()).hexdigest()


def find_recorded(target: Path, map_target: Path | None, wanted: Json) -> Json | None:
    """The note of the mask at `target`, if mask and map were made from what is `wanted` and are as they were made.

    None for anything else: no mask, another's, damaged, edited, turned, or beside another map.
    """
    about = read_about(target)
    if about is None or not is_made_alike(about, wanted):
        return None
    made = about["provenance"]
    if set(about) != {*FINDING, "provenance"} or any(type(about[name]) not in kinds for name, kinds in FINDING.items()):
        return None
    if not all(reason in REASONS for reason in about["ood"]):
        return None
    try:
        same_map = map_target is None or made.get("probabilities_sha256") == hash_bytes(read_bytes(map_target))
        return about if same_map and made.get("mask_sha256") == hash_mask(read_mask(target)) else None
    except BrainsegError:
        return None


def is_mask_of(target: Path, image_sha256: str) -> bool:
    """Whether the mask says that it was made from an image of this content, by whatever model."""
    made = (read_about(target) or {}).get("provenance")
    return isinstance(made, dict) and made.get("image_sha256") == image_sha256


def hash_bytes(data: bytes) -> str:
    """SHA-256, as 64 hex digits."""
    return hashlib.sha256(data).hexdigest()
