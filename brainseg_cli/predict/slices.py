"""One slice on its way through the pipeline."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from brainseg_cli.errors import BrainsegError
from brainseg_cli.io.embedded import read_about
from brainseg_cli.io.images import decode_image, read_bytes, read_mask
from brainseg_cli.predict.plan import Job, Plan
from brainseg_cli.predict.settings import is_made_alike
from brainseg_cli.types import Image, Json, Mask, Probs


@dataclass
class Slice:
    """What is known of it so far. After `fault` or `recorded` nothing more is done."""

    job: Job
    fault: BrainsegError | None = None
    sha256: str = ""
    provenance: Json | None = None
    recorded: Json | None = None
    """What the mask says that is there already and was made alike."""
    image: Image | None = None
    probs: Probs | None = None
    mask: Mask | None = None
    disagreement: float | None = None

    @property
    def waits(self) -> bool:
        return self.fault is None and self.recorded is None


def read_slice(job: Job, plan: Plan) -> Slice:
    """Read and decode, unless the mask that is there was made from just this. What goes wrong is its `fault`."""
    item = Slice(job, job.fault)
    if item.fault is not None:
        return item
    try:
        data = read_bytes(job.item.path) if job.item.data is None else job.item.data
        item.sha256 = hashlib.sha256(data).hexdigest()
        item.provenance = plan.tell_provenance(item.sha256)
        if not plan.settings.volume:  # a volume's is known when all of it is
            find_recorded(item, plan)
        if item.recorded is None:
            item.image = decode_image(data, job.item.path)
    except BrainsegError as error:
        item.fault = error
    return item


def find_recorded(item: Slice, plan: Plan) -> None:
    """Set `recorded` where --resume was asked for and the mask that is there need not be made again."""
    target, map_target = item.job.target, item.job.map_target
    if not plan.places.resume or target is None or item.provenance is None:
        return
    about = read_about(target)
    if about is not None and is_made_alike(about, item.provenance) and (map_target is None or map_target.exists()):
        item.recorded = about if _has_pixels(target, about) else None


def _has_pixels(mask: Path, about: Json) -> bool:
    """Whether the mask is what it says it is: a note outlives damage to the pixels after it."""
    try:
        return int(np.count_nonzero(read_mask(mask))) == about.get("area_px")
    except BrainsegError:
        return False
