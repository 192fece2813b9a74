"""brainseg prepare: exit codes, what goes to stdout, what to stderr, and what is made."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from brainseg_cli.data.manifest import load_dataset
from brainseg_cli.data.phantom import write_phantom

SCRIPT = Path(sys.executable).with_name("brainseg")
FILES = ["dataset.json", "images.npy", "masks.npy", "slices.csv"]

Brainseg = Callable[..., Any]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is written without a place of its own lands below tmp_path."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


@pytest.fixture
def source(phantom: Path, tmp_path: Path) -> Path:
    """A copy of the phantom that may be damaged."""
    return Path(shutil.copytree(phantom, tmp_path / "source"))


@pytest.fixture
def damaged(source: Path) -> Path:
    """With an unreadable slice, and one without its mask."""
    (source / "PHANTOM_AA_0001" / "PHANTOM_AA_0001_2.tif").write_bytes(b"no image")
    (source / "PHANTOM_AA_0004" / "PHANTOM_AA_0004_4_mask.tif").unlink()
    return source


def listed(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# the installed script


def run(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("BRAINSEG_", "FORCE_"))}
    return subprocess.run(
        [SCRIPT, *map(str, arguments)], cwd=cwd, env=environment, capture_output=True, text=True, timeout=120
    )


def test_the_script_prints_the_path_alone_and_the_table_beside_it(phantom: Path, tmp_path: Path) -> None:
    done = run("prepare", phantom, "-o", "out/dataset", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "out/dataset\n")
    assert "6 patients, 33 slices" in done.stderr and "median tumour px" in done.stderr
    for split in ("train", "val", "test"):
        assert split in done.stderr
    assert "\x1b" not in done.stderr  # no bars, no colours
    assert listed(tmp_path / "out" / "dataset") == FILES


def test_the_script_names_each_fault_in_a_line_without_a_traceback(damaged: Path, tmp_path: Path) -> None:
    done = run("prepare", damaged, "-o", "dataset", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "PHANTOM_AA_0001_2.tif: cannot be decoded" in errors[0]
    assert "PHANTOM_AA_0004_4.tif: has no partner" in errors[1]
    assert "2 problems" in errors[2] and "--skip-bad" in errors[2]
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "dataset").exists()


def test_the_script_ends_with_2_for_what_makes_no_sense(tmp_path: Path) -> None:
    done = run("prepare", "--no-such-option", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "no-such-option" in done.stderr and "Traceback" not in done.stderr


# what is made


def test_by_default_the_dataset_lies_in_data_under_the_sources_name(brainseg: Brainseg, phantom: Path) -> None:
    done = brainseg("prepare", phantom)
    assert (done.code, done.out) == (0, f"data/{phantom.name}\n")
    assert listed(Path("data") / phantom.name) == FILES


def test_a_zip_gives_its_name_without_the_ending(brainseg: Brainseg, phantom: Path, tmp_path: Path) -> None:
    path = tmp_path / "scans.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in phantom.rglob("*.tif"):
            for top in ("kaggle_3m", "lgg-mri-segmentation/kaggle_3m"):
                archive.write(file, f"{top}/{file.relative_to(phantom)}")
    done = brainseg("prepare", path)
    assert (done.code, done.out) == (0, "data/scans\n")
    assert "warning: the source holds 66 files a second time" in done.err
    assert load_dataset(Path("data/scans")).info.slices == 33


def test_json_is_one_object_and_all_of_stdout(brainseg: Brainseg, phantom: Path, tmp_path: Path) -> None:
    out = tmp_path / "dataset"
    done = brainseg("prepare", phantom, "-o", out, "--json", "--split", "kfold:3", "--seed", 5)
    told = json.loads(done.out)
    assert done.code == 0 and done.out.count("\n") == 1
    assert (told["dataset"], told["errors"], told["split"], told["split_seed"]) == (str(out), [], "kfold:3", 5)
    assert {key: told[key] for key in json.loads((out / "dataset.json").read_text())} == json.loads(
        (out / "dataset.json").read_text()
    )


def test_quiet_leaves_warnings_and_the_path(brainseg: Brainseg, phantom: Path) -> None:
    done = brainseg("prepare", phantom, "-q")
    assert (done.code, done.out) == (0, f"data/{phantom.name}\n")
    assert all(line.startswith("warning: ") for line in done.err.splitlines())


def test_verbose_tells_of_the_channels(brainseg: Brainseg, phantom: Path) -> None:
    assert "channel FLAIR: mean=" in brainseg("prepare", phantom, "-v").err


def test_options_reach_the_dataset(brainseg: Brainseg, phantom: Path, tmp_path: Path) -> None:
    split = tmp_path / "mine.csv"
    patients = sorted(path.name for path in phantom.iterdir())
    split.write_text("patient_id,split\n" + "".join(f"{patient[-4:]},test\n" for patient in patients))
    done = brainseg("prepare", phantom, "--layout", "lgg", "--patient-regex", r"_(\d{4})/", "--split", split)
    assert done.code == 0
    dataset = load_dataset(Path("data") / phantom.name)
    assert set(dataset.slices["patient_id"]) == {patient[-4:] for patient in patients}
    assert set(dataset.slices["split"]) == {"test"}


def test_a_leaky_split_needs_to_be_accepted_and_is_named_in_the_table(brainseg: Brainseg, phantom: Path) -> None:
    refused = brainseg("prepare", phantom, "--split", "slice-random")
    assert (refused.code, refused.out) == (2, "") and "--allow-leakage" in refused.err
    accepted = brainseg("prepare", phantom, "--split", "slice-random", "--allow-leakage")
    assert accepted.code == 0 and "LEAKY)" in accepted.err and "warning: LEAKY by choice" in accepted.err
    assert load_dataset(Path("data") / phantom.name).info.leaky


def test_the_phantom_is_made_and_prepared(brainseg: Brainseg, monkeypatch: pytest.MonkeyPatch) -> None:
    from brainseg_cli.data import phantom

    def write_small(folder: Path, **options: Any) -> None:
        write_phantom(folder, patients=6, slices=(3, 4), height=24, width=32, **options)

    monkeypatch.setattr(phantom, "write_phantom", write_small)
    done = brainseg("prepare", "--demo")
    assert (done.code, done.out) == (0, "data/demo/dataset\n")
    assert load_dataset(Path("data/demo/dataset")).info.patients == 6
    again = brainseg("prepare", "--demo")
    assert (again.code, again.out) == (1, "") and "--overwrite" in again.err
    before = Path("data/demo/dataset/images.npy").read_bytes()
    assert brainseg("prepare", "--demo", "--overwrite").code == 0
    assert Path("data/demo/dataset/images.npy").read_bytes() == before
    assert listed(Path("data/demo")) == ["dataset", "phantom"]


# looking only


def test_check_writes_nothing_and_prints_nothing_on_stdout(brainseg: Brainseg, phantom: Path) -> None:
    done = brainseg("prepare", phantom, "--check")
    assert (done.code, done.out) == (0, "") and "6 patients, 33 slices" in done.err
    assert listed(Path()) == []


def test_check_names_every_problem(brainseg: Brainseg, damaged: Path) -> None:
    done = brainseg("prepare", damaged, "--check")
    assert (done.code, done.out) == (1, "")
    assert done.err.count("error: ") == 2 and "6 patients, 31 slices" in done.err
    told = json.loads(brainseg("prepare", damaged, "--check", "--json").out)
    assert told["dataset"] is None and len(told["errors"]) == 2 and told["slices"] == 31
    assert listed(Path()) == []


def test_check_may_look_at_a_source_that_has_a_dataset_already(brainseg: Brainseg, phantom: Path) -> None:
    assert brainseg("prepare", phantom).code == 0
    assert brainseg("prepare", phantom, "--check").code == 0


# in part


def test_what_is_left_out_is_named_and_ends_in_3(brainseg: Brainseg, damaged: Path) -> None:
    done = brainseg("prepare", damaged, "--skip-bad")
    assert (done.code, done.out) == (3, "data/source\n")
    assert "warning: left out: " in done.err and "PHANTOM_AA_0001_2.tif" in done.err
    assert "PHANTOM_AA_0004_4.tif" in done.err and "2 files left out" in done.err
    assert load_dataset(Path("data/source")).info.slices == 31
    assert brainseg("prepare", damaged, "--skip-bad", "--check").code == 3


# refused


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--split", "half"),
        ("--split", "kfold:9"),
        ("--layout", "nonsense"),
        ("--seed", "-1"),
        ("--workers", "many"),
        ("--patient-regex", "(("),
    ],
)
def test_what_makes_no_sense_ends_in_2(brainseg: Brainseg, phantom: Path, option: str, value: str) -> None:
    done = brainseg("prepare", phantom, option, value)
    assert (done.code, done.out) == (2, "")
    assert option in done.err and "Traceback" not in done.err
    assert listed(Path()) == []


def test_what_is_there_is_refused_or_replaced(brainseg: Brainseg, phantom: Path) -> None:
    out = Path("dataset")
    assert brainseg("prepare", phantom, "-o", out).code == 0
    first = (out / "slices.csv").read_text()
    refused = brainseg("prepare", phantom, "-o", out, "--seed", 1)
    assert (refused.code, refused.out) == (1, "") and "dataset: is already there (--overwrite" in refused.err
    assert (out / "slices.csv").read_text() == first
    assert brainseg("prepare", phantom, "-o", out, "--seed", 1, "--overwrite").code == 0
    assert (out / "slices.csv").read_text() != first
    assert listed(Path()) == ["dataset"]


@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]])
@pytest.mark.parametrize("out", ["raw", "raw/.", "../here/raw", ".", "raw/../"])
def test_a_dataset_never_replaces_its_source_or_what_holds_it(
    brainseg: Brainseg, source: Path, out: str, overwrite: list[str]
) -> None:
    source.rename("raw")
    done = brainseg("prepare", "raw", "-o", out, *overwrite)
    assert (done.code, done.out) == (2, "") and "would replace its own source" in done.err
    assert len(list(Path("raw").rglob("*.tif"))) == 66


def test_a_source_kept_in_data_is_told_where_else_to_go(brainseg: Brainseg, source: Path) -> None:
    Path("data").mkdir()
    source.rename("data/lgg")
    done = brainseg("prepare", "data/lgg")
    assert done.code == 2 and "give another -o" in done.err
    assert brainseg("prepare", "data/lgg", "-o", "data/lgg-prepared").code == 0


def test_a_source_or_the_demo_and_not_both_or_neither(brainseg: Brainseg, phantom: Path) -> None:
    for arguments in ([phantom, "--demo"], []):
        done = brainseg("prepare", *arguments)
        assert (done.code, done.out) == (2, "") and "--demo" in done.err


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda path: None, "is not there"),
        (lambda path: path.mkdir(), "holds no image"),
        (lambda path: path.write_text("no archive"), "is neither a folder nor a zip"),
        (lambda path: (path.mkdir(), (path / "a.tif").write_bytes(b"x")), "no image has its mask"),
    ],
)
def test_what_is_no_source_ends_in_1(
    brainseg: Brainseg, tmp_path: Path, make: Callable[[Path], object], told: str
) -> None:
    path = tmp_path / "what"
    make(path)
    done = brainseg("prepare", path)
    assert (done.code, done.out) == (1, "")
    assert told in done.err and done.err.startswith("error: ") and done.err.count("\n") == 1
    assert listed(Path()) == []


def test_the_environment_stands_behind_the_flag(
    brainseg: Brainseg, phantom: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BRAINSEG_SEED", "7")
    assert json.loads(brainseg("prepare", phantom, "--check", "--json").out)["split_seed"] == 7
    assert json.loads(brainseg("prepare", phantom, "--check", "--json", "--seed", 8).out)["split_seed"] == 8
