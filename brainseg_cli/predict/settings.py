"""Everything a mask depends on, and how a mask says so itself."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache

from brainseg_cli import __version__
from brainseg_cli.errors import UsageError
from brainseg_cli.postprocess import Postprocess
from brainseg_cli.types import Json, PredictPrecision, ProbsFormat, Tta

OUTCOME = ("version", "runtime", "mask_sha256", "probabilities_sha256")
"""Of a provenance: by what, and to what, not from what."""


@dataclass(frozen=True)
class Settings:
    """Beside the image and the models: what a mask and what is said of it depend on."""

    threshold: float | None = None
    """None is the models' own: their mean, for several."""
    tta: Tta = "none"
    steps: Postprocess = field(default_factory=Postprocess)
    volume: bool = False
    """Whether `steps` are done in 3-D, on the slices of a patient together."""
    probabilities: ProbsFormat | None = None
    """Maps of probabilities that are written too."""
    pixel_mm: tuple[float, float] | None = None
    """Height and width of a pixel."""
    precision: PredictPrecision = "auto"
    """What the network was asked to compute in."""

    def __post_init__(self) -> None:
        if self.threshold is not None and not 0 <= self.threshold <= 1:  # written so that a NaN fails it too
            raise UsageError(f"a threshold of {self.threshold}: probabilities lie in [0, 1]")
        if self.pixel_mm is not None and not all(0 < side < math.inf for side in self.pixel_mm):
            raise UsageError(f"a spacing of {self.pixel_mm} mm is not possible", hint="numbers above 0")


def tell_provenance(
    image_sha256: str, models: Sequence[str], threshold: float, settings: Settings, volume_sha256: str | None
) -> Json:
    """What a mask is made from: hashes, options, version.

    `volume_sha256` is over all slices that were seen together.
    """
    return {
        "image_sha256": image_sha256,
        "model_sha256": list(models),
        **({} if volume_sha256 is None else {"volume_sha256": volume_sha256}),
        "options": dict(_tell_options(settings, threshold)),
        "version": __version__,
    }


@lru_cache
def _tell_options(settings: Settings, threshold: float) -> Json:
    told = asdict(settings) | {"threshold": threshold}
    told |= told.pop("steps")
    if settings.precision == "auto":
        del told["precision"]  # whoever computes: that is told by `runtime`
    if settings.pixel_mm is not None:
        told["pixel_mm"] = list(settings.pixel_mm)  # as it reads back
    return told


def is_made_alike(recorded: Json | None, wanted: Json) -> bool:
    """Whether what a mask carries as `recorded` was made from what is `wanted`, be it by another version."""
    if recorded is None or not isinstance(found := recorded.get("provenance"), dict):
        return False
    return {name: value for name, value in found.items() if name not in OUTCOME} == {
        name: value for name, value in wanted.items() if name not in OUTCOME
    }
