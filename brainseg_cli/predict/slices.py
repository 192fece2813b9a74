"""One slice on its way through the pipeline."""

import hashlib
from dataclasses import dataclass, field

from brainseg_cli.errors import BrainsegError
from brainseg_cli.io.images import decode_image, read_encoded
from brainseg_cli.models.segmenter import Prepared
from brainseg_cli.predict.plan import Job, Plan
from brainseg_cli.predict.recorded import find_recorded
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
    shape: tuple[int, int] | None = None
    """Height and width of the image."""
    prepared: list[Prepared] | None = None
    """The image as the networks take it; then it is no longer kept itself."""
    probs: Probs | None = None
    mask: Mask | None = None
    disagreement: float | None = None
    ood: list[str] = field(default_factory=list)
    """What of the image is unlike the models' training."""

    @property
    def waits(self) -> bool:
        return self.fault is None and self.recorded is None


def read_slice(job: Job, plan: Plan) -> Slice:
    """Read and decode, unless the mask that is there was made from just this. What goes wrong is its `fault`."""
    item = Slice(job, job.fault)
    if item.fault is not None:
        return item
    try:
        data = read_encoded(job.item.path) if job.item.data is None else job.item.data
        item.sha256 = hashlib.sha256(data).hexdigest()
        item.provenance = plan.tell_provenance(item.sha256)
        if not plan.settings.volume:  # a volume's is known when all of it is
            compare(item, plan)
        if item.recorded is None:
            item.image = decode_image(data, job.item.path)
            item.shape = item.image.shape[:2]
    except BrainsegError as error:
        item.fault = error
    return item


def compare(item: Slice, plan: Plan) -> None:
    """Set `recorded` where --resume was asked for and the mask that is there need not be made again."""
    target, map_target = item.job.target, item.job.map_target
    if plan.places.resume and target is not None and item.provenance is not None:
        item.recorded = find_recorded(target, map_target, item.provenance)
