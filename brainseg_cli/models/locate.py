"""Where trained models lie, which one is which, and what they say of themselves: without loading PyTorch."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from brainseg_cli.config import PreprocessConfig
from brainseg_cli.errors import InputError, UsageError
from brainseg_cli.io.atomic import parse_json
from brainseg_cli.io.contracts import Contract, check_contract
from brainseg_cli.io.images import read_bytes
from brainseg_cli.io.inputs import natural_order
from brainseg_cli.io.sums import check_own_sum, check_sums
from brainseg_cli.models.built_in import find_built_in, list_built_in
from brainseg_cli.models.metadata import INFO, check_seal, is_export, list_parts, read_metadata
from brainseg_cli.ood import Ranges

BUNDLE_SCHEMA = 4
PICKLES = (".pt", ".pth", ".pt2", ".bin", ".ckpt", ".pkl", ".pickle", ".joblib", ".h5", ".keras")
"""How files end that are, or may hold, a program to be run where they are loaded. None is ever opened."""
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
    ranges: Ranges = Field(default_factory=dict)
    """What the training slices look like, as `ood.find_unlike` takes it. A bundle of a schema below 4 has none."""
    sha256: dict[Literal["brainseg.json", "config.json", "model.safetensors"], str] = Field(default_factory=dict)
    """Of the files beside it, and of this one. A bundle of a schema below 3 has none, one of schema 3 not the last."""


@dataclass(frozen=True)
class Bundle:
    """A model as it was when it was opened: where it lies, what it says of itself, and the hash of each file."""

    path: Path
    """A model/ folder or an exported file."""
    info: BundleInfo
    sums: Mapping[str, str]
    """By the name of the file, in a fixed order; an exported file is called by its suffix, whatever its name."""

    @property
    def sha256(self) -> str:
        """64 hex digits: the same model, wherever it lies."""
        told = "".join(f"{digest}  {name}\n" for name, digest in self.sums.items())
        return hashlib.sha256(told.encode()).hexdigest()

    def read(self, name: str) -> bytes:
        """One of its files. InputError where it is not the one any more that was hashed."""
        path = _list_files(self.path)[name]
        data = read_bytes(path)
        if hashlib.sha256(data).hexdigest() != self.sums[name]:
            raise InputError("was replaced while the model was loaded", where=path, hint="the same command once more")
        return data


def find_bundle(path: Path) -> Path:
    """The model/ folder of a run, or `path` itself where it is one or an exported file, or a built-in model's name.

    InputError for no model.
    """
    found = _look_in(path) or find_built_in(path)
    if found is None:
        runs_code = path.suffix.lower() in PICKLES
        told = "is not loaded: a file of this kind can run code" if runs_code else "holds no model"
        names = " or ".join(list_built_in())
        raise InputError(told, where=path, hint=f"give a run, its model/ folder, an .onnx or .xml file, or {names}")
    return found


def find_bundles(path: Path) -> list[Path]:
    """The model/ folders that `path` stands for, at least one, folds in natural order; or an exported file.

    One for a run or a model/ folder. A folder without a model whose sub-folders fold0, fold1, ... each hold one is
    a k-fold: all of them. InputError where there is no model, or where a fold has none.
    """
    folds = find_folds(path) if _look_in(path) is None else []
    return [find_bundle(fold) for fold in folds] or [find_bundle(path)]


def find_folds(path: Path) -> list[Path]:
    """The folders fold0, fold1 or fold_0 and so on in `path`, in natural order; none where it is no folder."""
    numbered = (fold for fold in path.glob("fold*") if re.fullmatch(r"fold[-_]?\d+", fold.name))
    return natural_order(fold for fold in numbered if fold.is_dir())


def open_bundle(path: Path, *, verify: bool = True) -> Bundle:
    """Read and hash a model/ folder or an exported file, without loading its network.

    InputError where it is missing, broken or newer; with `verify` also where a file is not as it was written.
    """
    sums: dict[str, str] = {}
    parts: dict[str, bytes] = {}
    for name, file in _list_files(path).items():
        parts[name] = read_bytes(file)
        sums[name] = hashlib.sha256(parts[name]).hexdigest()
    info = _read_info(path, next(iter(parts.values())))
    if verify and is_export(path):
        check_seal(path, list(parts.values()))
    elif verify:
        about, *others = BUNDLE_FILES
        hint = "copy it again; where a training was killed, train --resume writes it; --no-verify loads it as it is"
        check_own_sum(path / about, parse_json(parts[about], path / about), hint=hint)
        check_sums(path, {name: sums[name] for name in others}, info.sha256, hint=hint)
    return Bundle(path, info, sums)


def open_bundles(paths: Iterable[Path], *, verify: bool = True) -> list[Bundle]:
    """All that `paths` stand for, each as `find_bundles`. UsageError for the same model twice."""
    bundles = [open_bundle(folder, verify=verify) for path in paths for folder in find_bundles(path)]
    seen: dict[str, Bundle] = {}
    for bundle in bundles:
        twin = seen.setdefault(bundle.sha256, bundle)
        if twin is not bundle:
            raise UsageError(
                f"{twin.path} and {bundle.path} hold the same model",
                hint="name each once: a mean over twins counts one twice",
            )
    return bundles


def read_info(path: Path) -> BundleInfo:
    """What a model/ folder or an exported file says of itself. InputError where it is missing, broken or newer."""
    return _read_info(path, read_bytes(next(iter(_list_files(path).values()))))


def _read_info(path: Path, data: bytes) -> BundleInfo:
    """`data` is the first of the files."""
    if not is_export(path):
        return check_contract(parse_json(data, path / BUNDLE_FILES[0]), BundleInfo, path / BUNDLE_FILES[0])
    try:
        value = json.loads(read_metadata(path, data)[INFO])
    except (ValueError, RecursionError) as error:
        raise InputError(f"what it says of itself cannot be read as JSON: {error}", where=path) from None
    return check_contract(value, BundleInfo, path)


def _list_files(path: Path) -> dict[str, Path]:
    """Every file of a model by its name in `Bundle.sums`, first the one that says what it is."""
    if is_export(path):
        return {part.suffix.lower(): part for part in list_parts(path)}
    return {name: path / name for name in BUNDLE_FILES}


def _look_in(path: Path) -> Path | None:
    if is_export(path):
        return path
    return next((folder for folder in (path / "model", path) if (folder / BUNDLE_FILES[0]).exists()), None)
