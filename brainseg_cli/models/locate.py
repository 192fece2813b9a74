"""Where trained models lie, which one is which, and what they say of themselves: without loading PyTorch."""

import hashlib
import json
from pathlib import Path
from typing import Literal

from brainseg_cli.config import PreprocessConfig
from brainseg_cli.errors import InputError
from brainseg_cli.io.contracts import Contract, check_contract, read_contract
from brainseg_cli.io.images import read_bytes
from brainseg_cli.io.inputs import natural_order
from brainseg_cli.models.metadata import INFO, is_export, list_parts, read_metadata

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
    """The model/ folder of a run, or `path` itself where it is one or an exported file. InputError for no model."""
    found = _look_in(path)
    if found is None:
        raise InputError("holds no model", where=path, hint="give a run, its model/ folder, or an .onnx or .xml file")
    return found


def find_bundles(path: Path) -> list[Path]:
    """The model/ folders that `path` stands for, at least one, folds in natural order; or an exported file.

    One for a run or a model/ folder. A folder without a model whose sub-folders fold* each hold one is a
    k-fold: all of them. InputError where there is no model, or where a fold has none.
    """
    folds = natural_order(fold for fold in path.glob("fold*") if fold.is_dir()) if _look_in(path) is None else []
    return [find_bundle(fold) for fold in folds] or [find_bundle(path)]


def read_info(path: Path) -> BundleInfo:
    """What a model/ folder or an exported file says of itself. InputError where it is missing, broken or newer."""
    if not is_export(path):
        return read_contract(path / BUNDLE_FILES[0], BundleInfo)
    try:
        value = json.loads(read_metadata(path)[INFO])
    except json.JSONDecodeError as error:
        raise InputError(f"what it says of itself cannot be read as JSON: {error}", where=path) from None
    return check_contract(value, BundleInfo, path)


def hash_bundle(path: Path) -> str:
    """SHA-256 as 64 hex digits of a model/ folder's three files, names and bytes: the same model, wherever it lies.

    Of an exported file its bytes, whatever its name. InputError for a file that is missing or cannot be read.
    """
    if is_export(path):
        parts = {part.suffix.lower(): part for part in list_parts(path)}
    else:
        parts = {name: path / name for name in BUNDLE_FILES}
    digest = hashlib.sha256()
    for name, part in parts.items():
        data = read_bytes(part)
        digest.update(f"{name} {len(data)}\n".encode())  # the length, so that no byte can move from file to file
        digest.update(data)
    return digest.hexdigest()


def _look_in(path: Path) -> Path | None:
    if is_export(path):
        return path
    return next((folder for folder in (path / "model", path) if (folder / BUNDLE_FILES[0]).exists()), None)
