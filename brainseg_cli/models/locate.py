"""Where trained models lie, which one is which, and what they say of themselves: without loading PyTorch."""

import hashlib
from pathlib import Path
from typing import Literal

from brainseg_cli.config import PreprocessConfig
from brainseg_cli.errors import InputError
from brainseg_cli.io.contracts import Contract, read_contract
from brainseg_cli.io.images import read_bytes
from brainseg_cli.io.inputs import natural_order

BUNDLE_SCHEMA = 2
BUNDLE_FILES = ("brainseg.json", "config.json", "model.safetensors")


class BundleInfo(Contract):
    """brainseg.json."""

    schema_version: int = BUNDLE_SCHEMA
    brainseg_version: str
    torch_version: str
    preprocess: PreprocessConfig
    threshold: float = 0.5
    threshold_from: Literal["default", "val"] = "default"
    """`val` where it is the one that scored best there. A bundle of schema 1 has none."""
    channel_names: list[str]
    encoder_weights: str
    """What the encoder started from: `none` (random numbers) or `imagenet`."""
    dataset_hash: str
    split: str
    split_hash: str
    leaky: bool
    epoch: int
    """The epoch these weights are from, chosen on val."""
    val_dice_patient: float | None


def find_bundle(path: Path) -> Path:
    """The model/ folder of a run, or `path` itself where it is one. InputError where there is none."""
    folder = _look_in(path)
    if folder is None:
        raise InputError("holds no model", where=path, hint="give a run, or the model/ folder of one")
    return folder


def find_bundles(path: Path) -> list[Path]:
    """The model/ folders that `path` stands for, at least one, folds in natural order.

    One for a run or a model/ folder. A folder without a model whose sub-folders fold* each hold one is a
    k-fold: all of them. InputError where there is no model, or where a fold has none.
    """
    folder = _look_in(path)
    if folder is not None:
        return [folder]
    folds = natural_order(fold for fold in path.glob("fold*") if fold.is_dir())
    if not folds:
        raise InputError("holds no model", where=path, hint="give a run, its model/ folder, or a folder of runs fold*")
    return [find_bundle(fold) for fold in folds]


def read_info(folder: Path) -> BundleInfo:
    """What a model/ folder says of itself. InputError where it is missing, broken or of a newer schema."""
    return read_contract(folder / BUNDLE_FILES[0], BundleInfo)


def hash_bundle(folder: Path) -> str:
    """SHA-256 as 64 hex digits of a model/ folder's three files, names and bytes: the same model, wherever it lies.

    InputError for a file that is missing or cannot be read.
    """
    digest = hashlib.sha256()
    for name in BUNDLE_FILES:
        data = read_bytes(folder / name)
        digest.update(f"{name} {len(data)}\n".encode())  # the length, so that no byte can move from file to file
        digest.update(data)
    return digest.hexdigest()


def _look_in(path: Path) -> Path | None:
    return next((folder for folder in (path / "model", path) if (folder / BUNDLE_FILES[0]).exists()), None)
