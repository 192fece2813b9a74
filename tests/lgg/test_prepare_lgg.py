"""The real slices: as many as there should be, nobody on two sides, and the archive that holds them twice."""

import re
import zipfile
from collections import Counter
from pathlib import Path

import pytest

from brainseg_cli.data.manifest import load_dataset
from brainseg_cli.data.splits import LGG10, assign_split, find_leaks
from brainseg_cli.errors import InputError
from brainseg_cli.prepare import Preparation, check, write_dataset

pytestmark = pytest.mark.lgg

SETS = {80: (2855, 985), 110: (3929, 1373)}
"""Patients: slices, and those with tumour. Of all 110, and of the 80 without those kept for a final test."""


@pytest.fixture(scope="module")
def preparation(lgg: Path) -> Preparation:
    patients = sum(path.is_dir() for path in lgg.iterdir())
    if patients not in SETS:
        pytest.skip(f"neither 80 nor 110 patients but {patients} are at {lgg}")
    return check(lgg)


def deal(preparation: Preparation, spec: str, seed: int = 0) -> dict[str, str]:
    patients = preparation.slices["patient_id"].tolist()
    split = assign_split(spec, patients, preparation.slices["tumour_px"].tolist(), seed=seed)
    assert not split.leaky and not find_leaks(patients, split.by_row)
    return dict(zip(patients, split.by_row, strict=True))


def test_every_slice_is_there_and_nothing_is_wrong(preparation: Preparation) -> None:
    info = preparation.info
    assert (info.slices, info.tumour_slices) == SETS[info.patients]
    assert (info.layout, info.patients_known, info.leaky) == ("lgg", True, False)
    assert preparation.errors == [] and preparation.skipped == 0
    table = preparation.slices
    assert (table["height"] == 256).all() and (table["width"] == 256).all()
    assert table.groupby("patient_id").size().between(20, 88).all()
    for _, slices in table.groupby("patient_id"):  # from 1 without a gap, in scan order
        assert slices["slice_index"].tolist() == list(range(1, len(slices) + 1))


def test_missing_sequences_are_named(preparation: Preparation) -> None:
    told = {
        (int(found[1]), int(found[2])): int(found[3])
        for warning in preparation.info.warnings
        if (found := re.match(r"channels (\d) and (\d) are the same in (\d+) patient", warning))
    }
    for pair, whole_set in (((0, 1), 6), ((1, 2), 10)):
        assert told[pair] == whole_set if preparation.info.patients == 110 else 0 < told[pair] <= whole_set


@pytest.mark.parametrize("spec", ["70/15/15", "kfold:5"])
@pytest.mark.parametrize("seed", range(4))
def test_nobody_is_on_two_sides_and_institutions_are_on_all(preparation: Preparation, spec: str, seed: int) -> None:
    of_patient = deal(preparation, spec, seed)
    names = Counter(of_patient.values())
    institutions = Counter(patient.split("_")[1] for patient in of_patient)
    for name, count in names.items():
        share = count / len(of_patient)
        for code, size in institutions.items():
            mine = sum(split == name and f"_{code}_" in patient for patient, split in of_patient.items())
            assert abs(mine - share * size) <= 3


def test_the_ten_public_patients(preparation: Preparation) -> None:
    here = set(preparation.slices["patient_id"])
    if missing := [patient for patient in LGG10 if patient not in here]:
        with pytest.raises(InputError) as caught:
            deal(preparation, "lgg10")
        assert all(patient in str(caught.value) for patient in missing)
    else:
        of_patient = deal(preparation, "lgg10")
        assert {patient for patient, split in of_patient.items() if split == "test"} == set(LGG10)


def test_the_archive_that_holds_everything_twice(lgg: Path, tmp_path: Path) -> None:
    """Three patients, zipped as the public archive is."""
    path = tmp_path / "archive.zip"
    patients = sorted((p for p in lgg.iterdir() if p.is_dir()), key=lambda p: (len(list(p.iterdir())), p.name))[:3]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("kaggle_3m/data.csv", "Patient,death01\n")
        for top in ("kaggle_3m", "lgg-mri-segmentation/kaggle_3m"):
            for file in (file for patient in patients for file in patient.iterdir()):
                archive.write(file, f"{top}/{file.parent.name}/{file.name}")
    files = sum(len(list(patient.iterdir())) for patient in patients)
    write_dataset(check(path, split="1/1/1"), tmp_path / "dataset")
    dataset = load_dataset(tmp_path / "dataset")
    assert (dataset.info.patients, dataset.info.slices) == (3, files // 2)
    assert dataset.info.warnings[0].startswith(f"the source holds {files} files a second time")

    folder = tmp_path / "folder"
    folder.mkdir()
    for patient in patients:
        (folder / patient.name).mkdir()
        for file in patient.iterdir():
            (folder / patient.name / file.name).symlink_to(file)
    unpacked = check(folder, split="1/1/1")
    same = ["patient_id", "slice_index", "tumour_px", "sha256", "split"]
    assert dataset.slices[same].equals(unpacked.slices[same])
    assert dataset.info.content_hash == unpacked.info.content_hash
    assert [int(dataset.mask(row).sum()) for row in range(files // 2)] == dataset.slices["tumour_px"].tolist()
