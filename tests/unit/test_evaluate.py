"""eval: the same numbers whichever way they are asked for, and nothing missing passed over."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from brainseg_cli import prepare
from brainseg_cli.data.phantom import patient_name
from brainseg_cli.errors import InputError, OutputExistsError, UsageError
from brainseg_cli.evaluate import Evaluation, evaluate_folders, evaluate_run, write_report
from brainseg_cli.io.images import read_mask, write_image, write_mask
from brainseg_cli.metrics.aggregate import DEFINITIONS
from brainseg_cli.predict import plan
from brainseg_cli.training.run_folder import RunFolder

SOFT = {"dice_batch_soft", "iou_batch_soft"}
TEST_PATIENTS = [patient_name(2), patient_name(10)]


@pytest.fixture(scope="module")
def tested(run: Path) -> Evaluation:
    return evaluate_run(run, device_name="cpu")


@pytest.fixture(scope="module")
def masks(run: Path, phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """predict, on the files that the dataset was made of."""
    folder = tmp_path_factory.mktemp("predicted")
    for name in TEST_PATIENTS:
        records = list(plan([str(phantom / name)], run, folder / name, device_name="cpu", batch_size=5).run())
        assert all(record["status"] == "ok" for record in records)
    return folder


@pytest.fixture
def references(phantom: Path, tmp_path: Path) -> Path:
    """The reference masks of three patients, alone: p/x.png."""
    for number in (0, 3, 10):
        for path in (phantom / patient_name(number)).glob("*_mask.tif"):
            write_mask(tmp_path / "reference" / path.parent.name / f"{path.stem[:-5]}.png", read_mask(path))
    return tmp_path / "reference"


def change(folder: Path, to: Path, how: Callable[[np.ndarray], np.ndarray]) -> Path:
    for path in folder.rglob("*.png"):
        write_mask(to / path.relative_to(folder), how(read_mask(path)))
    return to


def test_val_measured_again_is_what_training_wrote(run: Path) -> None:
    evaluation = evaluate_run(run, split="val", device_name="cpu")
    row = pd.read_csv(run / "metrics.csv").set_index("epoch").loc[evaluation.summary["epoch"]]
    metrics, counted = evaluation.summary["metrics"], evaluation.summary["counted"]
    assert metrics["dice_patient"] == pytest.approx(row["val_dice_patient"], abs=1e-12)
    assert metrics["dice_pooled"] == pytest.approx(row["val_dice"], abs=1e-12)
    assert metrics["iou_pooled"] == pytest.approx(row["val_iou"], abs=1e-12)
    assert metrics["accuracy"] == pytest.approx(row["val_accuracy"], abs=1e-12)
    assert counted["prediction_px"] == row["val_predicted_px"] > 0
    assert any("chosen on" in note for note in evaluation.summary["notes"])


def test_the_summary(tested: Evaluation, run: Path, dataset: Path) -> None:
    summary = tested.summary
    assert list(summary["metrics"]) and set(summary["metrics"]) == set(DEFINITIONS) == set(summary["definitions"])
    assert set(summary["find_nothing"]) == set(summary["metrics"])
    assert summary["split"] == "test" and summary["headline"] == "dice_patient" and summary["notes"] == []
    assert summary["counted"]["slices"] == 12 and summary["counted"]["patients"] == 2
    assert summary["counted"]["patients_with_tumour"] == 1
    assert summary["left_out"]["dice_patient"] == {"patients_without_tumour": 1}
    assert summary["threshold"] == 0.5 and summary["leaky"] is False
    assert set(tested.slices["patient_id"]) == set(TEST_PATIENTS) == set(tested.patients["patient_id"])
    assert len(tested.slices) == 12
    (with_tumour,) = tested.patients[tested.patients["reference_px"] > 0].to_dict("records")
    assert summary["metrics"]["dice_patient"] == with_tumour["dice"] > 0


def test_another_threshold_finds_less_or_more(run: Path, tested: Evaluation) -> None:
    found = [
        evaluate_run(run, threshold=threshold, device_name="cpu").summary["counted"]["prediction_px"]
        for threshold in (0.0, 0.4, 1.0)
    ]
    usual = tested.summary["counted"]["prediction_px"]
    assert found[0] == tested.summary["counted"]["pixels"] >= found[1] >= usual > found[2]


@pytest.mark.parametrize("how", ["patients", "folders"])
def test_the_masks_of_predict_give_the_numbers_of_the_run(
    tested: Evaluation, masks: Path, phantom: Path, run: Path, how: str, tmp_path: Path
) -> None:
    if how == "patients":  # RUN/split.csv says who is in the test split
        evaluation = evaluate_folders(phantom, masks, patients_from=run / "split.csv")
        assert evaluation.summary["split"] == "test"
    else:
        for name in TEST_PATIENTS:
            shutil.copytree(phantom / name, tmp_path / name)
        evaluation = evaluate_folders(tmp_path, masks)
        assert evaluation.summary["split"] is None
    ours, theirs = evaluation.summary, tested.summary
    assert ours["counted"]["prediction_px"] > 0
    for name, value in theirs["metrics"].items():
        if name not in SOFT:
            assert ours["metrics"][name] == value, name
            assert ours["find_nothing"][name] == theirs["find_nothing"][name]
    assert ours["counted"] == theirs["counted"] and ours["left_out"] == theirs["left_out"]
    columns = ["patient_id", "slice_index", "tp", "fp", "fn", "tn"]
    by = ["patient_id", "slice_index"]
    one, other = (e.slices[columns].sort_values(by).to_numpy().tolist() for e in (evaluation, tested))
    assert one == other


def test_the_reference_itself_is_perfect(references: Path) -> None:
    evaluation = evaluate_folders(references, references)
    metrics = evaluation.summary["metrics"]
    assert {name: value for name, value in metrics.items() if value != 1.0} == {}
    counted = evaluation.summary["counted"]
    assert (counted["patients"], counted["patients_with_tumour"]) == (3, 2)
    assert counted["slices"] == 5 + 7 + 8 and counted["slices_with_false_alarm"] == 0
    assert counted["slices_empty_and_empty"] == counted["slices"] - counted["slices_with_tumour"] > 0


def test_finding_nothing_scores_what_stands_beside_every_score(references: Path, tmp_path: Path) -> None:
    nothing = change(references, tmp_path / "nothing", np.zeros_like)
    summary = evaluate_folders(references, nothing).summary
    metrics, counted = summary["metrics"], summary["counted"]
    assert metrics == summary["find_nothing"]
    for name in ("dice", "iou"):
        assert metrics[f"{name}_patient"] == metrics[f"{name}_pooled"] == metrics[f"{name}_slice_tumour"] == 0
        assert metrics[f"{name}_slice_all"] == 1 - counted["slices_with_tumour"] / counted["slices"]
    assert metrics["precision"] is None and metrics["sensitivity"] == 0 and metrics["specificity"] == 1
    assert metrics["accuracy"] == 1 - counted["tumour_px"] / counted["pixels"]
    noisy = change(references, tmp_path / "noisy", lambda mask: 1 - mask)
    assert evaluate_folders(references, noisy).summary["find_nothing"] == metrics


def test_counts_by_hand(tmp_path: Path) -> None:
    reference, prediction = np.zeros((2, 10, 12), np.uint8)
    reference[2:6, 2:6] = 1  # 16 px
    prediction[2:6, 4:9] = 1  # 20 px, 8 of them right
    write_mask(tmp_path / "r" / "p" / "p_3_mask.tif", reference)
    write_mask(tmp_path / "m" / "p" / "p_3.png", prediction)
    evaluation = evaluate_folders(tmp_path / "r", tmp_path / "m")
    (row,) = evaluation.slices.to_dict("records")
    assert (row["image"], row["patient_id"], row["slice_index"]) == ("p/p_3", "p", 3)
    assert (row["tp"], row["fp"], row["fn"], row["tn"]) == (8, 12, 8, 92)
    metrics = evaluation.summary["metrics"]
    assert metrics["dice_patient"] == 16 / 36 and metrics["iou_pooled"] == 8 / 28
    assert metrics["dice_batch_soft"] == 17 / 37 and metrics["accuracy"] == 100 / 120


def test_a_missing_prediction_is_an_error_and_an_extra_one_is_said(references: Path, tmp_path: Path) -> None:
    prediction = tmp_path / "prediction"
    shutil.copytree(references, prediction)
    write_mask(prediction / "stranger" / "s_1.png", np.ones((40, 56), np.uint8))
    evaluation = evaluate_folders(references, prediction)
    (note,) = evaluation.summary["notes"]
    assert "1 predictions have no reference" in note and "stranger/s_1" in note
    assert evaluation.summary["metrics"]["dice_pooled"] == 1.0
    gone = next(path for path in prediction.rglob("*.png") if not read_mask(path).any() and path.parent.name[0] == "P")
    gone.unlink()  # even where it would hold nothing
    with pytest.raises(InputError, match="no prediction for 1 of 20 references") as caught:
        evaluate_folders(references, prediction)
    assert gone.stem in str(caught.value)


def test_masks_of_other_sizes_or_values_are_named(references: Path, tmp_path: Path) -> None:
    prediction = Path(shutil.copytree(references, tmp_path / "prediction"))
    path = next(prediction.rglob("*.png"))
    write_mask(path, np.zeros((56, 40), np.uint8))
    with pytest.raises(InputError, match="is 40x56, its reference 56x40") as caught:
        evaluate_folders(references, prediction)
    assert path.name in str(caught.value)
    write_image(path, np.full((40, 56), 7, np.uint8))
    with pytest.raises(InputError, match="not a binary mask"):
        evaluate_folders(references, prediction)
    path.write_bytes(b"broken")
    with pytest.raises(InputError, match="cannot be decoded"):
        evaluate_folders(references, prediction)


def test_a_flat_folder_says_that_patients_are_not_known(tmp_path: Path, rng: np.random.Generator) -> None:
    for number in range(4):
        write_mask(tmp_path / "r" / f"case{number % 2}_{number}_mask.png", (rng.random((9, 11)) > 0.5).astype(np.uint8))
        write_mask(tmp_path / "m" / f"case{number % 2}_{number}.png", (rng.random((9, 11)) > 0.5).astype(np.uint8))
    evaluation = evaluate_folders(tmp_path / "r", tmp_path / "m")
    assert evaluation.summary["counted"]["patients"] == 4
    assert any("patient of its own" in note for note in evaluation.summary["notes"])
    told = evaluate_folders(tmp_path / "r", tmp_path / "m", patient_regex=r"^(case\d)_")
    assert told.patients["patient_id"].tolist() == ["case0", "case1"] and told.summary["notes"] == []
    with pytest.raises(InputError, match="finds no patient"):
        evaluate_folders(tmp_path / "r", tmp_path / "m", patient_regex=r"(person\d)")
    with pytest.raises(UsageError, match="no regular expression"):
        evaluate_folders(tmp_path / "r", tmp_path / "m", patient_regex="(")


def test_one_patients_own_folder_is_one_patient(phantom: Path, tmp_path: Path) -> None:
    own = phantom / patient_name(3)
    for path in own.glob("*_mask.tif"):
        write_mask(tmp_path / "masks" / path.name, read_mask(path))
    found = evaluate_folders(own, tmp_path / "masks")
    assert found.patients["patient_id"].tolist() == [patient_name(3)] and found.summary["notes"] == []


def test_only_the_patients_of_a_table(references: Path, tmp_path: Path) -> None:
    table = tmp_path / "who.csv"
    table.write_text(f"patient_id,split\n{patient_name(0)},test\n{patient_name(3)},val\n{patient_name(10)},train\n")
    for split, slices in ((None, 5), ("test", 5), ("val", 7), ("train", 8)):
        evaluation = evaluate_folders(references, references, patients_from=table, split=split)
        assert evaluation.summary["counted"]["slices"] == slices
        assert evaluation.summary["split"] == (split or "test")
    table.write_text(f"patient_id,split\n{patient_name(0)},test\nnobody,test\n")
    with pytest.raises(InputError, match=r"1 patients .* are not there: nobody"):
        evaluate_folders(references, references, patients_from=table)
    with pytest.raises(InputError, match="names no val patient"):
        evaluate_folders(references, references, patients_from=table, split="val")
    table.write_text("patient,split\na,test\n")
    with pytest.raises(InputError, match="patient_id"):
        evaluate_folders(references, references, patients_from=table)
    with pytest.raises(InputError, match="is not there"):
        evaluate_folders(references, references, patients_from=tmp_path / "none.csv")
    with pytest.raises(UsageError, match="--patients"):
        evaluate_folders(references, references, split="test")


def test_folders_that_hold_nothing(references: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no reference mask"):
        evaluate_folders(tmp_path / "empty", references)
    with pytest.raises(InputError, match="no prediction for 20 of 20"):
        evaluate_folders(references, tmp_path / "empty")
    with pytest.raises(InputError, match="not a folder"):
        evaluate_folders(references, tmp_path / "none")


def test_the_report_is_read_back(tested: Evaluation, tmp_path: Path) -> None:
    write_report(tested, tmp_path / "report")
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == [
        "patients.csv", "slices.csv", "summary.json",
    ]  # fmt: skip
    assert json.loads((tmp_path / "report" / "summary.json").read_text()) == tested.summary
    assert len(pd.read_csv(tmp_path / "report" / "slices.csv")) == 12
    assert len(pd.read_csv(tmp_path / "report" / "patients.csv")) == 2
    with pytest.raises(OutputExistsError):
        write_report(tested, tmp_path / "report")
    write_report(tested, tmp_path / "report", overwrite=True)


@pytest.fixture
def copied(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "copied"))


def point(run: Path, **values: Any) -> None:
    info = RunFolder(run).info
    info.write_text(json.dumps(json.loads(info.read_text()) | values))


def test_a_dataset_that_is_not_the_runs(
    copied: Path, phantom: Path, split_table: Path, tmp_path: Path, dataset: Path
) -> None:
    prepare.write_dataset(prepare.check(phantom, split="50/25/25", workers=1), tmp_path / "other")
    point(copied, dataset=str(tmp_path / "other"))
    with pytest.raises(InputError, match="prepared anew"):
        evaluate_run(copied, device_name="cpu")
    said = evaluate_run(copied, dataset_path=tmp_path / "other", device_name="cpu")
    assert any("may have been trained on" in note for note in said.summary["notes"])
    assert evaluate_run(copied, dataset_path=dataset, device_name="cpu").summary["notes"] == []
    # the same names and splits, but other pixels
    source = Path(shutil.copytree(phantom, tmp_path / "changed"))
    path = next(source.rglob("*_1.tif"))
    write_image(path, np.full((40, 56, 3), 90, np.uint8) + np.arange(56, dtype=np.uint8)[:, None])
    prepare.write_dataset(prepare.check(source, split=str(split_table), workers=1), tmp_path / "altered")
    point(copied, dataset=str(tmp_path / "altered"))
    with pytest.raises(InputError, match="prepared anew"):
        evaluate_run(copied, device_name="cpu")


def test_without_test_slices_val_stands_in_and_says_so(
    copied: Path, phantom: Path, tmp_path: Path, split_table: Path
) -> None:
    table = tmp_path / "split.csv"
    table.write_text(split_table.read_text().replace(",test", ",train"))
    prepare.write_dataset(prepare.check(phantom, split=str(table), workers=1), tmp_path / "two")
    evaluation = evaluate_run(copied, dataset_path=tmp_path / "two", device_name="cpu")
    assert evaluation.summary["split"] == "val"
    assert any("no test split" in note for note in evaluation.summary["notes"])
    with pytest.raises(UsageError, match="no test slices"):
        evaluate_run(copied, dataset_path=tmp_path / "two", split="test", device_name="cpu")


def test_a_leaky_run_is_called_so(copied: Path) -> None:
    point(copied, leaky=True)
    evaluation = evaluate_run(copied, device_name="cpu")
    assert any("LEAKY" in note for note in evaluation.summary["notes"])


def test_what_is_no_run(tmp_path: Path, copied: Path) -> None:
    with pytest.raises(InputError, match="is no run"):
        evaluate_run(tmp_path / "none")
    (copied / "model" / "brainseg.json").unlink()
    with pytest.raises(InputError, match="holds no model"):
        evaluate_run(copied, device_name="cpu")
    point(copied, surprise=1)
    with pytest.raises(InputError, match="surprise"):
        evaluate_run(copied, device_name="cpu")
