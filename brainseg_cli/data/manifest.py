"""The dataset/ folder: dataset.json, slices.csv, images.npy, masks.npy. Written by prepare, read by the rest."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

from brainseg_cli.data.splits import find_leaks, hash_split, resolve_fold
from brainseg_cli.errors import InputError
from brainseg_cli.io.atomic import read_json, write_json
from brainseg_cli.io.contracts import Contract, check_contract
from brainseg_cli.io.rows import RowsReader
from brainseg_cli.io.sums import check_own_sum, check_sums, hash_files, with_own_sum
from brainseg_cli.types import Image, Mask

SCHEMA_VERSION = 3
COLUMNS = (
    "patient_id", "slice_index", "image", "mask", "height", "width", "tumour_px", "sha256", "split",
)  # fmt: skip
NUMBERS = ("slice_index", "height", "width", "tumour_px")
Part = Literal["slices.csv", "images.npy", "masks.npy"]
PARTS: tuple[Part, ...] = get_args(Part)
ABOUT: Literal["dataset.json"] = "dataset.json"


class ChannelStats(BaseModel):
    """The intensity fingerprint of one channel, over every pixel of every slice, 0 to 255."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mean: float
    std: float
    p01: int
    p50: int
    p99: int


class DatasetInfo(Contract):
    """dataset.json."""

    schema_version: int = SCHEMA_VERSION
    brainseg_version: str
    source: str
    layout: str
    patient_regex: str | None = None
    patients: int
    slices: int
    tumour_slices: int
    channel_names: Annotated[list[str], Field(min_length=1)]
    intensity: list[ChannelStats]
    split: str
    """The split as it was asked for: `70/15/15`, `kfold:5`, ..."""
    split_seed: int
    split_hash: str
    content_hash: str
    """Of every image and mask, so that two datasets of the same slices have the same."""
    leaky: bool
    """Whether slices of one patient may stand on two sides. Said in everything made from this dataset."""
    patients_known: bool
    warnings: list[str]
    sha256: dict[Part | Literal["dataset.json"], str] = Field(default_factory=dict)
    """Of each file beside it, and of this one. A dataset of schema 1 has none, one of schema 2 not the last."""


@dataclass(frozen=True)
class Dataset:
    """A prepared dataset. `slices` has COLUMNS, one row a slice, in the order of the arrays."""

    folder: Path
    info: DatasetInfo
    slices: pd.DataFrame

    @cached_property
    def images(self) -> RowsReader:
        """(N, H, W, C) uint8, read slice by slice. Smaller slices lie in the top left corner, padded with 0."""
        return _open_array(self.folder / "images.npy", (*self._shape, len(self.info.channel_names)))

    @cached_property
    def masks(self) -> RowsReader:
        """(N, H, W) uint8 in {0, 1}, padded likewise."""
        return _open_array(self.folder / "masks.npy", self._shape)

    def __getstate__(self) -> dict[str, object]:
        """Without the open arrays: each process opens the files itself."""
        return {"folder": self.folder, "info": self.info, "slices": self.slices}

    def image(self, row: int) -> Image:
        """(height, width, C) of one slice, at its own size."""
        return self.images[row][: self._heights[row], : self._widths[row]]

    def mask(self, row: int) -> Mask:
        """(height, width) of one slice, at its own size."""
        return self.masks[row][: self._heights[row], : self._widths[row]]

    @cached_property
    def _heights(self) -> npt.NDArray[np.int64]:
        return self.slices["height"].to_numpy(np.int64)

    @cached_property
    def _widths(self) -> npt.NDArray[np.int64]:
        return self.slices["width"].to_numpy(np.int64)

    @property
    def _shape(self) -> tuple[int, int, int]:
        return len(self.slices), int(self._heights.max(initial=0)), int(self._widths.max(initial=0))

    @property
    def has_folds(self) -> bool:
        """Whether `split` names folds, of which `with_fold` makes train, val and test."""
        return any(str(name).startswith("fold-") for name in self.slices["split"].unique())

    def with_fold(self, fold: int | None, *, val: bool = True) -> "Dataset":
        """The same slices with `split` in train, val and test; `resolve_fold` says which."""
        split = resolve_fold(self.slices["split"].tolist(), fold, val=val)
        return Dataset(self.folder, self.info, self.slices.assign(split=split))

    def rows(self, split: str) -> npt.NDArray[np.int64]:
        """Row numbers of one split, in order; empty where there are none."""
        return np.flatnonzero(self.slices["split"] == split)

    def split_hash(self) -> str:
        """`hash_split` of the slices as they are now assigned."""
        return hash_split(self.slices["image"].tolist(), self.slices["split"].tolist())


def check_dataset(folder: Path) -> None:
    """InputError where it is none, without reading it."""
    if not (folder / ABOUT).exists():
        raise InputError(f"is no dataset: it has no {ABOUT}", where=folder, hint="brainseg prepare makes one")


def load_dataset(folder: Path, *, verify: bool = True) -> Dataset:
    """Open a dataset/ folder. InputError where it is not one, is newer than this program, or is inconsistent.

    With `verify` every file is hashed and held against dataset.json: what was damaged since is an InputError.
    """
    check_dataset(folder)
    path = folder / ABOUT
    for name in (path.name, *PARTS):
        if (folder / name).exists() and not (folder / name).is_file():  # a pipe would be waited for
            raise InputError("is not a file", where=folder / name)
    told = read_json(path)
    info = check_contract(told, DatasetInfo, path)
    hint = "prepare it again, or copy it again; --no-verify reads it as it is"
    if verify:
        check_own_sum(path, told, hint=hint)
    slices = read_slices(folder / "slices.csv")
    if len(slices) != info.slices:
        raise InputError(f"has {len(slices)} rows, dataset.json says {info.slices}", where=folder / "slices.csv")
    if not info.leaky and (leaks := find_leaks(slices["patient_id"].tolist(), slices["split"].tolist())):
        raise InputError(f"puts {leaks[0]} in several splits, unmarked", where=folder / "slices.csv")
    if verify:
        parts = [part for part in info.sha256 if part != ABOUT]
        check_sums(folder, hash_files(folder, parts), info.sha256, hint=hint)
    return Dataset(folder, info, slices)


def write_info(folder: Path, info: DatasetInfo) -> DatasetInfo:
    """Write dataset.json and return what it holds: `info` with the hash of each file beside it, and of itself.

    InputError where one of those is not there.
    """
    told = with_own_sum(info.model_dump(mode="json") | {"sha256": hash_files(folder, PARTS)}, ABOUT)
    write_json(folder / ABOUT, told)
    return DatasetInfo.model_validate(told)


def read_slices(path: Path) -> pd.DataFrame:
    """slices.csv with its types. InputError for a missing file or column, or a value of another type."""
    try:
        types = {column: np.int64 if column in NUMBERS else str for column in COLUMNS}
        table = pd.read_csv(path, dtype=types, na_filter=False)  # a patient may be called NA
        absent = [column for column in COLUMNS if column not in table.columns]
        if absent:
            raise InputError(f"has no column {', '.join(absent)}", where=path)
        return table
    except FileNotFoundError:
        raise InputError("is not there", where=path) from None
    except (OSError, ValueError) as error:
        raise InputError(f"cannot be read as a table of slices: {str(error).strip()}", where=path) from None


def _open_array(path: Path, shape: tuple[int, ...]) -> RowsReader:
    try:
        array = RowsReader(path)
    except FileNotFoundError:
        raise InputError("is not there", where=path, hint="prepare the dataset again") from None
    except (OSError, ValueError) as error:
        raise InputError(f"cannot be read as an array: {error}", where=path) from None
    if array.shape != shape:
        raise InputError(f"holds {array.shape}, {shape} was expected", where=path)
    return array
