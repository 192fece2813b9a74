"""Patients dealt to splits: whole, by seed, each split its part of every institution and of the tumour."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from brainseg_cli.data.splits import (
    LGG10,
    SPLITS,
    Split,
    assign_split,
    find_leaks,
    hash_split,
    resolve_fold,
)
from brainseg_cli.errors import InputError, UsageError

INSTITUTIONS = {"DU": 36, "HT": 26, "CS": 12, "FG": 6}  # about as in LGG


def make_patients() -> tuple[list[str], list[int]]:
    """A row a slice: eighty patients of three slices each, no two volumes alike, in no order."""
    rng = np.random.default_rng(7)
    names = [f"TCGA_{code}_{n:04d}_2000" for code, count in INSTITUTIONS.items() for n in range(count)]
    volumes = rng.permutation(len(names)) ** 2 * 3
    rows = [(name, volume // 3) for name, volume in zip(names, volumes.tolist(), strict=True) for _ in range(3)]
    rng.shuffle(rows)
    return [str(name) for name, _ in rows], [int(pixels) for _, pixels in rows]


PATIENTS, PIXELS = make_patients()


def split_of(patients: list[str], split: Split) -> dict[str, str]:
    assert not find_leaks(patients, split.by_row)
    return dict(zip(patients, split.by_row, strict=True))


def few(count: int) -> tuple[list[str], list[int]]:
    return [f"p{n}" for n in range(count)], [10 * n for n in range(count)]


# shares


@pytest.mark.parametrize("seed", range(5))
def test_shares_are_shares_of_patients(seed: int) -> None:
    dealt = assign_split("70/15/15", PATIENTS, PIXELS, seed=seed)
    assert (dealt.name, dealt.leaky, len(dealt.by_row)) == ("70/15/15", False, len(PATIENTS))
    counts = Counter(split_of(PATIENTS, dealt).values())
    assert counts.total() == 80
    for name, expected in zip(SPLITS, (56, 12, 12), strict=True):
        assert abs(counts[name] - expected) <= 2


@pytest.mark.parametrize("seed", range(5))
def test_every_split_has_its_part_of_every_institution(seed: int) -> None:
    of_patient = split_of(PATIENTS, assign_split("70/15/15", PATIENTS, PIXELS, seed=seed))
    for name, share in zip(SPLITS, (0.7, 0.15, 0.15), strict=True):
        for code, count in INSTITUTIONS.items():
            mine = sum(f"_{code}_" in patient for patient, split in of_patient.items() if split == name)
            assert abs(mine - share * count) <= 2.5


def test_tumour_volumes_differ_less_between_splits_than_by_chance() -> None:
    volumes: Counter[str] = Counter()
    for patient, pixels in zip(PATIENTS, PIXELS, strict=True):
        volumes[patient] += pixels
    rng = np.random.default_rng(0)
    dealt, by_chance = [], []
    for seed in range(60):
        of_patient = split_of(PATIENTS, assign_split("70/15/15", PATIENTS, PIXELS, seed=seed))
        mine = [volumes[patient] for patient, split in of_patient.items() if split == "test"]
        dealt.append(np.mean(mine))
        by_chance.append(np.mean(rng.choice(list(volumes.values()), len(mine), replace=False)))
    assert np.std(dealt) < 0.8 * np.std(by_chance)


def test_volumes_are_spread_evenly_where_there_is_no_institution() -> None:
    patients, pixels = few(90)  # the volume grows with the number
    by_row = assign_split("70/15/15", patients, pixels).by_row
    for start in (0, 30, 60):
        counts = Counter(by_row[start : start + 30])
        for name, share in (("train", 0.7), ("val", 0.15), ("test", 0.15)):
            assert abs(counts[name] - share * 30) <= 2


@pytest.mark.parametrize(
    ("spec", "expected"),
    [("7/1.5/1.5", (70, 15, 15)), ("80/20/0", (80, 20, 0)), ("0/0/100", (0, 0, 100)), ("1/1/1", (34, 33, 33))],
)
def test_shares_are_relative_and_may_be_nothing(spec: str, expected: tuple[int, int, int]) -> None:
    patients, pixels = few(100)
    counts = Counter(assign_split(spec, patients, pixels).by_row)
    for name, wanted in zip(SPLITS, expected, strict=True):
        assert counts[name] == 0 if wanted == 0 else abs(counts[name] - wanted) <= 2


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("count", [3, 4, 5])
def test_of_few_patients_every_split_still_has_one(count: int, seed: int) -> None:
    patients, pixels = few(count)
    assert set(assign_split("98/1/1", patients, pixels, seed=seed).by_row) == set(SPLITS)


def test_fewer_patients_than_splits_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="at least 3 patients, there are 2"):
        assign_split("70/15/15", ["a", "b", "b"], [1, 2, 3])
    with pytest.raises(UsageError, match="at least 5 patients, there are 4"):
        assign_split("kfold:5", *few(4))
    with pytest.raises(UsageError, match="leaves nobody"):
        assign_split("0/0/0", *few(4))


@pytest.mark.parametrize(
    "spec", ["", "70/30", "70/15/15/0", "a/b/c", "-70/15/15", "kfold:", "kfold:2", "kfold:x", "lgg", "table.tsv"]
)
def test_what_is_no_split_is_a_usage_error_that_names_it(spec: str) -> None:
    with pytest.raises(UsageError, match="--split"):
        assign_split(spec, *few(9))


# folds


def test_folds_are_of_equal_size_and_by_patient() -> None:
    counts = Counter(split_of(PATIENTS, assign_split("kfold:5", PATIENTS, PIXELS, seed=3)).values())
    assert set(counts) == {f"fold-{k}" for k in range(5)}
    assert max(counts.values()) - min(counts.values()) <= 1


def test_a_fold_gives_each_its_role() -> None:
    by_row = [f"fold-{k}" for k in (0, 1, 2, 11, 10, 3, 4, 5, 6, 7, 8, 9, 0)]
    for fold in range(12):
        roles = resolve_fold(by_row, fold)
        for name, role in zip(by_row, roles, strict=True):
            expected = {fold: "test", (fold + 1) % 12: "val"}.get(int(name[5:]), "train")
            assert role == expected


def test_without_val_all_but_the_tested_fold_are_trained_on() -> None:
    by_row = ["fold-1", "fold-0", "fold-2", "fold-1"]
    assert resolve_fold(by_row, 1, val=False) == ["test", "train", "train", "test"]
    assert resolve_fold(by_row, 2, val=False) == ["train", "train", "test", "train"]


def test_over_all_folds_every_patient_is_tested_once() -> None:
    by_row = assign_split("kfold:4", *few(13)).by_row
    tested = [row for fold in range(4) for row, role in enumerate(resolve_fold(by_row, fold)) if role == "test"]
    assert sorted(tested) == list(range(13))


@pytest.mark.parametrize("fold", [None, -1, 3])
def test_a_fold_that_is_missing_or_too_many_is_a_usage_error(fold: int | None) -> None:
    with pytest.raises(UsageError, match=r"has 3 folds.*--fold 0 to 2"):
        resolve_fold(["fold-0", "fold-1", "fold-2"], fold)


def test_without_folds_nothing_is_resolved_and_a_fold_is_refused() -> None:
    assert resolve_fold(["train", "test", "val"], None) == ["train", "test", "val"]
    with pytest.raises(UsageError, match="--fold"):
        resolve_fold(["train", "test", "val"], 0)


# lgg10


def test_lgg10_tests_on_the_ten_and_deals_the_others() -> None:
    patients = PATIENTS + list(LGG10)
    of_patient = split_of(patients, assign_split("lgg10", patients, PIXELS + [5] * len(LGG10)))
    assert {patient for patient, split in of_patient.items() if split == "test"} == set(LGG10)
    counts = Counter(of_patient.values())
    assert abs(counts["val"] - 12) <= 2 and counts["train"] + counts["val"] == 80


def test_lgg10_names_the_patients_it_lacks() -> None:
    here = PATIENTS + list(LGG10[2:])
    with pytest.raises(InputError, match="needs 2 patients that are not here") as caught:
        assign_split("lgg10", here, [1] * len(here))
    assert all(name in str(caught.value) for name in LGG10[:2])
    assert not any(name in str(caught.value) for name in LGG10[2:])


# a table


def write_table(tmp_path: Path, text: str) -> str:
    (tmp_path / "split.csv").write_text(text)
    return str(tmp_path / "split.csv")


def test_a_table_is_followed(tmp_path: Path) -> None:
    spec = write_table(tmp_path, "split,note,patient_id\ntest,x,007\ntrain,y,NA\nval,,b\ntrain,,who is not here\n")
    dealt = assign_split(spec, ["NA", "007", "b", "NA"], [1, 0, 2, 3])
    assert (dealt.by_row, dealt.name, dealt.leaky) == (["train", "test", "val", "train"], spec, False)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("patient_id,split\na,train\n", "leaves out 1 patients: b"),
        ("patient_id,split\na,train\nb,holdout\n", "has splits 'holdout'"),
        ("patient_id,split\na,train\nb,\n", "has splits ''"),
        ("patient_id,split\na,train\nb,test\na,val\n", "more than once: a"),
        ("patient,split\na,train\nb,test\n", "needs columns patient_id and split, has patient, split"),
        ("patient_id;split\na;train\nb;test\n", "needs columns patient_id and split"),
        ("", "cannot be read as CSV"),
        ('patient_id,split\na,"train\nb,test\n', "cannot be read as CSV"),
        ("patient_id,split\na,train\nb,test,x,y\n", "cannot be read as CSV"),
    ],
)
def test_a_table_that_does_not_fit_is_named_with_its_fault(tmp_path: Path, text: str, told: str) -> None:
    spec = write_table(tmp_path, text)
    with pytest.raises(InputError) as caught:
        assign_split(spec, ["a", "b"], [1, 2])
    assert told in str(caught.value) and str(caught.value).startswith(spec)
    assert "\n" not in str(caught.value)


def test_a_table_that_is_not_there_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not there"):
        assign_split(str(tmp_path / "absent.csv"), ["a"], [1])
    (tmp_path / "bytes.csv").write_bytes(b"patient_id,split\n\xff\xfe,train\n")
    with pytest.raises(InputError, match="cannot be read as CSV"):
        assign_split(str(tmp_path / "bytes.csv"), ["a"], [1])
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(InputError, match="cannot be read as CSV"):
        assign_split(str(tmp_path / "folder.csv"), ["a"], [1])


# slices at random


def test_slices_at_random_only_where_leakage_is_accepted() -> None:
    with pytest.raises(UsageError, match="--allow-leakage"):
        assign_split("slice-random", PATIENTS, PIXELS)
    dealt = assign_split("slice-random", PATIENTS, PIXELS, allow_leakage=True)
    assert dealt.leaky
    assert Counter(dealt.by_row) == {"train": 168, "val": 36, "test": 36}
    assert len(find_leaks(PATIENTS, dealt.by_row)) > 20


def test_accepting_leakage_alone_makes_nothing_leaky() -> None:
    dealt = assign_split("70/15/15", PATIENTS, PIXELS, allow_leakage=True)
    assert not dealt.leaky and not find_leaks(PATIENTS, dealt.by_row)


# the same, and not the same


@pytest.mark.parametrize("spec", ["70/15/15", "kfold:4", "slice-random"])
def test_the_seed_decides(spec: str) -> None:
    def deal(seed: int) -> list[str]:
        return assign_split(spec, PATIENTS, PIXELS, seed=seed, allow_leakage=True).by_row

    assert deal(4) == deal(4)
    assert len({tuple(deal(seed)) for seed in range(4)}) == 4


@pytest.mark.parametrize("spec", ["70/15/15", "kfold:4"])
def test_the_order_of_slices_does_not(spec: str) -> None:
    dealt = split_of(PATIENTS, assign_split(spec, PATIENTS, PIXELS))
    assert split_of(PATIENTS[::-1], assign_split(spec, PATIENTS[::-1], PIXELS[::-1])) == dealt


def test_nor_does_the_interpreters_hash_seed() -> None:
    code = (
        "from brainseg_cli.data.splits import *\n"
        "p = [f'X_{n % 3}_{n}' for n in range(40)]\n"
        "print([hash_split(p, assign_split(s, p, range(40), allow_leakage=True).by_row)"
        " for s in ('70/15/15', 'kfold:5', 'slice-random')])"
    )
    told = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1")
    }
    assert len(told) == 1 and len(told.pop()) > 50


def test_the_hash_is_of_who_is_where_in_any_order() -> None:
    keys, splits = ["a", "b", "c"], ["train", "val", "test"]
    one = hash_split(keys, splits)
    assert len(one) == 16 and int(one, 16) >= 0
    assert hash_split(keys[::-1], splits[::-1]) == one
    assert hash_split(keys, ["val", "train", "test"]) != one
    assert hash_split(["a", "b", "d"], splits) != one


def test_leaks_are_patients_on_two_sides() -> None:
    assert find_leaks(["a", "b", "a", "c", "b"], ["train", "val", "test", "test", "val"]) == ["a"]
    assert find_leaks([], []) == []
