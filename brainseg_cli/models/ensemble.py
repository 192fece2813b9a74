"""Several networks asked as one: the mean of their probabilities, and what each of them says. No torch here."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from brainseg_cli.config import PreprocessConfig
from brainseg_cli.errors import UsageError
from brainseg_cli.metrics.finding import measure_disagreement
from brainseg_cli.models.locate import Bundle, BundleInfo, open_bundles
from brainseg_cli.models.runtimes import Choice, Tell, open_network, tell_nobody
from brainseg_cli.models.segmenter import Network, Prepared, Segmenter, apply_threshold
from brainseg_cli.models.tta import views
from brainseg_cli.ood import find_unlike
from brainseg_cli.types import Image, Mask, Probs, Tta


class Member(NamedTuple):
    """One network, and what its bundle says of it."""

    segmenter: Segmenter
    bundle: BundleInfo


class Ensembled(NamedTuple):
    """One slice: the mean probability (H, W) float32 in [0, 1], and each member's, in the members' order."""

    probs: Probs
    members: list[Probs]

    def decide(self, threshold: float) -> tuple[Mask, float | None]:
        """The mask, and the members' `measure_disagreement` about it."""
        votes = [apply_threshold(probs, threshold) for probs in self.members]
        return apply_threshold(self.probs, threshold), measure_disagreement(votes)


class Ensemble:
    """At least one network, each with its own preprocessing. With one, its probabilities are the mean bit for bit."""

    def __init__(self, models: Sequence[tuple[Network, BundleInfo]]) -> None:
        if not models:
            raise UsageError("no model was given")
        self.members = [Member(Segmenter(network), bundle) for network, bundle in models]

    @property
    def bundles(self) -> list[BundleInfo]:
        """What the members' bundles say, in their order."""
        return [member.bundle for member in self.members]

    @property
    def threshold(self) -> float:
        """The mean of the members' thresholds."""
        return mean_threshold(self.bundles)

    @property
    def leaky(self) -> bool:
        """Whether any member was trained on a split with slices of one patient on several sides."""
        return any(bundle.leaky for bundle in self.bundles)

    @property
    def batch_size(self) -> int:
        """Slices that are best submitted together."""
        return min(member.segmenter.network.batch_size for member in self.members)

    @property
    def described(self) -> str:
        """What runs the members: `openvino fp32`."""
        return ", ".join(dict.fromkeys(member.segmenter.network.described for member in self.members))

    def prepare(self, image: Image) -> list[Prepared]:
        """(H, W, C) uint8 as each member takes it. InputError as `Segmenter.prepare`."""
        made: dict[object, Prepared] = {}
        for segmenter, _ in self.members:
            if _kind(segmenter) not in made:
                made[_kind(segmenter)] = segmenter.prepare(image)
        return [made[_kind(segmenter)] for segmenter, _ in self.members]

    def submit(self, prepared: Sequence[list[Prepared]], *, tta: Tta = "none") -> Callable[[], list[Ensembled]]:
        """Begin with at least one image that was prepared; what is pending has them in their order.

        UsageError as `views`. What waits may be asked by another thread: it restores too.
        """
        by_member = [
            member.segmenter.submit(images, tta=tta)
            for member, images in zip(self.members, zip(*prepared, strict=True), strict=True)
        ]

        def wait() -> list[Ensembled]:
            squares = zip(*(pending() for pending in by_member), strict=True)
            return [_average(ways, found) for ways, found in zip(prepared, squares, strict=True)]

        return wait

    def cancel(self) -> None:
        """As `Network.cancel`, of all members."""
        for member in self.members:
            member.segmenter.network.cancel()

    def predict(self, images: Sequence[Image], *, tta: Tta = "none") -> list[Ensembled]:
        """uint8 (H, W, C) each, sizes may differ -> their probabilities, as `Segmenter.predict_probs`.

        Nothing in, nothing out. InputError as `prepare`; UsageError as `views`.
        """
        views(tta)
        return self.submit([self.prepare(image) for image in images], tta=tta)() if images else []

    def find_unlike(self, image: Image) -> list[str]:
        """What of an (H, W, C) uint8 image is unlike any member's training, as `ood.find_unlike`."""
        return find_unlike(image, known=((len(bundle.channel_names), bundle.ranges) for bundle in self.bundles))

    def check_channels(self, image: Image) -> None:
        """InputError for an image that any member would refuse."""
        for member in self.members:
            member.segmenter.check_channels(image)


def load_ensemble(
    paths: Sequence[Path], choice: Choice | None = None, *, verify: bool = True, tell: Tell = tell_nobody
) -> Ensemble:
    """Load what `paths` stand for, each as `find_bundles`, folds of a k-fold one by one.

    UsageError and InputError as `open_bundles` and `open_ensemble`.
    """
    return open_ensemble(open_bundles(paths, verify=verify), choice, tell=tell)


def open_ensemble(bundles: Sequence[Bundle], choice: Choice | None = None, *, tell: Tell = tell_nobody) -> Ensemble:
    """Load the networks of bundles that were opened: of the very bytes that were hashed then.

    `tell` hears in a sentence what takes long or comes otherwise than a user expects. UsageError for nothing;
    InputError for a model that cannot be loaded; more as `open_network`.
    """
    choice = choice or Choice()
    return Ensemble([(open_network(bundle, choice, tell=tell), bundle.info) for bundle in bundles])


def mean_threshold(bundles: Sequence[BundleInfo]) -> float:
    """The mean of several models' thresholds; at least one."""
    return sum(bundle.threshold for bundle in bundles) / len(bundles)


def _kind(segmenter: Segmenter) -> tuple[PreprocessConfig, int]:
    return segmenter.network.preprocess, segmenter.network.in_channels


def _average(ways: Sequence[Prepared], squares: Sequence[Probs]) -> Ensembled:
    members = [way.restore(square) for way, square in zip(ways, squares, strict=True)]
    if len(members) == 1:
        return Ensembled(members[0], members)
    return Ensembled(np.stack(members).mean(axis=0, dtype=np.float64).astype(np.float32), members)
