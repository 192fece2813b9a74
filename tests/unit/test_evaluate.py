"""eval: the same numbers whichever way they are asked for, and nothing missing passed over."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from predicting import make, segment

from brainseg_cli import prepare
from brainseg_cli.data.manifest import load_dataset
from brainseg_cli.data.phantom import patient_name
from brainseg_cli.errors import InputError, OutputExistsError, UsageError
from brainseg_cli.evaluate import Evaluation, conclude, measure_folders, measure_run, write_report
from brainseg_cli.io.images import read_image, read_mask, write_image, write_mask
from brainseg_cli.metrics.aggregate import DEFINITIONS
from brainseg_cli.metrics.measure import PIXELS, Ruler
from brainseg_cli.metrics.summary import list_metrics
from brainseg_cli.models.bundle import load_bundle
from brainseg_cli.models.network import TorchNetwork
from brainseg_cli.models.segmenter import Segmenter
from brainseg_cli.training.measure import predict_split
from brainseg_cli.training.run_folder import RunFolder

SOFT = {"dice_batch_soft", "iou_batch_soft"}
CALIBRATION = {"ece", "brier"}
DISTANCES = {
    "hd95_px", "assd_px", "nsd_1px", "nsd_2px", "hd95_slice_px", "assd_slice_px", "nsd_slice_1px", "nsd_slice_2px",
}  # fmt: skip
LESIONS = {"lesion_sensitivity", "lesion_false_alarms_slice", "lesion_false_alarms_patient", "lesion_dice"}
TEST_PATIENTS = [patient_name(2), patient_name(10)]
FILES = ["lesions.csv", "patients.csv", "report.html", "report.md", "slices.csv", "summary.json"]


def evaluate_run(path: Path, **options: Any) -> Evaluation:
    return conclude(measure_run(path, **{"device_name": "cpu", "runtime": "torch"} | options))


def evaluate_folders(reference: Path, prediction: Path, **options: Any) -> Evaluation:
    return conclude(measure_folders(reference, prediction, **options))


@pytest.fixture(scope="module")
def tested(run: Path) -> Evaluation:
    return evaluate_run(run)


@pytest.fixture(scope="module")
def masks(run: Path, phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """predict, on the files that the dataset was made of."""
    folder = tmp_path_factory.mktemp("predicted")
    for name in TEST_PATIENTS:
        outcomes = segment(make(run, folder / name, phantom / name), batch_size=5)
        assert all(outcome.record["status"] == "ok" for outcome in outcomes)
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
    evaluation = evaluate_run(run, split="val", threshold=0.5)
    row = pd.read_csv(run / "metrics.csv").set_index("epoch").loc[evaluation.summary["epoch"]]
    metrics, counted = evaluation.summary["metrics"], evaluation.summary["counted"]
    assert metrics["dice_patient"] == pytest.approx(row["val_dice_patient"], abs=1e-12)
    assert metrics["dice_pooled"] == pytest.approx(row["val_dice"], abs=1e-12)
    assert metrics["iou_pooled"] == pytest.approx(row["val_iou"], abs=1e-12)
    assert metrics["accuracy"] == pytest.approx(row["val_accuracy"], abs=1e-12)
    assert counted["prediction_px"] == row["val_predicted_px"] > 0
    assert evaluation.summary["threshold_from"] == "given"
    assert evaluation.summary["notes"] == ["the val split is not held out: the best epoch was chosen on it"]


def test_val_at_the_stored_threshold_is_a_row_of_the_sweep(run: Path) -> None:
    evaluation = evaluate_run(run, split="val")
    summary = evaluation.summary
    sweep = pd.read_csv(run / "thresholds.csv").set_index("threshold")
    assert summary["threshold_from"] == "val"
    for threshold, metrics in ((summary["threshold"], summary["metrics"]), (0.5, summary["at_half"])):
        for name in ("dice_patient", "dice_pooled"):
            assert metrics[name] == pytest.approx(sweep.loc[threshold, name], abs=1e-12)
    assert summary["metrics"]["dice_patient"] == pytest.approx(sweep["dice_patient"].max(), abs=1e-12)
    assert summary["metrics"]["dice_patient"] >= summary["at_half"]["dice_patient"]
    shown = {row["threshold"]: (row["dice_patient"], row["dice_pooled"]) for row in summary["threshold_sweep"]}
    assert shown == {threshold: tuple(row) for threshold, row in zip(sweep.index, sweep.to_numpy(), strict=True)}
    assert "the threshold was chosen on these very slices" in summary["notes"]


def test_the_summary(tested: Evaluation, run: Path, dataset: Path) -> None:
    summary, measures = tested.summary, tested.side.measures
    assert set(summary["metrics"]) == set(DEFINITIONS) | DISTANCES | LESIONS | CALIBRATION
    assert list(summary["metrics"]) == list_metrics(PIXELS, probabilities=True)
    for beside in ("definitions", "find_nothing", "intervals"):
        assert list(summary[beside]) == list(summary["metrics"])
    assert (summary["schema_version"], summary["run"], summary["fold"]) == (2, "run", None)
    assert summary["split"] == "test" and summary["headline"] == "dice_patient" and summary["notes"] == []
    assert summary["counted"]["slices"] == 12 and summary["counted"]["patients"] == 2
    assert summary["counted"]["patients_with_tumour"] == 1
    assert summary["left_out"]["dice_patient"] == {"patients_without_tumour": 1}
    assert summary["threshold"] == load_bundle(run)[1].threshold and summary["leaky"] is False
    assert summary["configuration"]["model"]["encoder"] == "tu-test_resnet"
    assert summary["comparison"] is None and summary["gates"] == [] and summary["spacing_mm"] is None
    assert set(measures.slices["patient_id"]) == set(TEST_PATIENTS) == set(measures.patients["patient_id"])
    assert len(measures.slices) == 12
    (with_tumour,) = measures.patients[measures.patients["reference_px"] > 0].to_dict("records")
    assert summary["metrics"]["dice_patient"] == with_tumour["dice"] > 0
    assert summary["intervals"]["dice_patient"] is None  # one patient with tumour
    low, high = summary["intervals"]["accuracy"]
    assert low <= summary["metrics"]["accuracy"] <= high and low < high
    assert sum(row["pixels"] for row in summary["calibration"]["bins"]) == summary["counted"]["pixels"]
    assert summary["lesions"]["reference"] == len(measures.lesions) == measures.patients["lesions"].sum() > 0
    (institutions,) = [rows for name, rows in summary["subgroups"].items() if name == "institution"]
    assert [(row["group"], row["patients"]) for row in institutions] == [("BB", 1), ("CC", 1)]


def test_another_threshold_finds_less_or_more(run: Path, tested: Evaluation) -> None:
    thresholds = (0.0, tested.summary["threshold"], 1.0)
    found = [evaluate_run(run, threshold=each).summary["counted"]["prediction_px"] for each in thresholds]
    assert found[0] == tested.summary["counted"]["pixels"] > found[1] > found[2]
    assert found[1] == tested.summary["counted"]["prediction_px"]


@pytest.mark.parametrize("how", ["patients", "folders"])
def test_the_masks_of_predict_give_the_numbers_of_the_run(
    tested: Evaluation, masks: Path, phantom: Path, run: Path, how: str, tmp_path: Path
) -> None:
    if how == "patients":  # RUN/split.csv says who is in the test split
        evaluation = evaluate_folders(phantom, masks, patients=run / "split.csv")
        assert evaluation.summary["split"] == "test"
    else:
        for name in TEST_PATIENTS:
            shutil.copytree(phantom / name, tmp_path / name)
        evaluation = evaluate_folders(tmp_path, masks)
        assert evaluation.summary["split"] is None
    ours, theirs = evaluation.summary, tested.summary
    assert ours["counted"]["prediction_px"] > 0
    assert set(theirs["metrics"]) - set(ours["metrics"]) == CALIBRATION
    for name in set(ours["metrics"]) - SOFT:
        for beside in ("metrics", "intervals", "find_nothing"):
            assert ours[beside][name] == theirs[beside][name], name
    for part in ("counted", "left_out", "one_empty", "lesions"):
        assert ours[part] == theirs[part]
    assert ours["calibration"] is ours["at_half"] is ours["threshold"] is ours["configuration"] is None
    columns = [name for name in evaluation.side.measures.slices if name != "image" and not name.startswith("soft")]
    by = ["patient_id", "slice_index"]
    one, other = (e.side.measures.slices[columns].sort_values(by, ignore_index=True) for e in (evaluation, tested))
    assert len(columns) > 15 and one.equals(other)


@pytest.fixture(scope="module")
def probs(run: Path, dataset: Path) -> dict[str, np.ndarray]:
    """The run's probabilities of the test slices, by the slice's name without its ending."""
    opened = load_dataset(dataset)
    network, info = load_bundle(run)
    segmenter = Segmenter(TorchNetwork(network, info.preprocess, 3, torch.device("cpu")))
    names = opened.slices["image"].str.removesuffix(".tif")
    return {names[row]: found for row, found in predict_split(segmenter, opened, "test")}


def test_probability_maps_give_every_number_of_the_run(
    tested: Evaluation, probs: dict[str, np.ndarray], phantom: Path, run: Path, tmp_path: Path
) -> None:
    for name, found in probs.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        np.save(tmp_path / f"{name}.npy", found)
    threshold = load_bundle(run)[1].threshold
    summary = evaluate_folders(phantom, tmp_path, patients=run / "split.csv", threshold=threshold).summary
    for part in ("metrics", "intervals", "find_nothing", "at_half", "calibration", "lesions", "counted", "definitions"):
        assert summary[part] == tested.summary[part], part
    assert (summary["threshold"], summary["threshold_from"]) == (threshold, "given")
    assert summary["batch_soft_input"] == "probabilities" and summary["notes"] == []


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_probability_maps_of_8_and_16_bits_are_as_near_as_their_steps(
    tested: Evaluation, probs: dict[str, np.ndarray], phantom: Path, run: Path, tmp_path: Path, kind: type[Any]
) -> None:
    most = np.iinfo(kind).max
    for name, found in probs.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        assert cv2.imwrite(str(tmp_path / f"{name}.png"), np.rint(found * most).astype(kind))
    # half a step beside the model's own: no rounded probability comes to lie on another side of it
    threshold = (np.floor(tested.summary["threshold"] * most) + 0.5) / most
    ours = evaluate_folders(phantom, tmp_path, patients=run / "split.csv", threshold=threshold).summary
    theirs = evaluate_run(run, threshold=threshold).summary
    assert ours["counted"] == theirs["counted"] and ours["counted"]["prediction_px"] > 0
    assert ours["calibration"]["bins"] and set(ours["metrics"]) == set(theirs["metrics"])
    for name, value in theirs["metrics"].items():
        assert ours["metrics"][name] == pytest.approx(value, abs=1.0 / most), name


def test_masks_taken_for_probability_maps_are_said_to_be_masks(references: Path) -> None:
    told = evaluate_folders(references, references, threshold=0.5).summary
    assert any("hold 0 and 1 alone" in note for note in told["notes"]) and told["metrics"]["dice_pooled"] == 1


def test_a_faint_map_is_a_map_where_others_are(tmp_path: Path) -> None:
    faint = np.zeros((9, 11), np.uint8)
    faint[4, 4] = 1
    for name, probs in (("p/p_1", faint), ("p/p_2", np.full_like(faint, 153))):
        write_mask(tmp_path / "r" / f"{name}.png", faint)
        write_image(tmp_path / "m" / f"{name}.png", probs)
    side = measure_folders(tmp_path / "r", tmp_path / "m", threshold=0.5)
    assert side.notes == [] and side.measures.slices["tp"].tolist() == [0, 1]
    assert side.measures.slices["brier"].tolist() == pytest.approx([(254 / 255) ** 2 / 99, (98 * 0.36 + 0.16) / 99])
    (tmp_path / "m" / "p" / "p_2.png").unlink()
    with pytest.raises(InputError, match="a mask, or an all but empty probability map"):
        measure_folders(tmp_path / "r", tmp_path / "m", threshold=0.5, missing_as_empty=True)


def test_patients_whose_slices_lie_between_one_anothers(
    run: Path, dataset: Path, tested: Evaluation, tmp_path: Path
) -> None:
    mixed = Path(shutil.copytree(dataset, tmp_path / "mixed"))
    table = pd.read_csv(dataset / "slices.csv", dtype=str, na_filter=False)
    order = np.random.default_rng(3).permutation(len(table))
    table.iloc[order].to_csv(mixed / "slices.csv", index=False)
    for name in ("images.npy", "masks.npy"):
        np.save(mixed / name, np.load(dataset / name)[order])
    evaluation = evaluate_run(run, dataset_path=mixed, workers=3, verify=False)
    measures, usual = evaluation.side.measures, tested.side.measures
    owners = measures.slices["patient_id"].tolist()
    assert owners != sorted(owners) and owners != sorted(owners, reverse=True)
    assert measures.slices["image"].tolist() == [
        name for name in table["image"].iloc[order] if name in set(usual.slices["image"])
    ]
    by_name = measures.slices.set_index("image").loc[usual.slices["image"]].reset_index()
    exact = [name for name in by_name if not name.startswith(("soft", "brier"))]
    assert by_name[exact].equals(usual.slices[exact])
    assert evaluation.summary["notes"] == [] and not evaluation.summary["leaky"]  # the same slices in the same splits
    for name, value in tested.summary["metrics"].items():  # another order of slices makes other batches
        assert name in SOFT or evaluation.summary["metrics"][name] == pytest.approx(value, rel=1e-5), name


@pytest.mark.parametrize("workers", [0, 1, 5])
def test_however_many_work_the_tables_are_the_same(references: Path, tmp_path: Path, workers: int) -> None:
    shifted = change(references, tmp_path / "shifted", lambda mask: np.roll(mask, 2, axis=1))
    told: list[tuple[int, int]] = []
    side = measure_folders(
        references, shifted, workers=workers, progress=lambda done, total, what: told.append((done, total))
    )
    usual = measure_folders(references, shifted).measures
    for name in ("slices", "patients", "lesions"):
        assert getattr(side.measures, name).equals(getattr(usual, name))
    assert told == [(5, 20), (12, 20), (20, 20)]
    assert side.measures.slices["image"].tolist()[4:6] == [
        f"{patient_name(n)}/{patient_name(n)}_{s}" for n, s in ((0, 5), (3, 1))
    ]


def test_with_a_spacing_patients_are_volumes_and_lengths_millimetres(references: Path, tmp_path: Path) -> None:
    shifted = change(references, tmp_path / "shifted", lambda mask: np.roll(mask, 2, axis=1))
    flat = evaluate_folders(references, shifted).summary["metrics"]
    measured = evaluate_folders(references, shifted, ruler=Ruler((0.5, 0.25, 100.0), (0.5, 3.0))).summary
    assert (measured["unit"], measured["spacing_mm"], measured["tolerances"]) == ("mm", [0.5, 0.25, 100.0], [0.5, 3.0])
    metrics = measured["metrics"]
    assert {"hd95_mm", "assd_mm", "nsd_0.5mm", "nsd_3mm", "hd95_slice_mm", "nsd_slice_0.5mm"} < set(metrics)
    assert not any("px" in name for name in metrics)
    assert metrics["nsd_0.5mm"] == metrics["nsd_slice_0.5mm"] == 1  # two columns of 0.25 mm
    assert 0 < metrics["hd95_mm"] <= 0.5 and flat["hd95_px"] == pytest.approx(2)
    assert measured["one_empty"]["hd95_mm"] == {"missed": 0, "false_alarm": 0, "of": "patients"}
    next((shifted / patient_name(3)).glob("*_4.png")).unlink()
    next((references / patient_name(3)).glob("*_4.png")).unlink()
    with pytest.raises(InputError, match=f"{patient_name(3)}: its slices are no volume"):
        evaluate_folders(references, shifted, ruler=Ruler((0.5, 0.25, 100.0)))
    assert evaluate_folders(references, shifted).summary["lesions"]["connectivity"] == {"26": 2, "8": 1}


def test_a_slice_is_shown_with_the_masks_it_was_measured_with(
    tested: Evaluation, masks: Path, phantom: Path, run: Path, dataset: Path
) -> None:
    opened = load_dataset(dataset)
    side = measure_folders(phantom, masks, patients=run / "split.csv")
    for row in tested.side.measures.slices.itertuples():
        at = opened.slices["image"].tolist().index(row.image)
        for looked in (tested.side.look(row.image), side.look(row.image.removesuffix(".tif"))):
            picture, reference, prediction = looked
            assert picture is not None and np.array_equal(picture, opened.image(at))
            assert np.array_equal(reference, opened.mask(at))
            assert int((reference & prediction).sum()) == row.tp and int(prediction.sum()) == row.tp + row.fp


def test_images_for_the_report(references: Path, phantom: Path, tmp_path: Path) -> None:
    name = f"{patient_name(3)}/{patient_name(3)}_2"
    assert measure_folders(references, references).look(name)[0] is None
    shown = measure_folders(references, references, images=phantom).look(name)[0]
    assert shown is not None and np.array_equal(shown, read_image(phantom / f"{name}.tif"))
    # beside the masks it is only shown where it can be; asked for, it has to fit
    beside = Path(shutil.copytree(references, tmp_path / "set" / "masks"))
    image = tmp_path / "set" / "images" / f"{name}.png"
    write_image(image, np.zeros((40, 56, 3), np.uint8))
    assert measure_folders(beside, references).look(name)[0] is not None
    for spoil, told in ((np.zeros((9, 9, 3), np.uint8), "is 9x9, its reference 56x40"), (None, "cannot be decoded")):
        if spoil is None:
            image.write_bytes(b"broken")
        else:
            write_image(image, spoil)
        assert measure_folders(beside, references).look(name)[0] is None
        with pytest.raises(InputError, match=told):
            measure_folders(beside, references, images=image.parents[1]).look(name)
    with pytest.raises(InputError, match="is not a folder"):
        measure_folders(references, references, images=tmp_path / "none")


def test_two_predictions_of_the_same_slices(references: Path, tmp_path: Path) -> None:
    near = measure_folders(references, change(references, tmp_path / "near", lambda mask: np.roll(mask, 1, axis=1)))
    far = measure_folders(references, change(references, tmp_path / "far", lambda mask: np.roll(mask, 4, axis=0)))
    for one, other in ((near, far), (far, near)):
        summary = conclude(one, against=other).summary
        compared, alone = summary["comparison"], conclude(other).summary["metrics"]
        assert (compared["a"], compared["b"], compared["leaky"]) == (one.name, other.name, False)
        for name, row in compared["metrics"].items():
            assert (row["a"], row["b"]) == (summary["metrics"][name], alone[name])
            assert row["difference"] == row["a"] - row["b"]
        tested = compared["patients"]["dice_patient"]
        assert (tested["pairs"], tested["wins"], tested["losses"]) == ((2, 2, 0) if one is near else (2, 0, 2))
        assert sorted(row["patient_id"] for row in compared["by_patient"]) == [patient_name(0), patient_name(3)]
        assert [row["group"] for row in compared["by_group"]["institution"]] == ["AA", "BB"]
    fewer = tmp_path / "fewer" / patient_name(0)
    shutil.copytree(references / patient_name(0), fewer)
    with pytest.raises(InputError, match="do not measure the same slices"):
        conclude(near, against=measure_folders(fewer.parent, fewer.parent))


def test_what_is_said_of_the_other_side(references: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(references, tmp_path / "other"))
    write_mask(other / "stranger" / "s_1.png", np.ones((40, 56), np.uint8))
    summary = conclude(measure_folders(references, references), against=measure_folders(references, other)).summary
    own, theirs = summary["notes"]
    assert "compared with themselves" in own and theirs.startswith(f"{other}: 1 predictions have no reference")


def test_groups_of_a_table(references: Path, tmp_path: Path) -> None:
    table = tmp_path / "who.csv"
    table.write_text(f"patient,sex,visit\n{patient_name(0)},f,1\n{patient_name(3)},m,1\n{patient_name(10)},f,1\n")
    side = measure_folders(references, references)
    summary = conclude(side, metadata=table).summary
    assert set(summary["subgroups"]) == {"institution", "sex"}
    assert [(row["group"], row["slices"]) for row in summary["subgroups"]["sex"]] == [("f", 13), ("m", 7)]
    assert any("visit" in note for note in summary["notes"])
    with pytest.raises(InputError, match="makes no groups"):
        conclude(side, metadata=table, by=["visit"])


def test_the_reference_itself_is_perfect(references: Path) -> None:
    evaluation = evaluate_folders(references, references)
    metrics = evaluation.summary["metrics"]
    none = {name for name in metrics if name.startswith(("hd95", "assd", "lesion_false_alarms"))}
    assert len(none) == 6 and {name for name, value in metrics.items() if value != (name not in none)} == set()
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
    diagonal = np.hypot(40, 56)
    assert metrics["hd95_px"] == metrics["assd_slice_px"] == pytest.approx(diagonal) and metrics["nsd_2px"] == 0
    assert summary["one_empty"]["hd95_px"] == {
        "missed": counted["slices_with_tumour"],
        "false_alarm": 0,
        "of": "slices",
    }
    assert metrics["lesion_sensitivity"] == metrics["lesion_false_alarms_slice"] == 0 and metrics["lesion_dice"] is None
    noisy = change(references, tmp_path / "noisy", lambda mask: 1 - mask)
    assert evaluate_folders(references, noisy).summary["find_nothing"] == metrics


def test_counts_by_hand(tmp_path: Path) -> None:
    reference, prediction = np.zeros((2, 10, 12), np.uint8)
    reference[2:6, 2:6] = 1  # 16 px
    prediction[2:6, 4:9] = 1  # 20 px, 8 of them right
    write_mask(tmp_path / "r" / "p" / "p_3_mask.tif", reference)
    write_mask(tmp_path / "m" / "p" / "p_3.png", prediction)
    evaluation = evaluate_folders(tmp_path / "r", tmp_path / "m")
    (row,) = evaluation.side.measures.slices.to_dict("records")
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
    assert evaluation.summary["unmatched"] == {"references": [], "predictions": ["stranger/s_1.png"]}
    assert evaluation.summary["metrics"]["dice_pooled"] == 1.0
    gone = next(path for path in prediction.rglob("*.png") if not read_mask(path).any() and path.parent.name[0] == "P")
    gone.unlink()  # even where it would hold nothing
    with pytest.raises(InputError, match="no prediction for 1 of 20 references") as caught:
        evaluate_folders(references, prediction)
    assert gone.stem in str(caught.value)


def test_a_missing_prediction_may_count_as_one_that_found_nothing(references: Path, tmp_path: Path) -> None:
    prediction = Path(shutil.copytree(references, tmp_path / "prediction"))
    gone = next(path for path in prediction.rglob("*.png") if read_mask(path).any())
    empty = change(references, tmp_path / "empty", np.array)
    write_mask(empty / gone.relative_to(prediction), np.zeros((40, 56), np.uint8))
    gone.unlink()
    missing = evaluate_folders(references, prediction, missing_as_empty=True).summary
    assert missing["metrics"] == evaluate_folders(references, empty).summary["metrics"]
    assert missing["unmatched"]["references"] == [gone.relative_to(prediction).as_posix()]
    (note,) = missing["notes"]
    assert "1 references have no prediction and count as not found" in note and gone.name in note
    maps = evaluate_folders(references, prediction, missing_as_empty=True, threshold=0.5).summary["metrics"]
    assert {name: maps[name] for name in missing["metrics"]} == missing["metrics"]
    assert maps["brier"] == pytest.approx(1 - missing["metrics"]["accuracy"])  # as maps, masks are 0 and 1


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
    assert told.side.measures.patients["patient_id"].tolist() == ["case0", "case1"] and told.summary["notes"] == []
    alone = evaluate_folders(tmp_path / "r", tmp_path / "m", patient_regex=r"^case\d_(\d)")  # as it was asked for
    assert alone.summary["counted"]["patients"] == 4 and alone.summary["notes"] == []
    with pytest.raises(InputError, match="finds no patient"):
        evaluate_folders(tmp_path / "r", tmp_path / "m", patient_regex=r"(person\d)")
    with pytest.raises(UsageError, match="no regular expression"):
        evaluate_folders(tmp_path / "r", tmp_path / "m", patient_regex="(")


def test_one_slice_a_patient_is_nothing_to_warn_of(tmp_path: Path) -> None:
    for name in ("p1/x.png", "p2/x.png"):
        write_mask(tmp_path / "r" / name, np.eye(9, dtype=np.uint8))
        write_mask(tmp_path / "m" / name, np.eye(9, dtype=np.uint8))
    side = measure_folders(tmp_path / "r", tmp_path / "m")
    assert side.measures.patients["patient_id"].tolist() == ["p1", "p2"] and side.notes == []


def test_one_patients_own_folder_is_one_patient(phantom: Path, tmp_path: Path) -> None:
    own = phantom / patient_name(3)
    for path in own.glob("*_mask.tif"):
        write_mask(tmp_path / "masks" / path.name, read_mask(path))
    found = evaluate_folders(own, tmp_path / "masks")
    assert found.side.measures.patients["patient_id"].tolist() == [patient_name(3)] and found.summary["notes"] == []


def test_only_the_patients_of_a_table(references: Path, tmp_path: Path) -> None:
    table = tmp_path / "who.csv"
    table.write_text(f"patient_id,split\n{patient_name(0)},test\n{patient_name(3)},val\n{patient_name(10)},train\n")
    for split, slices in ((None, 5), ("test", 5), ("val", 7), ("train", 8)):
        evaluation = evaluate_folders(references, references, patients=table, split=split)
        assert evaluation.summary["counted"]["slices"] == slices
        assert evaluation.summary["split"] == (split or "test")
    table.write_text(f"patient_id,split\n{patient_name(0)},test\nnobody,test\n")
    with pytest.raises(InputError, match=r"1 patients .* are not there: nobody"):
        evaluate_folders(references, references, patients=table)
    with pytest.raises(InputError, match="names no val patient"):
        evaluate_folders(references, references, patients=table, split="val")
    table.write_text("patient,split\na,test\n")
    with pytest.raises(InputError, match="patient_id"):
        evaluate_folders(references, references, patients=table)
    with pytest.raises(InputError, match="is not there"):
        evaluate_folders(references, references, patients=tmp_path / "none.csv")
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
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == FILES
    assert json.loads((tmp_path / "report" / "summary.json").read_text()) == tested.summary
    for name, columns in (("slices", {"image", "brier"}), ("patients", {"lesion_dice"}), ("lesions", {"detected"})):
        table, measured = pd.read_csv(tmp_path / "report" / f"{name}.csv"), getattr(tested.side.measures, name)
        assert len(table) == len(measured) > 0 and list(table) == list(measured) and columns < set(table)
    value = tested.summary["metrics"]["dice_patient"]
    assert f"{value:.3f}"[1:] in (tmp_path / "report" / "report.md").read_text()
    assert str(value) in (tmp_path / "report" / "report.html").read_text()
    (tmp_path / "report" / "letter.txt").write_text("mine")
    with pytest.raises(OutputExistsError):
        write_report(tested, tmp_path / "report")
    write_report(tested, tmp_path / "report", overwrite=True)
    assert (tmp_path / "report" / "letter.txt").read_text() == "mine"


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
        evaluate_run(copied)
    said = evaluate_run(copied, dataset_path=tmp_path / "other")
    own = RunFolder(copied).read_split()
    seen = (own["train"] | own["val"]) & set(said.side.measures.patients["patient_id"])
    assert seen and said.summary["leaky"]
    assert any(f"LEAKY: the run was trained or chosen on {len(seen)} of" in note for note in said.summary["notes"])
    assert evaluate_run(copied, dataset_path=dataset).summary["notes"] == []
    # the same names and splits, but other pixels
    source = Path(shutil.copytree(phantom, tmp_path / "changed"))
    path = next(source.rglob("*_1.tif"))
    write_image(path, np.full((40, 56, 3), 90, np.uint8) + np.arange(56, dtype=np.uint8)[:, None])
    prepare.write_dataset(prepare.check(source, split=str(split_table), workers=1), tmp_path / "altered")
    point(copied, dataset=str(tmp_path / "altered"))
    with pytest.raises(InputError, match="prepared anew"):
        evaluate_run(copied)


def test_without_test_slices_val_stands_in_and_says_so(
    copied: Path, phantom: Path, tmp_path: Path, split_table: Path
) -> None:
    table = tmp_path / "split.csv"
    table.write_text(split_table.read_text().replace(",test", ",train"))
    prepare.write_dataset(prepare.check(phantom, split=str(table), workers=1), tmp_path / "two")
    evaluation = evaluate_run(copied, dataset_path=tmp_path / "two")
    assert evaluation.summary["split"] == "val"
    assert any("no test split" in note for note in evaluation.summary["notes"])
    with pytest.raises(UsageError, match="no test slices"):
        evaluate_run(copied, dataset_path=tmp_path / "two", split="test")


def test_a_leaky_run_is_called_so(copied: Path) -> None:
    point(copied, leaky=True)
    evaluation = evaluate_run(copied)
    assert any("LEAKY" in note for note in evaluation.summary["notes"])


def test_what_is_no_run(tmp_path: Path, copied: Path) -> None:
    with pytest.raises(InputError, match=r"is no run.*brainseg train makes one"):
        evaluate_run(tmp_path / "none")
    with pytest.raises(InputError, match=rf"is no run.*its run is {copied}"):
        evaluate_run(copied / "model")
    (tmp_path / "a.onnx").touch()
    (copied / "model").rename(tmp_path / "alone")
    for model in (tmp_path / "alone", tmp_path / "a.onnx"):
        with pytest.raises(InputError, match=r"is no run.*predict runs a model by itself"):
            evaluate_run(model)
    (tmp_path / "alone").rename(copied / "model")
    (copied / "model" / "brainseg.json").unlink()
    with pytest.raises(InputError, match="holds no model"):
        evaluate_run(copied)
    point(copied, surprise=1)
    with pytest.raises(InputError, match="surprise"):
        evaluate_run(copied)


def write_pair(tmp_path: Path, name: str, rng: np.random.Generator) -> None:
    for side in ("reference", "prediction"):
        write_mask(tmp_path / side / name, rng.integers(0, 2, (8, 9), np.uint8))


def test_folders_of_one_name_in_several_places_are_several_patients(tmp_path: Path, rng: np.random.Generator) -> None:
    names = ["site0/001/s_1.png", "site0/001/s_2.png", "site1/001/s_1.png", "site1/002/s_1.png"]
    for name in names:
        write_pair(tmp_path, name, rng)
    evaluation = evaluate_folders(tmp_path / "reference", tmp_path / "prediction")
    patients = evaluation.side.measures.patients
    assert patients["patient_id"].tolist() == ["site0/001", "site1/001", "site1/002"]
    assert patients["slices"].tolist() == [2, 1, 1]
    assert any("001: patients are told apart by their whole path" in note for note in evaluation.summary["notes"])
    # a table of patients, and a rule, speak of names: there the first cannot be guessed, and the second decides
    table = tmp_path / "split.csv"
    table.write_text("patient_id,split\n001,test\n")
    with pytest.raises(InputError, match=r"001: the name of several folders.*--patient-regex"):
        evaluate_folders(tmp_path / "reference", tmp_path / "prediction", patients=table)
    one = evaluate_folders(tmp_path / "reference", tmp_path / "prediction", patient_regex=r"(\d+)/s_")
    assert one.side.measures.patients["patient_id"].tolist() == ["001", "002"]


def test_a_rule_without_a_group_is_refused(tmp_path: Path, rng: np.random.Generator) -> None:
    write_pair(tmp_path, "p/s_1.png", rng)
    with pytest.raises(UsageError, match="has no group"):
        evaluate_folders(tmp_path / "reference", tmp_path / "prediction", patient_regex="p")


def test_names_that_are_no_text_are_reported_all_the_same(tmp_path: Path, rng: np.random.Generator) -> None:
    strange = os.fsdecode(b"p\xff")
    try:
        write_pair(tmp_path, f"{strange}/s_1.png", rng)
    except OSError:
        pytest.skip("this file system takes names of text only")
    write_report(evaluate_folders(tmp_path / "reference", tmp_path / "prediction"), tmp_path / "out")
    summary = json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))
    assert summary["counted"]["slices"] == 1
    assert "p\\udcff" in (tmp_path / "out" / "patients.csv").read_text(encoding="utf-8")


def test_a_column_called_like_a_group_of_ours_stands_beside_it(references: Path, tmp_path: Path) -> None:
    table = tmp_path / "data.csv"
    names = sorted(folder.name for folder in references.iterdir())
    table.write_text(
        "\n".join(["patient_id,institution", *(f"{n},{'ab'[at % 2]}" for at, n in enumerate(names))]) + "\n"
    )
    side = measure_folders(references, references)
    groups = conclude(side, metadata=table).summary["subgroups"]
    assert {"institution", "institution (data.csv)"} <= groups.keys()


def test_the_other_side_of_a_comparison_says_what_it_is(run: Path) -> None:
    side, other = measure_run(run), measure_run(run, threshold=0.9)
    comparison = conclude(side, against=other).summary["comparison"]
    assert comparison["b_about"]["threshold"] == 0.9 and comparison["b_about"]["threshold_from"] == "given"


def test_no_tumour_at_all_is_said(tmp_path: Path) -> None:
    for side in ("reference", "prediction"):
        write_mask(tmp_path / side / "p" / "s_1.png", np.zeros((8, 9), np.uint8))
    summary = evaluate_folders(tmp_path / "reference", tmp_path / "prediction").summary
    assert any("no reference has tumour" in note for note in summary["notes"])
