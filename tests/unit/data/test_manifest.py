"""The dataset/ folder read back, and every way in which it can be none."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from brainseg_cli.data.manifest import (
    COLUMNS,
    SCHEMA_VERSION,
    ChannelStats,
    Dataset,
    DatasetInfo,
    load_dataset,
    read_slices,
)
from brainseg_cli.data.splits import hash_split
from brainseg_cli.errors import InputError, UsageError

SIZES = [(4, 6), (3, 6), (4, 5), (2, 2)]
SPLIT = ["train", "train", "val", "test"]
PATIENTS = ["NA", "NA", "007", "c"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A dataset of four slices of different sizes, written by hand."""
    rng = np.random.default_rng(0)
    images, masks = np.zeros((4, 4, 6, 3), np.uint8), np.zeros((4, 4, 6), np.uint8)
    for row, (height, width) in enumerate(SIZES):
        images[row, :height, :width] = rng.integers(1, 256, (height, width, 3))
        masks[row, :height, :width] = rng.integers(0, 2, (height, width))
    np.save(tmp_path / "images.npy", images)
    np.save(tmp_path / "masks.npy", masks)
    names = [f"{patient}/{row}.tif" for row, patient in enumerate(PATIENTS)]
    rows = [
        (patient, row, names[row], f"{row}_mask.tif", *SIZES[row], int(masks[row].sum()), f"{row:064}", SPLIT[row])
        for row, patient in enumerate(PATIENTS)
    ]
    pd.DataFrame(rows, columns=list(COLUMNS)).to_csv(tmp_path / "slices.csv", index=False)
    write_info(
        tmp_path,
        DatasetInfo(
            brainseg_version="0",
            source="here",
            layout="lgg",
            patients=3,
            slices=4,
            tumour_slices=4,
            channel_names=["a", "b", "c"],
            intensity=[ChannelStats(mean=1.5, std=0.5, p01=0, p50=1, p99=9)] * 3,
            split="70/15/15",
            split_seed=0,
            split_hash=hash_split(names, SPLIT),
            content_hash="0" * 16,
            leaky=False,
            patients_known=True,
            warnings=["one"],
        ).model_dump(),
    )
    return tmp_path


def write_info(folder: Path, info: dict[str, Any]) -> None:
    (folder / "dataset.json").write_text(json.dumps(info))


def change_info(folder: Path, **changes: Any) -> None:
    write_info(folder, json.loads((folder / "dataset.json").read_text()) | changes)


def change_slices(folder: Path, **changes: Any) -> None:
    table = pd.read_csv(folder / "slices.csv", dtype=str, keep_default_na=False)
    table.assign(**changes).to_csv(folder / "slices.csv", index=False)


def test_what_was_written_is_read(folder: Path) -> None:
    dataset = load_dataset(folder)
    assert dataset.info == DatasetInfo.model_validate_json((folder / "dataset.json").read_text())
    assert dataset.info.schema_version == SCHEMA_VERSION
    assert list(dataset.slices.columns) == list(COLUMNS)
    assert dataset.slices["patient_id"].tolist() == PATIENTS  # neither a missing value nor a number
    assert dataset.slices["sha256"].tolist() == [f"{row:064}" for row in range(4)]
    assert {str(dataset.slices[name].dtype) for name in ("slice_index", "height", "width", "tumour_px")} == {"int64"}
    assert dataset.split_hash() == dataset.info.split_hash


def test_slices_come_back_at_their_own_size(folder: Path) -> None:
    dataset = load_dataset(folder)
    assert dataset.images.shape == (4, 4, 6, 3) and dataset.masks.shape == (4, 4, 6)
    for row, size in enumerate(SIZES):
        image, mask = dataset.image(row), dataset.mask(row)
        assert image.shape == (*size, 3) and mask.shape == size
        assert (image > 0).all()  # no padding among it
        assert int(mask.sum()) == dataset.slices["tumour_px"][row]


def test_slices_cannot_be_written_to(folder: Path) -> None:
    dataset = load_dataset(folder)
    with pytest.raises(ValueError, match="read-only"):
        dataset.image(0)[0, 0, 0] = 1


def test_rows_of_a_split(folder: Path) -> None:
    dataset = load_dataset(folder)
    assert [dataset.rows(name).tolist() for name in ("train", "val", "test", "fold-0")] == [[0, 1], [2], [3], []]
    assert dataset.with_fold(None).slices.equals(dataset.slices)
    with pytest.raises(UsageError, match="--fold"):
        dataset.with_fold(0)


def test_a_fold_changes_the_split_of_a_copy(folder: Path) -> None:
    change_slices(folder, split=["fold-0", "fold-0", "fold-1", "fold-2"])
    dataset = load_dataset(folder)
    second = dataset.with_fold(1)
    assert second.slices["split"].tolist() == ["train", "train", "test", "val"]
    assert dataset.slices["split"].tolist()[0] == "fold-0"
    assert second.split_hash() != dataset.split_hash()
    np.testing.assert_array_equal(second.image(2), dataset.image(2))
    with pytest.raises(UsageError, match="3 folds"):
        dataset.with_fold(None)


# what is no dataset


def fails(folder: Path, told: str, file: str) -> None:
    with pytest.raises(InputError) as caught:
        load_dataset(folder)
    assert told in str(caught.value) and str(caught.value).startswith(str(folder / file))
    assert "\n" not in str(caught.value)


def test_a_folder_without_dataset_json(tmp_path: Path) -> None:
    fails(tmp_path, "is no dataset", "")
    fails(tmp_path / "absent", "is no dataset", "")


@pytest.mark.parametrize("version", [SCHEMA_VERSION + 1, 99])
def test_a_newer_schema_whatever_else_it_holds(folder: Path, version: int) -> None:
    write_info(folder, {"schema_version": version, "new": "things"})
    fails(folder, f"has schema {version}, this program reads up to {SCHEMA_VERSION}", "dataset.json")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"slices": "many"}, "slices: "),
        ({"channel_names": []}, "channel_names: "),
        ({"intensity": [{"mean": 1}]}, "intensity.0.std: "),
        ({"unknown": 1}, "unknown: "),
        ({"leaky": None}, "leaky: "),
    ],
)
def test_a_dataset_json_that_says_something_else(folder: Path, changes: dict[str, Any], told: str) -> None:
    change_info(folder, **changes)
    fails(folder, told, "dataset.json")


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", "null", "\x00"])
def test_a_dataset_json_that_is_none(folder: Path, text: str) -> None:
    (folder / "dataset.json").write_text(text)
    fails(folder, "", "dataset.json")


@pytest.mark.parametrize("name", COLUMNS)
def test_a_missing_column_is_named(folder: Path, name: str) -> None:
    table = pd.read_csv(folder / "slices.csv", dtype=str)
    table.drop(columns=name).to_csv(folder / "slices.csv", index=False)
    fails(folder, f"has no column {name}", "slices.csv")


@pytest.mark.parametrize("value", ["", "3.5", "tall", "nan"])
def test_a_height_that_is_no_number(folder: Path, value: str) -> None:
    change_slices(folder, height=["4", "3", value, "2"])
    fails(folder, "cannot be read as a table of slices", "slices.csv")


def test_rows_missing_from_the_table(folder: Path) -> None:
    table = pd.read_csv(folder / "slices.csv", dtype=str, keep_default_na=False)
    table[:3].to_csv(folder / "slices.csv", index=False)
    fails(folder, "has 3 rows, dataset.json says 4", "slices.csv")


def test_a_table_that_is_none(folder: Path) -> None:
    for data in (b"", b"a,b\nb,c\nd,e,f\n", b"\xff\xfe\x00"):
        (folder / "slices.csv").write_bytes(data)
        fails(folder, "cannot be read as a table of slices", "slices.csv")
    (folder / "slices.csv").unlink()
    fails(folder, "is not there", "slices.csv")
    with pytest.raises(InputError, match="is not there"):
        read_slices(folder / "slices.csv")


def test_a_patient_on_two_sides_is_refused_unless_the_dataset_says_it_is_leaky(folder: Path) -> None:
    change_slices(folder, split=["train", "test", "val", "test"])
    fails(folder, "puts NA in several splits", "slices.csv")
    change_info(folder, leaky=True)
    assert load_dataset(folder).info.leaky


@pytest.mark.parametrize("name", ["images", "masks"])
@pytest.mark.parametrize(
    "change",
    [
        lambda array: array.astype(np.float32),
        lambda array: array[:3],
        lambda array: array[:, :, :5],
        lambda array: array[..., None],
        lambda array: array[0],
    ],
)
def test_an_array_of_another_type_or_shape(folder: Path, name: str, change: Any) -> None:
    dataset = load_dataset(folder)
    np.save(folder / f"{name}.npy", change(np.load(folder / f"{name}.npy")))
    with pytest.raises(InputError, match=rf"{name}\.npy: .*holds .* was expected"):
        getattr(dataset, name)


@pytest.mark.parametrize("name", ["images", "masks"])
def test_an_array_that_is_none(folder: Path, name: str) -> None:
    path = folder / f"{name}.npy"
    whole = path.read_bytes()
    for data in (b"", b"no array", whole[:-10], np.array([{}]).dumps()):
        path.write_bytes(data)
        with pytest.raises(InputError, match=rf"{name}\.npy: cannot be read as an array"):
            getattr(load_dataset(folder), name)
    path.unlink()
    with pytest.raises(InputError, match=rf"{name}\.npy: is not there"):
        getattr(load_dataset(folder), name)


def test_a_dataset_without_slices_is_empty_not_broken(folder: Path) -> None:
    dataset = load_dataset(folder)
    np.save(folder / "masks.npy", np.zeros((0, 0, 0), np.uint8))
    empty = Dataset(folder, dataset.info, dataset.slices[:0])
    assert empty.masks.shape == (0, 0, 0) and empty.rows("train").tolist() == []


@pytest.mark.parametrize("name", ["slices.csv", "images.npy", "masks.npy"])
def test_a_file_that_changed_since_is_told_by_its_checksum(dataset: Path, tmp_path: Path, name: str) -> None:
    folder = Path(shutil.copytree(dataset, tmp_path / "d"))
    assert load_dataset(folder).info.sha256.keys() == {"dataset.json", "slices.csv", "images.npy", "masks.npy"}
    data = (folder / name).read_bytes()
    changed = data[:-9] + bytes([data[-9] ^ 1]) + data[-8:]
    (folder / name).write_bytes(changed)
    with pytest.raises(InputError, match=r"its checksum does not fit .*--no-verify") as caught:
        load_dataset(folder)
    assert caught.value.where == folder / name and "\n" not in str(caught.value)
    load_dataset(folder, verify=False)


def test_a_dataset_json_that_was_changed_since_is_told_by_its_own_checksum(dataset: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(dataset, tmp_path / "d"))
    about = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps(dict(reversed(about.items()))))  # the same, set otherwise
    load_dataset(folder)
    (folder / "dataset.json").write_text(json.dumps(about | {"source": "elsewhere"}))
    with pytest.raises(InputError, match=r"dataset\.json: is not as it was written.*--no-verify"):
        load_dataset(folder)
    assert load_dataset(folder, verify=False).info.source == "elsewhere"


def test_a_dataset_of_the_first_schema_has_no_sums(dataset: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(dataset, tmp_path / "d"))
    about = json.loads((folder / "dataset.json").read_text())
    del about["sha256"]
    (folder / "dataset.json").write_text(json.dumps(about | {"schema_version": 1}))
    with (folder / "images.npy").open("ab") as file:
        file.write(b"\0")
    assert load_dataset(folder).info.sha256 == {}


def test_sums_of_other_files_are_not_asked_for(dataset: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(dataset, tmp_path / "d"))
    about = json.loads((folder / "dataset.json").read_text())
    about["sha256"]["../../dev/zero"] = "0" * 64
    (folder / "dataset.json").write_text(json.dumps(about))
    with pytest.raises(InputError, match=r"dataset\.json: sha256"):
        load_dataset(folder)


@pytest.mark.parametrize("name", ["dataset.json", "slices.csv", "images.npy"])
def test_a_pipe_is_not_waited_for(dataset: Path, tmp_path: Path, name: str) -> None:
    folder = Path(shutil.copytree(dataset, tmp_path / "d"))
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(InputError, match=f"{name}: is not a file"):
        load_dataset(folder)
