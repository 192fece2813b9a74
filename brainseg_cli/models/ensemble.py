"""Several networks asked as one: the mean of their probabilities, and what each of them says."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from brainseg_cli.errors import UsageError
from brainseg_cli.models.bundle import load_bundle
from brainseg_cli.models.locate import BundleInfo, find_bundles, hash_bundle
from brainseg_cli.models.segmenter import Segmenter
from brainseg_cli.types import Image, Probs, Tta


class Member(NamedTuple):
    """One network on its device, and what its bundle says of it."""

    segmenter: Segmenter
    bundle: BundleInfo


class Ensembled(NamedTuple):
    """One slice: the mean probability (H, W) float32 in [0, 1], and each member's, in the members' order."""

    probs: Probs
    members: list[Probs]


class Ensemble:
    """At least one network, each with its own preprocessing. With one, its probabilities are the mean bit for bit."""

    def __init__(self, models: Sequence[tuple[nn.Module, BundleInfo]], device: torch.device) -> None:
        if not models:
            raise UsageError("no model was given")
        self.device = device
        self.members = [
            Member(Segmenter(network, bundle.preprocess, len(bundle.channel_names), device), bundle)
            for network, bundle in models
        ]

    @property
    def bundles(self) -> list[BundleInfo]:
        """What the members' bundles say, in their order."""
        return [member.bundle for member in self.members]

    @property
    def threshold(self) -> float:
        """The mean of the members' thresholds."""
        return sum(bundle.threshold for bundle in self.bundles) / len(self.members)

    @property
    def leaky(self) -> bool:
        """Whether any member was trained on a split with slices of one patient on several sides."""
        return any(bundle.leaky for bundle in self.bundles)

    def predict(self, images: Sequence[Image], *, tta: Tta = "none") -> list[Ensembled]:
        """uint8 (H, W, C) each, sizes may differ -> their probabilities, as `Segmenter.predict_probs`.

        Nothing in, nothing out. InputError for an image that `check_channels` refuses; UsageError as `views`.
        """
        by_member = [member.segmenter.predict_probs(images, tta=tta) for member in self.members]
        return [
            Ensembled(np.stack(found).mean(axis=0, dtype=np.float64).astype(np.float32), list(found))
            for found in zip(*by_member, strict=True)
        ]

    def check_channels(self, image: Image) -> None:
        """InputError for an image that any member would refuse."""
        for member in self.members:
            member.segmenter.check_channels(image)


def load_ensemble(paths: Sequence[Path], device: torch.device) -> Ensemble:
    """The models that `paths` stand for, on `device`: runs, model/ folders, and k-folds, as `find_bundles`.

    UsageError for no path, or for a model that is named twice, be it as a copy; InputError for one that is
    not there or cannot be loaded.
    """
    folders = [folder for path in paths for folder in find_bundles(path)]
    if len(folders) > 1:  # one alone has no twin, and need not be hashed
        _refuse_twins(folders)
    return Ensemble([load_bundle(folder) for folder in folders], device)


def _refuse_twins(folders: Sequence[Path]) -> None:
    seen: dict[str, Path] = {}
    for folder in folders:
        twin = seen.setdefault(hash_bundle(folder), folder)
        if twin is not folder:
            raise UsageError(
                f"{twin} and {folder} hold the same model", hint="name each once: a mean over twins counts one twice"
            )
