"""brainseg eval --compare, --metadata and the gates: what is said where, and the exit code it ends with."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from brainseg_cli import prepare
from brainseg_cli.config import Config
from brainseg_cli.data.phantom import patient_name
from brainseg_cli.evaluate import measure_run
from brainseg_cli.io.images import read_mask, write_mask
from brainseg_cli.models.bundle import load_bundle
from brainseg_cli.train import train

Program = Callable[..., Any]
CPU = ("--device", "cpu")
CHOSEN_HERE = "the threshold was chosen on these very slices"


class Silent:
    """Whom a training talks to in vain."""

    def on_step(self, *_: Any) -> None: ...
    def on_epoch(self, *_: Any, **__: Any) -> None: ...
    def on_message(self, *_: Any) -> None: ...


@dataclass(frozen=True)
class Rivals:
    """Runs to compare with `run`: another seed on its dataset, and two folds of the same slices."""

    seed: Path
    fold_0: Path
    fold_1: Path


@pytest.fixture(scope="module")
def rivals(
    dataset: Path, phantom: Path, tiny: Callable[..., Config], tmp_path_factory: pytest.TempPathFactory
) -> Rivals:
    folder = tmp_path_factory.mktemp("rivals")
    prepare.write_dataset(prepare.check(phantom, split="kfold:3", workers=1), folder / "folds")
    config = tiny({"train.epochs": 1, "train.seed": 5, "schedule.warmup_epochs": 0})
    train(dataset, folder / "seed", config, Silent(), device_name="cpu", workers=0)
    for fold in (0, 1):
        train(folder / "folds", folder / f"fold-{fold}", config, Silent(), device_name="cpu", workers=0, fold=fold)
    return Rivals(folder / "seed", folder / "fold-0", folder / "fold-1")


@pytest.fixture
def folders(phantom: Path, tmp_path: Path) -> list[Path | str]:
    """Three patients' references, and predictions two columns beside them: the arguments to compare them with."""
    for number in (0, 3, 10):
        for path in (phantom / patient_name(number)).glob("*_mask.tif"):
            name = f"{path.parent.name}/{path.stem.removesuffix('_mask')}.png"
            write_mask(tmp_path / "reference" / name, read_mask(path))
            write_mask(tmp_path / "predicted" / name, np.roll(read_mask(path), 2, axis=1))
            write_mask(tmp_path / "rival" / name, np.roll(read_mask(path), 5, axis=1))
    return ["eval", "--reference", tmp_path / "reference", "--prediction", tmp_path / "predicted"]


def test_a_run_against_another(brainseg: Program, run: Path, rivals: Rivals, tmp_path: Path) -> None:
    ended = brainseg("eval", run, "--compare", rivals.seed, "-o", tmp_path / "out", *CPU, "--json")
    shown = json.loads(ended.out)
    assert ended.code == 0 and shown.pop("report") == str(tmp_path / "out")
    assert shown == json.loads((tmp_path / "out" / "summary.json").read_text())
    assert f"a: {run}, b: {rivals.seed}\n" in ended.err and "LEAKY" not in ended.err
    for word in ("a - b", "a wins", "1 of 1", "Wilcoxon"):
        assert word in ended.err
    for name in ("report.html", "report.md"):
        report = (tmp_path / "out" / name).read_text()
        assert "Comparison" in report and rivals.seed.name in report and "LEAKY" not in report
    comparison = shown["comparison"]
    alone = brainseg("eval", rivals.seed, "-o", tmp_path / "alone", *CPU, "--json", "-q")
    of_other = json.loads(alone.out)["metrics"]
    assert comparison["leaky"] is False and "ece" in comparison["metrics"]
    for name, row in comparison["metrics"].items():
        assert (row["a"], row["b"]) == (shown["metrics"][name], of_other[name]), name
    assert comparison["metrics"]["brier"]["difference"] == shown["metrics"]["brier"] - of_other["brier"] != 0
    assert [row["patient_id"] for row in comparison["by_patient"]] == [patient_name(2)]


def test_a_run_against_itself(brainseg: Program, run: Path, tmp_path: Path) -> None:
    ended = brainseg("eval", run, "--compare", run, "-o", tmp_path / "out", *CPU, "--json", "-q")
    comparison = json.loads(ended.out)["comparison"]
    assert ended.code == 0 and ended.err == ""
    for name, row in comparison["metrics"].items():
        assert row["a"] == row["b"], name
        assert row["difference"] == (None if row["a"] is None else 0) and row["interval"] in (None, [0, 0])
    assert comparison["metrics"]["accuracy"]["interval"] == [0, 0]
    assert all(row["wins"] == row["losses"] == 0 for row in comparison["patients"].values())
    assert comparison["patients"]["dice_patient"]["ties"] == 1


def test_a_run_that_has_seen_the_patients_is_called_leaky(
    brainseg: Program, run: Path, rivals: Rivals, tmp_path: Path
) -> None:
    split = pd.read_csv(rivals.fold_1 / "split.csv").set_index("patient_id")["split"]
    seen = sum(split[patient_name(number)] != "test" for number in (2, 10))
    assert seen
    ended = brainseg("eval", run, "--compare", rivals.fold_1, "-o", tmp_path / "out", *CPU, "--json")
    shown = json.loads(ended.out)
    assert ended.code == 0 and shown["comparison"]["leaky"] is True and shown["leaky"] is False
    assert f"b: {rivals.fold_1} LEAKY" in ended.err
    warning = f"{rivals.fold_1}: LEAKY: the run was trained or chosen on {seen} of the patients measured here"
    assert f"warning: {warning}" in ended.err and warning in shown["notes"]
    for name in ("report.html", "report.md"):
        assert "LEAKY" in (tmp_path / "out" / name).read_text()
    assert "test split:" in ended.err  # and the run itself is not


def test_folds_are_compared_on_the_first_ones_slices(brainseg: Program, rivals: Rivals, tmp_path: Path) -> None:
    for one, other in ((rivals.fold_0, rivals.fold_1), (rivals.fold_1, rivals.fold_0)):
        out = tmp_path / one.name
        ended = brainseg("eval", one, "--compare", other, "-o", out, *CPU, "--json", "-q")
        shown = json.loads(ended.out)
        table = pd.read_csv(one / "split.csv")
        tested = set(table["patient_id"][table["split"] == "test"])
        assert ended.code == 0 and f"fold-{shown['fold']}" == one.name
        assert set(pd.read_csv(out / "slices.csv")["patient_id"]) == tested
        assert shown["comparison"]["leaky"] and not shown["leaky"]  # what one tests, the other trains or chooses on
        own = json.loads(brainseg("eval", one, "-o", tmp_path / f"{one.name}-own", *CPU, "--json", "-q").out)
        assert own["metrics"] == shown["metrics"]
    ended = brainseg("eval", rivals.fold_0, "--compare", rivals.fold_1, "--split", "val", "-o", tmp_path / "v", *CPU)
    assert ended.code == 0 and "val split" in ended.err
    # fold 1 has another val: of what was chosen on this one only fold 0 can speak
    own = measure_run(rivals.fold_0, split="val", device_name="cpu").notes
    assert own == ["the val split is not held out: the best epoch was chosen on it", CHOSEN_HERE]
    other = measure_run(rivals.fold_1, on_slices_of=rivals.fold_0, split="val", device_name="cpu")
    assert not any("not held out" in note or note == CHOSEN_HERE for note in other.notes)
    assert load_bundle(rivals.fold_1)[1].threshold_from == "val"


def test_what_cannot_be_compared(brainseg: Program, run: Path, phantom: Path, tmp_path: Path) -> None:
    for options, told in (
        (["eval", run, "--compare", phantom, *CPU], f"{phantom}: is no run"),
        (["eval", run, "--compare", tmp_path / "none", *CPU], "is no run"),
        (["eval", "--reference", phantom, "--prediction", phantom, "--compare", tmp_path / "none"], "is not a folder"),
    ):
        ended = brainseg(*options, "-o", tmp_path / "out")
        assert (ended.code, ended.out, len(ended.err.splitlines())) == (1, "", 1)
        assert told in ended.err and not (tmp_path / "out").exists()


def test_a_folder_against_another(brainseg: Program, folders: list[Any], tmp_path: Path) -> None:
    ended = brainseg(*folders, "--compare", tmp_path / "rival", "-o", tmp_path / "out", "--json")
    comparison = json.loads(ended.out)["comparison"]
    assert ended.code == 0
    assert (comparison["a"], comparison["b"]) == (str(tmp_path / "predicted"), str(tmp_path / "rival"))
    assert f"a: {tmp_path / 'predicted'}, b: {tmp_path / 'rival'}\n" in ended.err and "2 of 2" in ended.err
    dice = comparison["metrics"]["dice_patient"]
    assert dice["difference"] == dice["a"] - dice["b"] > 0 and dice["interval"][0] > 0
    assert comparison["patients"]["hd95_px"]["wins"] == 2  # less is better
    assert comparison["leaky"] is False and [row["patients"] for row in comparison["by_group"]["institution"]] == [2, 1]
    itself = brainseg(*folders, "--compare", tmp_path / "predicted", "-o", tmp_path / "itself", "--json", "-q")
    rows = json.loads(itself.out)["comparison"]["metrics"].values()
    assert {row["difference"] for row in rows} <= {0, None}
    next((tmp_path / "rival").rglob("*.png")).unlink()
    lacking = brainseg(*folders, "--compare", tmp_path / "rival", "-o", tmp_path / "lacking")
    assert lacking.code == 1 and "has no prediction for 1 of 20 references" in lacking.err


def test_the_report_of_a_comparison_is_another_one(brainseg: Program, run: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(run, tmp_path / "copied"))
    assert brainseg("eval", copied, *CPU, "-q").code == 0
    refused = brainseg("eval", copied, "--compare", run, *CPU)
    assert refused.code == 1 and "is already there" in refused.err and len(refused.err.splitlines()) == 1
    assert brainseg("eval", copied, "--compare", run, *CPU, "--overwrite", "-q").code == 0
    assert brainseg("eval", copied, *CPU, "-q").code == 0  # and its own goes over that
    assert json.loads((copied / "report" / "summary.json").read_text())["comparison"] is None


@pytest.fixture
def metadata(tmp_path: Path) -> Path:
    path = tmp_path / "who.csv"
    rows = ["Patient;sex;age;note", *(f"{patient_name(n)};{sex};{40 + n};same" for n, sex in ((0, "f"), (3, "m")))]
    path.write_text("\n".join(rows) + "\n")
    return path


def test_groups_of_a_table(brainseg: Program, folders: list[Any], metadata: Path, tmp_path: Path) -> None:
    ended = brainseg(*folders, "--metadata", metadata, "-o", tmp_path / "all", "--json")
    groups = json.loads(ended.out)["subgroups"]
    assert ended.code == 0 and set(groups) == {"institution", "sex", "age"}
    assert [(row["group"], row["patients"], row["slices"]) for row in groups["sex"]] == [("f", 1, 5), ("m", 1, 7)]
    assert "warning: who.csv: 1 of 3 patients have no row" in ended.err and "note" in ended.err
    ended = brainseg(*folders, "--metadata", metadata, "--by", "sex", "-o", tmp_path / "one", "--json")
    assert set(json.loads(ended.out)["subgroups"]) == {"institution", "sex"}
    compared = brainseg(
        *folders, "--metadata", metadata, "--compare", tmp_path / "rival", "-o", tmp_path / "both", "--json", "-q"
    )
    assert [row["group"] for row in json.loads(compared.out)["comparison"]["by_group"]["sex"]] == ["f", "m"]
    for name in ("report.html", "report.md"):
        assert "sex" in (tmp_path / "one" / name).read_text()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--by", "sexes"], "no column 'sexes'"),
        (["--by", "note"], "makes no groups"),
        (["--metadata", "none.csv"], "none.csv: is not there"),
    ],
)
def test_a_table_that_cannot_be_used(
    brainseg: Program, folders: list[Any], metadata: Path, tmp_path: Path, options: list[str], told: str
) -> None:
    ended = brainseg(*folders, "--metadata", metadata, *options, "-o", tmp_path / "out")
    assert (ended.code, ended.out, len(ended.err.splitlines())) == (1, "", 1)
    assert told in ended.err and not (tmp_path / "out").exists()


def test_gates(brainseg: Program, folders: list[Any], tmp_path: Path) -> None:
    met = ["--fail-under", "dice_patient=0.1", "--fail-over", "hd95_px=5"]
    ended = brainseg(*folders, *met, "-o", tmp_path / "met", "--json")
    assert ended.code == 0 and [gate["met"] for gate in json.loads(ended.out)["gates"]] == [True, True]
    assert ended.err.count("gate met: ") == 2

    options = [*met, "--fail-under", "iou_pooled=0.999", "--fail-over", "assd_px=0"]
    ended = brainseg(*folders, *options, "-o", tmp_path / "out", "-q")
    assert (ended.code, ended.out) == (4, f"{tmp_path / 'out'}\n")
    iou, assd = ended.err.splitlines()
    assert iou.startswith("error: gate not met: iou_pooled 0.") and iou.endswith("is under 0.999")
    assert assd.startswith("error: gate not met: assd_px ") and assd.endswith("is over 0.00")
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert [(gate["metric"], gate["met"]) for gate in summary["gates"]] == [
        ("dice_patient", True), ("iou_pooled", False), ("hd95_px", True), ("assd_px", False),
    ]  # fmt: skip
    assert "iou_pooled" in (tmp_path / "out" / "report.md").read_text()
    assert (tmp_path / "out" / "report.html").exists()
    shown = brainseg(*folders, *options, "-o", tmp_path / "json", "--json", "-q")
    assert shown.code == 4 and json.loads(shown.out)["gates"] == summary["gates"]


def test_a_metric_that_is_not_defined_meets_no_gate(brainseg: Program, phantom: Path, tmp_path: Path) -> None:
    name = patient_name(10)  # who has no tumour
    shutil.copytree(phantom / name, tmp_path / "reference" / name)
    arguments = ["eval", "--reference", tmp_path / "reference", "--prediction", tmp_path / "reference"]
    ended = brainseg(*arguments, "--fail-under", "dice_patient=0", "-o", tmp_path / "out", "-q")
    assert ended.code == 4
    assert "error: gate not met: dice_patient is not defined, 0.00 was asked for" in ended.err.splitlines()
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["metrics"]["dice_patient"] is None


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--fail-under", "dice=0.8"], "there is no metric 'dice'"),
        (["--fail-over", "hd95_mm=12"], "did you mean hd95_px?"),
        (["--fail-over", "hd95_px=12", "--spacing", "1,1,1"], "did you mean hd95_mm?"),
        (["--fail-over", "nsd_3px=1"], "there is no metric 'nsd_3px'"),
        (["--fail-over", "brier=1"], "brier needs probabilities"),
        (["--fail-under", "dice_patient"], "is not a metric and a number"),
        (["--fail-under", "dice_patient=high"], "is not a metric and a number"),
        (["--fail-over", "hd95_px=nan"], "is not a metric and a number"),
    ],
)
def test_a_gate_on_nothing_is_refused_before_anything_is_measured(
    brainseg: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = brainseg("eval", "--reference", "none", "--prediction", "none", *options)
    assert (ended.code, ended.out, len(ended.err.splitlines())) == (2, "", 1)
    assert told in ended.err


def test_gates_of_a_run(brainseg: Program, run: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(run, tmp_path / "copied"))
    for limit, code in (("1", 0), ("0", 4)):  # its own report, with a verdict
        ended = brainseg("eval", copied, "--fail-over", f"brier={limit}", *CPU, "-q")
        assert (ended.code, ended.out) == (code, f"{copied / 'report'}\n")
        (gate,) = json.loads((copied / "report" / "summary.json").read_text())["gates"]
        assert gate["met"] == (code == 0)
