"""prepare: what it writes, what it refuses, and that the same source gives the same bytes."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from brainseg_cli import __version__
from brainseg_cli.data.manifest import COLUMNS, SCHEMA_VERSION, load_dataset
from brainseg_cli.data.splits import hash_split
from brainseg_cli.errors import InputError, OutputExistsError, UsageError
from brainseg_cli.io.images import read_image, read_mask, write_image, write_mask
from brainseg_cli.prepare import (
    Preparation,
    check,
    complete_dataset,
    new_dataset,
    summarise_splits,
    write_dataset,
)

FILES = {"dataset.json", "slices.csv", "images.npy", "masks.npy"}
PATIENTS = {
    "PHANTOM_AA_0001": 5,
    "PHANTOM_BB_0002": 3,
    "PHANTOM_CC_0003": 4,
    "PHANTOM_AA_0004": 7,
    "PHANTOM_BB_0005": 6,
    "PHANTOM_BB_0011": 8,
}


def hashes(folder: Path) -> dict[str, str]:
    """Of every file's bytes."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


@pytest.fixture
def source(phantom: Path, tmp_path: Path) -> Path:
    """A copy of the phantom that may be damaged."""
    return Path(shutil.copytree(phantom, tmp_path / "source"))


def prepare(source: Path, out: Path, **options: object) -> Path:
    write_dataset(check(source, **options), out)  # type: ignore[arg-type]
    return out


# the contract


def test_the_folder_holds_what_the_contract_says(phantom: Path, tmp_path: Path) -> None:
    out = prepare(phantom, tmp_path / "new" / "dataset", seed=3)
    assert {path.name for path in out.iterdir()} == FILES
    assert [path.name for path in out.parent.iterdir()] == ["dataset"]
    images, masks = np.load(out / "images.npy"), np.load(out / "masks.npy")
    assert (images.shape, images.dtype) == ((33, 40, 56, 3), np.uint8)
    assert (masks.shape, masks.dtype) == ((33, 40, 56), np.uint8)
    assert set(np.unique(masks)) == {0, 1}

    table = pd.read_csv(out / "slices.csv")
    assert tuple(table.columns) == COLUMNS
    assert table.groupby("patient_id").size().to_dict() == PATIENTS
    for row, line in enumerate(table.itertuples()):
        assert line.image == f"{line.patient_id}/{line.patient_id}_{line.slice_index}.tif"
        assert line.mask == line.image.replace(".tif", "_mask.tif")
        np.testing.assert_array_equal(images[row], read_image(phantom / line.image))
        np.testing.assert_array_equal(masks[row], read_mask(phantom / line.mask))
        assert (line.height, line.width) == (40, 56)
        assert line.tumour_px == masks[row].sum()
        assert line.sha256 == hashlib.sha256(b"(40, 56, 3)" + images[row].tobytes()).hexdigest()
    for _, slices in table.groupby("patient_id", sort=False):
        assert slices["slice_index"].tolist() == list(range(1, len(slices) + 1))
        assert slices["split"].nunique() == 1
    assert set(table["split"]) == {"train", "val", "test"}


def test_dataset_json_tells_of_source_options_counts_and_split(phantom: Path, tmp_path: Path) -> None:
    out = prepare(phantom, tmp_path / "dataset", split="60/20/20", seed=3)
    info = json.loads((out / "dataset.json").read_text())
    table = pd.read_csv(out / "slices.csv")
    assert info["schema_version"] == SCHEMA_VERSION and info["brainseg_version"] == __version__
    assert (info["source"], info["layout"], info["patient_regex"]) == (phantom.name, "lgg", None)
    assert (info["patients"], info["slices"]) == (6, 33)
    assert info["tumour_slices"] == (table["tumour_px"] > 0).sum()
    assert info["channel_names"] == ["pre-contrast", "FLAIR", "post-contrast"]
    assert (info["split"], info["split_seed"], info["leaky"], info["patients_known"]) == ("60/20/20", 3, False, True)
    assert info["split_hash"] == hash_split(table["image"].tolist(), table["split"].tolist())


def test_the_intensity_fingerprint_is_of_every_pixel(phantom: Path, tmp_path: Path) -> None:
    out = prepare(phantom, tmp_path / "dataset")
    pixels = np.load(out / "images.npy").reshape(-1, 3).astype(float)
    stats = json.loads((out / "dataset.json").read_text())["intensity"]
    assert len(stats) == 3
    for channel, told in enumerate(stats):
        values = np.sort(pixels[:, channel])
        assert told["mean"] == pytest.approx(values.mean(), abs=1e-4)
        assert told["std"] == pytest.approx(values.std(), abs=1e-4)
        for name, share in (("p01", 0.01), ("p50", 0.5), ("p99", 0.99)):
            assert told[name] == values[int(np.ceil(share * len(values))) - 1]


def test_what_was_written_is_loaded(phantom: Path, tmp_path: Path) -> None:
    preparation = check(phantom)
    write_dataset(preparation, tmp_path / "dataset")
    dataset = load_dataset(tmp_path / "dataset")
    assert dataset.info.model_copy(update={"sha256": {}}) == preparation.info
    pd.testing.assert_frame_equal(dataset.slices, preparation.slices, check_dtype=False)


def test_slices_of_other_sizes_are_padded_and_read_back_at_their_own(source: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    large, small = rng.integers(1, 256, (64, 30, 3), np.uint8), rng.integers(1, 256, (9, 70, 3), np.uint8)
    for number, image in ((901, large), (902, small)):
        write_image(source / "extra" / f"extra_{number}.tif", image)
        write_mask(source / "extra" / f"extra_{number}_mask.tif", (image[..., 0] > 99).astype(np.uint8))
    dataset = load_dataset(prepare(source, tmp_path / "dataset"))
    assert any("3 image sizes" in warning for warning in dataset.info.warnings)
    assert dataset.images.shape == (35, 64, 70, 3)
    for number, image in ((901, large), (902, small)):
        (row,) = np.flatnonzero(dataset.slices["slice_index"] == number)
        np.testing.assert_array_equal(dataset.image(row), image)
        np.testing.assert_array_equal(dataset.mask(row), image[..., 0] > 99)
        assert dataset.images[row].sum() == image.sum(dtype=np.int64)  # nothing but 0 around it
        assert dataset.masks[row].sum() == dataset.slices["tumour_px"][row]


def test_images_of_one_channel(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("a_1", "b_1", "c_1"):
        write_image(tmp_path / "s" / "images" / f"{name}.png", rng.permutation(80).astype(np.uint8).reshape(8, 10))
        write_mask(tmp_path / "s" / "masks" / f"{name}.png", np.eye(8, 10, dtype=np.uint8))
    dataset = load_dataset(prepare(tmp_path / "s", tmp_path / "dataset", patient_regex=r"/(\w)_"))
    assert dataset.images.shape == (3, 8, 10, 1) and dataset.info.channel_names == ["grey"]
    (stats,) = dataset.info.intensity  # each of 0 to 79 as often
    assert (stats.mean, stats.p01, stats.p50, stats.p99) == (39.5, 0, 39, 79)
    assert (dataset.info.layout, dataset.info.patient_regex) == ("folders", r"/(\w)_")
    assert dataset.info.patients_known and dataset.slices["patient_id"].tolist() == ["a", "b", "c"]


# the same again


@pytest.mark.parametrize("split", ["70/15/15", "kfold:3"])
def test_twice_the_same_seed_gives_the_same_bytes_whoever_reads_them(phantom: Path, tmp_path: Path, split: str) -> None:
    one = hashes(prepare(phantom, tmp_path / "one", split=split, workers=1))
    preparation = check(phantom, split=split, workers=4)
    write_dataset(preparation, tmp_path / "four", workers=4)
    assert hashes(tmp_path / "four") == one
    other = hashes(prepare(phantom, tmp_path / "other", split=split, seed=1))
    assert {name for name in FILES if other[name] != one[name]} == {"dataset.json", "slices.csv"}


def test_nor_does_the_interpreters_hash_seed_show(source: Path, tmp_path: Path) -> None:
    for name in ("PHANTOM_AA_0001_6.tif", "PHANTOM_AA_0004_9_mask.tif"):
        shutil.copy(source / "PHANTOM_AA_0001" / "PHANTOM_AA_0001_1.tif", source / name)  # something to warn of
    code = (
        "import sys; from pathlib import Path; from brainseg_cli.prepare import check, write_dataset\n"
        "write_dataset(check(Path(sys.argv[1]), skip_bad=True), Path(sys.argv[2]))"
    )
    for seed in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": seed}
        subprocess.run([sys.executable, "-c", code, source, tmp_path / seed], env=environment, check=True)
    assert hashes(tmp_path / "1") == hashes(tmp_path / "2")


def test_a_zip_gives_the_same_slices_as_its_folder(phantom: Path, tmp_path: Path) -> None:
    path = tmp_path / f"{phantom.name}.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(phantom.rglob("*.tif"), reverse=True):
            archive.write(file, file.relative_to(phantom))
            archive.write(file, Path("again") / phantom.name / file.relative_to(phantom))
    folder, zipped = load_dataset(prepare(phantom, tmp_path / "a")), load_dataset(prepare(path, tmp_path / "b"))
    assert zipped.slices.equals(folder.slices)
    assert zipped.info.content_hash == folder.info.content_hash
    assert zipped.info.split_hash == folder.info.split_hash
    assert "66 files a second time" in zipped.info.warnings[0]
    for row in range(len(folder.slices)):
        np.testing.assert_array_equal(zipped.image(row), folder.image(row))


# the arrays written on the way


def prepare_in_one_go(source: Path, out: Path, **options: object) -> list[str]:
    """As `prepare`, without reading twice what need not be; gives what progress was told of."""
    told: list[str] = []
    progress: Callable[[int, int, str], None] = lambda done, total, what: told.append(what)  # noqa: E731
    with new_dataset(out) as folder:
        preparation = check(source, into=folder, progress=progress, **options)  # type: ignore[arg-type]
        complete_dataset(preparation, folder, progress=progress)
    return told


def test_slices_of_one_size_are_read_once(phantom: Path, tmp_path: Path) -> None:
    told = prepare_in_one_go(phantom, tmp_path / "one", workers=3)
    assert told == ["checking slices"] * 33
    assert hashes(tmp_path / "one") == hashes(prepare(phantom, tmp_path / "two"))


def test_slices_of_two_sizes_are_read_again(source: Path, tmp_path: Path) -> None:
    for number, shape in ((901, (64, 30, 3)), (902, (9, 70, 3))):
        image = np.random.default_rng(number).integers(1, 256, shape, np.uint8)
        write_image(source / "extra" / f"extra_{number}.tif", image)
        write_mask(source / "extra" / f"extra_{number}_mask.tif", (image[..., 0] > 99).astype(np.uint8))
    told = prepare_in_one_go(source, tmp_path / "one")
    assert told == ["checking slices"] * 35 + ["writing slices"] * 35
    assert hashes(tmp_path / "one") == hashes(prepare(source, tmp_path / "two"))


def test_what_is_left_out_leaves_no_gap(damaged: Path, tmp_path: Path) -> None:
    assert set(prepare_in_one_go(damaged, tmp_path / "one", skip_bad=True)) == {"checking slices"}
    assert hashes(tmp_path / "one") == hashes(prepare(damaged, tmp_path / "two", skip_bad=True))
    assert len(np.load(tmp_path / "one" / "images.npy")) == 30


def test_a_fault_found_on_the_way_leaves_nothing_of_it(damaged: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="and 2 more problems"):
        prepare_in_one_go(damaged, tmp_path / "new" / "dataset")
    assert not (tmp_path / "new").exists()


# nothing by half, nothing written over


def test_what_is_there_is_left_alone_or_replaced_as_a_whole(phantom: Path, tmp_path: Path) -> None:
    out = prepare(phantom, tmp_path / "dataset")
    (out / "mine.txt").write_text("kept")
    before = hashes(out)
    preparation = check(phantom, seed=1)
    with pytest.raises(OutputExistsError, match="--overwrite"):
        write_dataset(preparation, out)
    assert hashes(out) == before
    write_dataset(preparation, out, overwrite=True)
    assert {path.name for path in out.iterdir()} == FILES
    assert load_dataset(out).info.split_seed == 1
    assert [path.name for path in tmp_path.iterdir()] == ["dataset"]


def test_a_file_in_the_way_is_not_replaced_even_so(phantom: Path, tmp_path: Path) -> None:
    (tmp_path / "dataset").write_text("a file")
    with pytest.raises(OutputExistsError):
        write_dataset(check(phantom), tmp_path / "dataset", overwrite=True)
    assert (tmp_path / "dataset").read_text() == "a file"


def test_a_failure_half_way_leaves_nothing_and_keeps_what_was_there(source: Path, tmp_path: Path) -> None:
    out = prepare(source, tmp_path / "work" / "dataset")
    before = hashes(out)
    preparation = check(source, seed=1)
    (source / "PHANTOM_BB_0005" / "PHANTOM_BB_0005_3_mask.tif").unlink()
    with pytest.raises(InputError, match=r"PHANTOM_BB_0005_3_mask\.tif: is not there"):
        write_dataset(preparation, out, overwrite=True)
    with pytest.raises(InputError):
        write_dataset(preparation, tmp_path / "work" / "second")
    assert [path.name for path in out.parent.iterdir()] == ["dataset"]
    assert hashes(out) == before


# what is wrong


@pytest.fixture
def damaged(source: Path) -> Path:
    """One slice unreadable, one without its mask, one mask without its slice."""
    (source / "PHANTOM_AA_0001" / "PHANTOM_AA_0001_2.tif").write_bytes(b"no image")
    (source / "PHANTOM_AA_0004" / "PHANTOM_AA_0004_4_mask.tif").unlink()
    (source / "PHANTOM_AA_0004" / "PHANTOM_AA_0004_5.tif").unlink()
    return source


def test_every_problem_is_found_and_none_of_it_written(damaged: Path, tmp_path: Path) -> None:
    preparation = check(damaged)
    assert len(preparation.errors) == 3 and preparation.skipped == 0
    for line, name in zip(preparation.errors, ("AA_0001_2.tif", "AA_0004_4.tif", "AA_0004_5_mask.tif"), strict=True):
        assert name in line and line.startswith(str(damaged))
    with pytest.raises(InputError, match=r"AA_0001_2\.tif: cannot be decoded.*\(and 2 more problems\).*--check"):
        write_dataset(preparation, tmp_path / "dataset")
    assert not (tmp_path / "dataset").exists()


def test_bad_slices_may_be_left_out_and_it_is_written_down(damaged: Path, tmp_path: Path) -> None:
    preparation = check(damaged, skip_bad=True)
    assert (preparation.errors, preparation.skipped) == ([], 3)
    write_dataset(preparation, tmp_path / "dataset")
    dataset = load_dataset(tmp_path / "dataset")
    assert dataset.info.slices == 30
    left_out = [warning for warning in dataset.info.warnings if warning.startswith("left out: ")]
    assert len(left_out) == 3 and "PHANTOM_AA_0001_2.tif" in left_out[0]


def test_looking_writes_nothing(phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(phantom.rglob("*"))
    preparation = check(phantom)
    assert isinstance(preparation, Preparation) and not preparation.errors
    assert sorted(phantom.rglob("*")) == before and not list(tmp_path.iterdir())


def test_the_same_image_on_two_sides_keeps_a_dataset_from_being_made(source: Path, tmp_path: Path) -> None:
    split = tmp_path / "split.csv"
    rows = ["patient_id,split", *(f"{patient},train" for patient in PATIENTS)]
    split.write_text("\n".join(rows).replace("BB_0011,train", "BB_0011,test").replace("AA_0001,train", "AA_0001,val"))
    image, copy = (source / p / f"{p}_3.tif" for p in ("PHANTOM_AA_0004", "PHANTOM_BB_0011"))
    shutil.copy(image, copy)
    preparation = check(source, split=str(split), skip_bad=True)
    assert len(preparation.errors) == 1
    assert "the same image in test and train" in preparation.errors[0]
    assert copy.name in preparation.errors[0] and image.name in preparation.errors[0]
    with pytest.raises(InputError, match="the same image"):
        write_dataset(preparation, tmp_path / "dataset")
    split.write_text(split.read_text().replace("BB_0011,test", "BB_0011,train"))
    within = check(source, split=str(split))
    assert not within.errors
    assert any("the same image in several patients" in warning for warning in within.info.warnings)


def test_images_of_unlike_channels_keep_a_dataset_from_being_made(source: Path, tmp_path: Path) -> None:
    name = "PHANTOM_AA_0001_2.tif"
    write_image(source / "PHANTOM_AA_0001" / name, read_image(source / "PHANTOM_AA_0001" / name)[..., 0])
    preparation = check(source, skip_bad=True)
    assert len(preparation.errors) == 1 and name in preparation.errors[0]
    with pytest.raises(InputError, match="channels are mixed"):
        write_dataset(preparation, tmp_path / "dataset")


def test_nothing_that_can_be_read_is_an_error(source: Path) -> None:
    for image in source.rglob("*[0-9].tif"):
        image.write_bytes(b"no image")
    with pytest.raises(InputError, match=r"none of 33 slices can be read; first: .*_1\.tif: cannot be decoded"):
        check(source, skip_bad=True)


def test_a_split_that_makes_no_sense_is_told(phantom: Path) -> None:
    with pytest.raises(UsageError, match="--split"):
        check(phantom, split="lots")
    with pytest.raises(InputError, match="10 patients that are not here"):
        check(phantom, split="lgg10")


# what is warned of


def test_a_leaky_split_marks_the_dataset(phantom: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--allow-leakage"):
        check(phantom, split="slice-random")
    dataset = load_dataset(prepare(phantom, tmp_path / "dataset", split="slice-random", allow_leakage=True))
    assert dataset.info.leaky
    assert any("LEAKY" in warning for warning in dataset.info.warnings)
    assert dataset.slices["split"].value_counts().to_dict() == {"train": 23, "val": 5, "test": 5}


def test_patients_that_nobody_knows_are_warned_of_loudly(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for n in range(4):
        write_image(tmp_path / "s" / "images" / f"{n}.png", rng.integers(0, 256, (8, 10, 3), np.uint8))
        write_mask(tmp_path / "s" / "masks" / f"{n}.png", np.eye(8, 10, dtype=np.uint8))
    info = load_dataset(prepare(tmp_path / "s", tmp_path / "dataset")).info
    assert not info.patients_known and info.patients == 4
    assert any("NO SPLIT OF IT CAN GUARD AGAINST LEAKAGE" in warning for warning in info.warnings)


def test_a_flat_folder_in_lgg_layout_is_warned_of_as_loudly(phantom: Path, tmp_path: Path) -> None:
    """One patient's own folder given as the source: its slices must not pass for patients in silence."""
    info = check(phantom / "PHANTOM_AA_0004").info
    assert info.layout == "lgg" and not info.patients_known
    assert any("NO SPLIT" in warning for warning in info.warnings)


def test_copied_channels_blank_slices_and_nested_copies_are_in_dataset_json(source: Path, tmp_path: Path) -> None:
    write_image(source / "PHANTOM_AA_0001" / "PHANTOM_AA_0001_1.tif", np.zeros((40, 56, 3), np.uint8))
    for path in (source / "PHANTOM_BB_0005").glob("*[0-9].tif"):
        image = read_image(path)
        image[..., 2] = image[..., 1]
        write_image(path, image)
    shutil.copytree(source / "PHANTOM_AA_0004", source / "once" / "more" / "PHANTOM_AA_0004")
    info = load_dataset(prepare(source, tmp_path / "dataset")).info
    told = "\n".join(info.warnings)
    assert info.slices == 33
    assert "14 files a second time" in told
    assert "1 blank image: PHANTOM_AA_0001/PHANTOM_AA_0001_1.tif" in told
    assert "channels 1 and 2 are the same in" in told and "PHANTOM_BB_0005" in told


# what is told on the way


@pytest.mark.parametrize("workers", [1, 3])
def test_progress_is_told_to_the_end(phantom: Path, tmp_path: Path, workers: int) -> None:
    told: list[tuple[int, int, str]] = []
    progress: Callable[[int, int, str], None] = lambda *now: told.append(now)  # noqa: E731
    preparation = check(phantom, workers=workers, progress=progress)
    write_dataset(preparation, tmp_path / "dataset", workers=workers, progress=progress)
    steps = range(1, 34)
    assert told == [(n, 33, "checking slices") for n in steps] + [(n, 33, "writing slices") for n in steps]


def test_the_summary_adds_up(phantom: Path) -> None:
    slices = check(phantom).slices
    table = summarise_splits(slices)
    assert table["split"].tolist() == ["train", "val", "test"]
    assert table[["patients", "slices"]].sum().tolist() == [6, 33]
    assert table["with_tumour"].sum() == 5
    assert table["tumour_slices"].sum() == (slices["tumour_px"] > 0).sum()
    assert table["tumour_px"].sum() == slices["tumour_px"].sum()


def test_the_summary_of_folds_counts_as_a_person_does_and_has_no_median_of_nothing() -> None:
    rows = [(f"p{k}", f"fold-{k}", pixels) for k in (10, 0, 2) for pixels in (0, 10 * k)]
    table = summarise_splits(pd.DataFrame(rows, columns=["patient_id", "split", "tumour_px"]))
    assert table["split"].tolist() == ["fold-0", "fold-2", "fold-10"]
    np.testing.assert_array_equal(table["median_tumour_px"], [np.nan, 20, 100])
    assert table["with_tumour"].tolist() == [0, 1, 1]
