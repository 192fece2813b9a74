"""The real patients and the table that comes with them."""

import csv
from collections import Counter
from pathlib import Path

import pytest

from brainseg_cli.data.groups import group_by_institution, read_metadata

pytestmark = pytest.mark.lgg

WHOLE_SET = {"DU": 45, "HT": 34, "CS": 16, "FG": 14, "EZ": 1}


@pytest.fixture(scope="module")
def patients(lgg: Path) -> list[str]:
    return sorted(path.name for path in lgg.iterdir() if path.is_dir())


def test_institutions(patients: list[str]) -> None:
    groups = group_by_institution(patients)
    assert groups is not None and groups.keys() == set(patients)
    counted = Counter(groups.values())
    assert counted.keys() <= WHOLE_SET.keys() and all(counted[label] <= WHOLE_SET[label] for label in counted)
    assert all(f"TCGA_{label}_" in patient for patient, label in groups.items())


def test_every_patient_has_its_row(lgg: Path, patients: list[str]) -> None:
    groups, notes = read_metadata(lgg / "data.csv", patients)
    with (lgg / "data.csv").open(newline="") as file:
        rows = {row["Patient"]: row for row in csv.DictReader(file)}
    assert not [note for note in notes if "no row" in note]
    assert {"gender", "neoplasm_histologic_grade", "histological_type", "RNASeqCluster"} <= groups.keys()
    for name in ("gender", "neoplasm_histologic_grade", "RNASeqCluster", "death01"):
        expected = {patient: rows[patient.rpartition("_")[0]][name] for patient in patients}
        assert groups[name] == {patient: value for patient, value in expected.items() if value}


def test_ages_are_three_ranges_that_do_not_overlap(lgg: Path, patients: list[str]) -> None:
    groups, notes = read_metadata(lgg / "data.csv", patients, ["age_at_initial_pathologic"])
    ages = groups["age_at_initial_pathologic"]
    counted = Counter(ages.values())
    assert [label.partition(" ")[0] for label in dict.fromkeys(ages.values())] == ["low", "middle", "high"]
    assert max(counted.values()) - min(counted.values()) <= 8  # people of one age are not parted
    bounds = [float(end) for label in dict.fromkeys(ages.values()) for end in label.partition("(")[2][:-1].split("-")]
    assert bounds == sorted(bounds)
    assert len(ages) == len(patients) or "age_at_initial_pathologic" in notes[0]
