"""brainseg eval: where the report goes, what is printed, and what is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brainseg_cli.data.phantom import patient_name
from brainseg_cli.io.images import write_mask
from brainseg_cli.metrics.aggregate import DEFINITIONS

Program = Callable[..., Any]
FILES = ["patients.csv", "slices.csv", "summary.json"]


@pytest.fixture
def copied(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "copied"))


def test_a_run_is_measured_into_its_report(brainseg: Program, copied: Path) -> None:
    for _ in range(2):  # its own report is made anew each time
        ended = brainseg("eval", copied, "--device", "cpu")
        assert (ended.code, ended.out) == (0, f"{copied / 'report'}\n")
    assert sorted(path.name for path in (copied / "report").iterdir()) == FILES
    for name in DEFINITIONS:
        assert name in ended.err
    assert "test split: 2 patients (1 with tumour), 12 slices" in ended.err and "finding nothing" in ended.err


def test_another_split_has_a_report_of_its_own(brainseg: Program, copied: Path) -> None:
    ended = brainseg("eval", copied, "--split", "val", "--device", "cpu", "--quiet")
    assert (ended.code, ended.out) == (0, f"{copied / 'report-val'}\n")
    assert "chosen on" in ended.err and not (copied / "report").exists()


def test_the_result_as_one_json_object(brainseg: Program, copied: Path, dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "elsewhere"
    arguments = ["eval", copied, "--data", dataset, "-o", out, "--device", "cpu", "--threshold", "0.4", "--json"]
    ended = brainseg(*arguments)
    shown = json.loads(ended.out)
    assert ended.code == 0 and shown.pop("report") == str(out)
    assert shown == json.loads((out / "summary.json").read_text()) and shown["threshold"] == 0.4
    refused = brainseg(*arguments)
    assert refused.code == 1 and "--overwrite" in refused.err and refused.out == ""
    assert brainseg(*arguments, "--overwrite").code == 0


def test_two_folders(
    brainseg: Program, phantom: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name = patient_name(0)
    shutil.copytree(phantom / name, tmp_path / "reference" / name)
    arguments = ["eval", "--reference", "reference", "--prediction", "reference"]
    ended = brainseg(*arguments)
    assert (ended.code, ended.out) == (0, "report\n")
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == FILES
    assert brainseg(*arguments).code == 1
    write_mask(tmp_path / "reference" / name / f"{name}_99_mask.png", np.eye(5, dtype=np.uint8))
    arguments[-1] = str(phantom)
    lacking = brainseg(*arguments, "--overwrite")
    assert lacking.code == 1 and f"{name}_99" in lacking.err and len(lacking.err.splitlines()) == 1


def test_the_patients_of_a_run(brainseg: Program, phantom: Path, run: Path, tmp_path: Path) -> None:
    arguments = ["eval", "--reference", phantom, "--prediction", phantom, "--patients", run / "split.csv", "--json"]
    ended = brainseg(*arguments, "-o", tmp_path / "test")
    assert ended.code == 0 and json.loads(ended.out)["counted"]["slices"] == 12
    ended = brainseg(*arguments, "-o", tmp_path / "val", "--split", "val", "--batch-size", "3")
    counted = json.loads(ended.out)["counted"]
    assert (counted["slices"], counted["batches"], counted["batch_size"]) == (8, 3, 3)
    assert "val split" in ended.err and "25 predictions have no reference" in ended.err
