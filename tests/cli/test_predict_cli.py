"""brainseg predict: one JSON line a slice, exit codes, and nothing written over."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brainseg_cli.data.phantom import patient_name
from brainseg_cli.io.images import read_mask, write_image

Program = Callable[..., Any]
FIELDS = [
    "image", "mask", "patient_id", "slice_index", "tumour", "area_px", "area_mm2", "max_prob", "seconds", "status",
]  # fmt: skip


@pytest.fixture
def images(tmp_path: Path, rng: np.random.Generator) -> Path:
    """Three images, s_2 before s_10."""
    for number in (1, 2, 10):
        write_image(tmp_path / "in" / f"s_{number}.png", rng.integers(0, 256, (24, 30, 3), dtype=np.uint8))
    return tmp_path / "in"


def test_one_json_line_a_slice(brainseg: Program, run: Path, phantom: Path, tmp_path: Path) -> None:
    out = tmp_path / "masks"
    ended = brainseg("predict", phantom, "-m", run, "-o", out, "--device", "cpu")
    assert ended.code == 0 and "33 of 33 masks" in ended.err
    lines = ended.out.splitlines()
    assert (out / "predictions.jsonl").read_text().splitlines() == lines and len(lines) == 33
    for line in lines:
        record = json.loads(line)
        assert list(record) == FIELDS
        assert read_mask(Path(record["mask"])).sum() == record["area_px"]
    assert '"area_mm2": null' in lines[0] and json.loads(lines[0])["patient_id"] == patient_name(0)


def test_the_order_is_a_persons(brainseg: Program, run: Path, images: Path, tmp_path: Path) -> None:
    ended = brainseg("predict", images, "-m", run / "model", "-o", tmp_path / "out", "-q", "--batch-size", "2")
    records = [json.loads(line) for line in ended.out.splitlines()]
    assert (ended.code, ended.err) == (0, "")
    assert [record["slice_index"] for record in records] == [1, 2, 10]
    assert {record["patient_id"] for record in records} == {None}


def test_the_model_may_be_named_by_the_environment(
    brainseg: Program, run: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BRAINSEG_MODEL", str(run))
    monkeypatch.chdir(tmp_path)
    ended = brainseg("predict", "in/s_1.png", "--format", "tiff", "-v")
    assert ended.code == 0 and json.loads(ended.out)["mask"] == str(Path("masks", "s_1.tif"))
    assert "threshold" in ended.err


def test_one_bad_file_ends_in_3_with_the_rest_done(brainseg: Program, run: Path, images: Path, tmp_path: Path) -> None:
    (images / "s_2.png").write_bytes(b"broken")
    ended = brainseg("predict", images, "-m", run, "-o", tmp_path / "out", "--device", "cpu")
    records = [json.loads(line) for line in ended.out.splitlines()]
    assert ended.code == 3 and [record["status"] for record in records] == ["ok", "failed", "ok"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["predictions.jsonl", "s_1.png", "s_10.png"]
    (told,) = [line for line in ended.err.splitlines() if line.startswith("error: ")]
    assert told.count("s_2.png") == 1 and "2 of 3 masks" in ended.err
    assert (tmp_path / "out" / "predictions.jsonl").read_text() == ended.out


def test_nothing_but_bad_files_ends_in_1(brainseg: Program, run: Path, images: Path, tmp_path: Path) -> None:
    for path in images.iterdir():
        path.write_bytes(b"broken")
    ended = brainseg("predict", images, "-m", run, "-o", tmp_path / "out", "--device", "cpu")
    assert ended.code == 1 and len(ended.out.splitlines()) == 3 and "0 of 3 masks" in ended.err


def test_nothing_is_written_over_unless_told(brainseg: Program, run: Path, images: Path, tmp_path: Path) -> None:
    arguments = ["predict", images / "s_1.png", "-m", run, "-o", tmp_path / "out", "--device", "cpu"]
    assert brainseg(*arguments).code == 0
    refused = brainseg(*arguments)
    assert (refused.code, refused.out) == (1, "") and "--overwrite" in refused.err
    # other masks beside these would fit, but not their record
    arguments[1] = images / "s_2.png"
    before = (tmp_path / "out" / "predictions.jsonl").read_text()
    refused = brainseg(*arguments)
    assert refused.code == 1 and "predictions.jsonl" in refused.err
    assert (tmp_path / "out" / "predictions.jsonl").read_text() == before
    assert not (tmp_path / "out" / "s_2.png").exists()
    assert brainseg(*arguments, "--overwrite").code == 0


def test_a_collision_is_refused_before_any_work(
    brainseg: Program, run: Path, images: Path, tmp_path: Path, rng: np.random.Generator
) -> None:
    write_image(images / "s_1.tif", rng.integers(0, 256, (24, 30, 3), dtype=np.uint8))
    ended = brainseg("predict", images, "-m", run, "-o", tmp_path / "out")
    assert (ended.code, ended.out) == (2, "") and "s_1.png" in ended.err and "s_1.tif" in ended.err
    assert not (tmp_path / "out").exists()
    ended = brainseg("predict", images / "s_1.png", "-m", run, "-o", images, "--overwrite")
    assert ended.code == 2 and "replace an input" in ended.err


def test_names_of_any_script(brainseg: Program, run: Path, tmp_path: Path, rng: np.random.Generator) -> None:
    name = "Åsa 患者 7/slice 1.png"
    write_image(tmp_path / "in" / name, rng.integers(0, 256, (24, 30, 3), dtype=np.uint8))
    ended = brainseg("predict", tmp_path / "in", "-m", run, "-o", tmp_path / "out", "--device", "cpu")
    record = json.loads(ended.out)
    assert "患者" in ended.out and record["patient_id"] == "Åsa 患者 7"
    assert record["mask"] == str(tmp_path / "out" / name) and Path(record["mask"]).exists()


def test_a_reader_that_leaves_ends_it_quietly(run: Path, phantom: Path, tmp_path: Path) -> None:
    command = '"$0" -m brainseg_cli predict "$1" -m "$2" -o "$3" --device cpu --batch-size 1 | head -1'
    done = subprocess.run(
        ["bash", "-c", f"{command}; echo ${{PIPESTATUS[0]}}", sys.executable, str(phantom), str(run), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"PYTHONUNBUFFERED": ""},
    )
    line, code = done.stdout.splitlines()
    assert json.loads(line)["status"] == "ok"
    assert (code, done.stderr) == ("1", "")
