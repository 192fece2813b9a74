"""The run/ folder's tables: what was written is what is read, and damage is told in one line."""

from pathlib import Path

import pytest

from brainseg_cli.errors import InputError
from brainseg_cli.training.run_folder import RunFolder

ROWS = [
    {"threshold": 0.01, "dice_patient": 0.1 + 0.2, "dice_pooled": 1 / 3},
    {"threshold": 0.37, "dice_patient": 0.0, "dice_pooled": 5e-324},
    {"threshold": 0.99, "dice_patient": 1.0, "dice_pooled": 0.9999999999999999},
]


def test_thresholds_come_back_to_the_last_bit(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    assert run.read_thresholds() is None
    run.write_thresholds(ROWS)
    assert run.read_thresholds() == ROWS


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "cannot be read as a table"),
        ("threshold,dice_patient\n0.5,0.5\n", "has no column dice_pooled"),
        ("threshold,dice_patient,dice_pooled\n0.5,high,0.5\n", "no number"),
        ("threshold,dice_patient,dice_pooled\n0.5,,0.5\n", "no number"),
        ("threshold,dice_patient,dice_pooled\n0.5,inf,0.5\n", "no number"),
    ],
)
def test_a_damaged_table_is_told_in_one_line(tmp_path: Path, text: str, told: str) -> None:
    run = RunFolder(tmp_path)
    run.thresholds.write_text(text)
    with pytest.raises(InputError, match=told) as caught:
        run.read_thresholds()
    assert "thresholds.csv: " in str(caught.value) and "\n" not in str(caught.value)


def test_who_was_in_which_split(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    with pytest.raises(InputError, match=r"split\.csv: cannot be read"):
        run.read_split()
    run.split.write_text("patient_id,split\nNA,train\n007,train\nb,test\n")  # names, whatever they look like
    assert run.read_split() == {"train": {"NA", "007"}, "test": {"b"}}
    run.split.write_text("patient_id,image,split\na,a/a_1,train\na,a/a_2,test\n")  # of a leaky dataset
    assert run.read_split() == {"train": {"a"}, "test": {"a"}}
    run.split.write_text("patient,split\na,train\n")
    with pytest.raises(InputError, match="has no column patient_id"):
        run.read_split()
