"""brainseg eval: where the report goes, what is printed, which files it takes, and what is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest

from brainseg_cli.data.phantom import patient_name
from brainseg_cli.io.images import read_mask, write_mask
from brainseg_cli.metrics.measure import PIXELS
from brainseg_cli.metrics.summary import list_metrics

Program = Callable[..., Any]
FILES = ["lesions.csv", "patients.csv", "report.html", "report.md", "slices.csv", "summary.json"]


@pytest.fixture
def copied(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "copied"))


@pytest.fixture
def folders(phantom: Path, tmp_path: Path) -> list[Path | str]:
    """Two patients' references, and predictions two columns beside them: the arguments to compare them with."""
    for number in (0, 3):
        for path in (phantom / patient_name(number)).glob("*_mask.tif"):
            name = f"{path.parent.name}/{path.stem.removesuffix('_mask')}.png"
            write_mask(tmp_path / "reference" / name, read_mask(path))
            write_mask(tmp_path / "predicted" / name, np.roll(read_mask(path), 2, axis=1))
    return ["eval", "--reference", tmp_path / "reference", "--prediction", tmp_path / "predicted"]


def summary_at(folder: Path) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return summary


def test_a_run_is_measured_into_its_report(brainseg: Program, copied: Path) -> None:
    for _ in range(2):  # its own report is made anew each time
        ended = brainseg("eval", copied, "--device", "cpu")
        assert (ended.code, ended.out) == (0, f"{copied / 'report'}\n")
    assert sorted(path.name for path in (copied / "report").iterdir()) == FILES
    for name in list_metrics(PIXELS, probabilities=True):
        assert name in ended.err
    assert "test split: 2 patients (1 with tumour), 12 slices" in ended.err and "finding nothing" in ended.err
    assert f"report: {copied / 'report' / 'report.html'}" in ended.err and "warning" not in ended.err


def test_another_split_has_a_report_of_its_own(brainseg: Program, copied: Path) -> None:
    ended = brainseg("eval", copied, "--split", "val", "--device", "cpu", "--quiet")
    assert (ended.code, ended.out) == (0, f"{copied / 'report-val'}\n")
    assert "chosen on" in ended.err and not (copied / "report").exists()


def test_quiet_leaves_warnings_alone(brainseg: Program, copied: Path) -> None:
    ended = brainseg("eval", copied, "--device", "cpu", "-q")
    assert (ended.code, ended.out, ended.err) == (0, f"{copied / 'report'}\n", "")
    ended = brainseg("eval", copied, "--split", "val", "--device", "cpu", "-q")
    assert ended.code == 0 and all(line.startswith("warning: ") for line in ended.err.splitlines())


def test_verbose_adds_what_each_metric_is(brainseg: Program, copied: Path) -> None:
    ended = brainseg("eval", copied, "--device", "cpu", "-v")
    told = set(ended.err.splitlines())
    assert {f"{name}: {text}" for name, text in summary_at(copied / "report")["definitions"].items()} <= told


def test_the_result_as_one_json_object(brainseg: Program, copied: Path, dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "elsewhere"
    arguments = ["eval", copied, "--data", dataset, "-o", out, "--device", "cpu", "--threshold", "0.4", "--json"]
    ended = brainseg(*arguments)
    shown = json.loads(ended.out)
    assert ended.code == 0 and shown.pop("report") == str(out) and len(ended.out.splitlines()) == 1
    assert shown == summary_at(out) and (shown["threshold"], shown["threshold_from"]) == (0.4, "given")
    refused = brainseg(*arguments)
    assert refused.code == 1 and "--overwrite" in refused.err and refused.out == ""
    assert brainseg(*arguments, "--overwrite").code == 0


def test_what_lies_in_the_folder_is_kept(brainseg: Program, folders: list[Any], tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    assert brainseg(*folders, "-o", out).code == 0  # an empty folder is none
    (out / "letter.txt").write_text("mine")
    (out / "lesions.csv").write_text("old")
    refused = brainseg(*folders, "-o", out)
    assert refused.code == 1 and (out / "lesions.csv").read_text() == "old"
    assert brainseg(*folders, "-o", out, "--overwrite").code == 0
    assert sorted(path.name for path in out.iterdir()) == sorted([*FILES, "letter.txt"])
    assert (out / "letter.txt").read_text() == "mine" and (out / "lesions.csv").read_text() != "old"
    refused = brainseg(*folders, "-o", out / "letter.txt", "--overwrite")
    assert refused.code == 1 and "is a file, the report is a folder" in refused.err
    assert len(refused.err.splitlines()) == 1


OTHER_REPORTS: dict[str, list[object]] = {
    "threshold": ["--threshold", 0],  # 0 is a threshold as any other
    "spacing": ["--spacing", "1,1,5"],
    "tolerance": ["--tolerance", "3"],
    "batch size": ["--batch-size", "3"],
}


@pytest.mark.parametrize("options", OTHER_REPORTS.values(), ids=OTHER_REPORTS)
def test_an_option_that_changes_the_runs_own_report_needs_a_place_for_it(
    brainseg: Program, copied: Path, options: list[object]
) -> None:
    (copied / "report").mkdir()
    (copied / "report" / "summary.json").write_text("before")
    refused = brainseg("eval", copied, *options, "--device", "cpu")
    assert (refused.code, refused.out, len(refused.err.splitlines())) == (1, "", 1)
    assert "is already there" in refused.err and "--overwrite" in refused.err
    assert (copied / "report" / "summary.json").read_text() == "before"
    assert brainseg("eval", copied, *options, "--device", "cpu", "-q", "--overwrite").code == 0
    assert summary_at(copied / "report")["schema_version"] == 2


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
    assert "all references: 1 patients" in ended.err and "threshold" not in ended.err
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


def test_a_missing_prediction(brainseg: Program, folders: list[Any], tmp_path: Path) -> None:
    gone = next((tmp_path / "predicted").rglob("*.png"))
    gone.unlink()
    lacking = brainseg(*folders, "-o", tmp_path / "out")
    assert (lacking.code, lacking.out, len(lacking.err.splitlines())) == (1, "", 1)
    assert gone.stem in lacking.err and "--missing-as-empty" in lacking.err and not (tmp_path / "out").exists()
    counted = brainseg(*folders, "-o", tmp_path / "out", "--missing-as-empty")
    assert counted.code == 0 and "1 references have no prediction and count as not found" in counted.err
    assert summary_at(tmp_path / "out")["unmatched"]["references"] == [f"{gone.parent.name}/{gone.name}"]


def test_names_that_end_otherwise(brainseg: Program, folders: list[Any], tmp_path: Path) -> None:
    assert brainseg(*folders, "-o", tmp_path / "usual", "-q").code == 0
    for folder, ending in (("reference", "_gt"), ("predicted", "_out")):
        for path in list((tmp_path / folder).rglob("*.png")):
            path.rename(path.with_name(f"{path.stem}{ending}.png"))
    refused = brainseg(*folders, "-o", tmp_path / "out")
    assert refused.code == 1 and "--reference-suffix" in refused.err and len(refused.err.splitlines()) == 1
    suffixes = ["--reference-suffix", "_gt", "--prediction-suffix", "_out"]
    assert brainseg(*folders, *suffixes, "-o", tmp_path / "out", "-q").code == 0
    usual, other = (summary_at(tmp_path / name) for name in ("usual", "out"))
    assert usual["metrics"] == other["metrics"] and usual["counted"] == other["counted"]


@pytest.mark.parametrize("kind", ["png", "png16", "npy"])
def test_probability_maps(brainseg: Program, folders: list[Any], tmp_path: Path, kind: str) -> None:
    most = {"png": 255, "png16": 65535, "npy": 1}[kind]
    for path in list((tmp_path / "predicted").rglob("*.png")):
        probs = np.where(read_mask(path) == 1, 0.8, 0.2) * most
        if kind == "npy":
            np.save(path.with_suffix(".npy"), probs)
            path.unlink()
        else:
            cv2.imwrite(str(path), np.rint(probs).astype(np.uint8 if kind == "png" else np.uint16))
    refused = brainseg(*folders, "-o", tmp_path / "out")
    assert refused.code == 1 and "not a binary mask" in refused.err and "--threshold" in refused.err
    for threshold, tumour in ((0.5, "some"), (0.1, "everything"), (0.9, "nothing")):
        out = tmp_path / tumour
        assert brainseg(*folders, "--threshold", threshold, "-o", out, "-q").code == 0
        summary = summary_at(out)
        counted = summary["counted"]
        found = {"some": counted["tumour_px"], "everything": counted["pixels"], "nothing": 0}[tumour]
        assert counted["prediction_px"] == found
        assert (summary["threshold"], summary["threshold_from"]) == (threshold, "given")
    summary = summary_at(tmp_path / "some")
    wrong = 1 - summary["metrics"]["accuracy"]
    assert summary["metrics"]["brier"] == pytest.approx(0.04 * (1 - wrong) + 0.64 * wrong)
    assert summary["calibration"]["brier"] == summary["metrics"]["brier"] and summary["metrics"]["ece"] > 0.1
    in_bins = [row["mean_prob"] for row in summary["calibration"]["bins"] if row["pixels"]]
    assert in_bins == pytest.approx([0.2, 0.8])
    assert summary["at_half"]["dice_patient"] == summary["metrics"]["dice_patient"] > 0
    assert summary_at(tmp_path / "nothing")["at_half"] == summary["at_half"]


def test_images_are_shown_in_the_report(brainseg: Program, folders: list[Any], phantom: Path, tmp_path: Path) -> None:
    assert brainseg(*folders, "-o", tmp_path / "without", "-q").code == 0
    assert brainseg(*folders, "--images", phantom, "-o", tmp_path / "with", "-q").code == 0
    shown = [(tmp_path / name / "report.html").read_text().count("data:image/jpeg") for name in ("without", "with")]
    assert shown[0] == 0 < shown[1]
    refused = brainseg(*folders, "--images", tmp_path / "none", "-o", tmp_path / "out")
    assert refused.code == 1 and "is not a folder" in refused.err and not (tmp_path / "out").exists()


def test_with_a_spacing_lengths_are_millimetres(brainseg: Program, folders: list[Any], tmp_path: Path) -> None:
    options = ["--spacing", "0.94, 0.5,5", "--tolerance", "0.5", "--tolerance", "1"]
    ended = brainseg(*folders, *options, "-o", tmp_path / "out", "--json")
    summary = json.loads(ended.out)
    assert (summary["unit"], summary["spacing_mm"], summary["tolerances"]) == ("mm", [0.94, 0.5, 5.0], [0.5, 1.0])
    assert summary["metrics"]["nsd_1mm"] == 1 > summary["metrics"]["nsd_0.5mm"] > 0  # two columns are 1 mm
    assert 0.5 < summary["metrics"]["hd95_slice_mm"] <= 1
    assert "hd95_mm" in ended.err and "_px" not in ended.err
    assert {"hd95_mm", "nsd_0.5mm"} < set(pd.read_csv(tmp_path / "out" / "patients.csv"))
    for folder in ("reference", "predicted"):
        next((tmp_path / folder).rglob("*_2.png")).unlink()
    torn = brainseg(*folders, *options, "-o", tmp_path / "torn")
    assert (torn.code, len(torn.err.splitlines())) == (1, 1)
    assert "its slices are no volume" in torn.err and not (tmp_path / "torn").exists()


@pytest.mark.parametrize("arguments", [["--tolerance", 0], ["--tolerance", "0.25"]])
def test_a_tolerance_is_in_the_name(
    brainseg: Program, folders: list[Any], tmp_path: Path, arguments: list[Any]
) -> None:
    assert brainseg(*folders, *arguments, "-o", tmp_path / "out", "-q").code == 0
    metrics = summary_at(tmp_path / "out")["metrics"]
    names = {f"nsd_{arguments[1]}px", f"nsd_slice_{arguments[1]}px"}
    assert {name for name in metrics if name.startswith("nsd")} == names
    assert all(0 < metrics[name] < 1 for name in names)


RUN, BOTH = ["run"], ["--reference", "a", "--prediction", "b"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "give a RUN, or --reference DIR and --prediction DIR"),
        ([*RUN, *BOTH], "give a RUN, or"),
        ([*RUN, "--prediction", "b"], "give a RUN, or"),
        (["--prediction", "b"], "go together"),
        (["--reference", "a", "--compare", "c"], "go together"),
        (["--compare", "other"], "give a RUN"),
        ([*RUN, "--patients", "who.csv"], "--patients cannot be given with a run"),
        ([*RUN, "--patient-regex", "(.)"], "--patient-regex cannot be given with a run"),
        ([*RUN, "--missing-as-empty"], "--missing-as-empty cannot be given with a run"),
        ([*RUN, "--images", "i", "--reference-suffix", "_a"], "--images, --reference-suffix cannot be given"),
        ([*RUN, "--prediction-suffix", ""], "--prediction-suffix cannot be given with a run"),
        ([*BOTH, "--data", "d"], "--data cannot be given with two folders"),
        ([*BOTH, "--split", "val"], "--split with two folders needs --patients"),
        ([*RUN, "--by", "age"], "--by names a column of --metadata"),
        ([*RUN, "--spacing", "1,2"], "--spacing '1,2' is not ROW,COLUMN,SLICE"),
        ([*RUN, "--spacing", "1,2,3,4"], "is not ROW,COLUMN,SLICE"),
        ([*BOTH, "--spacing", "a,b,c"], "is not ROW,COLUMN,SLICE"),
        ([*BOTH, "--spacing", "1,0,1"], "is not possible"),
        ([*BOTH, "--spacing", "1,nan,1"], "is not possible"),
        ([*BOTH, "--tolerance", "inf"], "is not possible"),
        ([*BOTH, "--tolerance", "2", "--tolerance", "2"], "have one name"),
    ],
)
def test_what_does_not_go_together_is_one_line_and_2(
    brainseg: Program, arguments: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = brainseg("eval", *arguments)
    assert (ended.code, ended.out, len(ended.err.splitlines())) == (2, "", 1)
    assert told in ended.err and list(tmp_path.iterdir()) == []
