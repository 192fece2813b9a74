"""Masks from elsewhere: which belongs to which, what is left over, and nothing guessed at."""

import shutil
import unicodedata
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from brainseg_cli.data.pairs import Pair, Pairing, check_complete, hold_maps, pair_masks, read_pair, read_prediction
from brainseg_cli.errors import InputError
from brainseg_cli.io.images import write_mask


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def told(pairing: Pairing, reference: Path, prediction: Path) -> dict[str, tuple[str, str | None]]:
    """Key: reference and prediction, as relative names."""

    def name(path: Path | None, folder: Path) -> Any:
        return path and path.relative_to(folder).as_posix()

    return {pair.key: (name(pair.reference, reference), name(pair.prediction, prediction)) for pair in pairing.pairs}


def match(tmp_path: Path, references: list[str], predictions: list[str], **options: Any) -> dict[str, tuple[str, Any]]:
    reference, prediction = touch(tmp_path / "r", *references), touch(tmp_path / "m", *predictions)
    pairing = pair_masks(reference, prediction, **options)
    assert len({pair.key for pair in pairing.pairs}) == len(pairing.pairs)
    return told(pairing, reference, prediction)


def fault(call: Any, *arguments: Any, **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        call(*arguments, **options)
    message = str(caught.value)
    assert caught.value.where is not None and "\n" not in message
    return message


LGG = ["p1/x_1.tif", "p1/x_1_mask.tif", "p1/x_2.tif", "p1/x_2_mask.tif", "p2/y_1.tif", "p2/y_1_mask.tif"]


@pytest.mark.parametrize(
    "predictions",
    [
        ["p1/x_1.png", "p1/x_2.png", "p2/y_1.png"],  # mirrored, as predict writes them
        ["p1/x_1_mask.PNG", "p1/x_2_mask.TIFF", "p2/y_1.npy"],
        ["x_1.png", "x_2.png", "y_1.png"],  # flat
        ["images/p1/x_1.png", "images/p1/x_2.png", "images/p2/y_1.png"],
        ["test/a/x_1.png", "test/a/x_2.png", "test/b/y_1.png"],  # another tree
        [name.replace(".tif", ".png") for name in LGG],  # masks beside their slices on this side too
    ],
)
def test_the_trees_that_predictions_come_in(tmp_path: Path, predictions: list[str]) -> None:
    found = match(tmp_path, LGG, predictions)
    masks = [name for name in predictions if "_mask" in name] or predictions
    if len(masks) < 3:
        masks.append("p2/y_1.npy")
    assert list(found) == ["p1/x_1", "p1/x_2", "p2/y_1"]
    assert list(found.values()) == list(zip([name for name in LGG if "_mask" in name], masks, strict=True))


@pytest.mark.parametrize(
    ("reference", "prediction", "options"),
    [
        ("case_001.png", "case_001.png", {}),  # nnU-Net
        ("x_1.png", "x_1/x_1_seg.png", {"prediction_suffix": "_seg"}),  # MONAI
        ("x_1/x_1_seg.png", "x_1.png", {"reference_suffix": "_seg"}),
        ("p/x_1_mask.tif", "p/x_1_mask_pred.png", {"prediction_suffix": "_pred"}),
        ("p/x_1_gt.png", "p/x_1_out.npy", {"reference_suffix": "_gt", "prediction_suffix": "_out"}),
        ("p/x_1/gt.png", "p/x_1/out.png", {"reference_suffix": "gt", "prediction_suffix": "out"}),
        ("val/masks/p/x_1.png", "val/p/x_1.png", {}),
        ("p/x_1_MASK.png", "p/x_1.png", {"reference_suffix": "_MASK"}),
    ],
)
def test_one_of_each_convention(tmp_path: Path, reference: str, prediction: str, options: dict[str, str]) -> None:
    assert list(match(tmp_path, [reference], [prediction], **options).values()) == [(reference, prediction)]


def test_a_suffix_rule_leaves_out_what_does_not_end_so(tmp_path: Path) -> None:
    reference = touch(tmp_path / "r", "x.png", "y.png")
    prediction = touch(tmp_path / "m", "x_pred.png", "x.png", "y_pred.png", "y_prob.png", "predicted.png")
    pairing = pair_masks(reference, prediction, prediction_suffix="_pred")
    expected = {"x": ("x.png", "x_pred.png"), "y": ("y.png", "y_pred.png")}
    assert told(pairing, reference, prediction) == expected
    assert pairing.unmatched_predictions == pairing.unmatched_references == pairing.notes == []


def test_order_is_that_of_the_references_as_a_person_counts(tmp_path: Path) -> None:
    names = ["b/x_1.png", "a/x_10.png", "a/x_9.png"]
    assert list(match(tmp_path, names, names)) == ["a/x_9", "a/x_10", "b/x_1"]


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_one_spelling_of_odd_names(tmp_path: Path, form: Any) -> None:
    name, other = (unicodedata.normalize(f, "Åsa B/coupé n° 7.x") for f in (form, "NFC"))
    found = match(tmp_path, [f"{name}_mask.tif"], [f"{other}.png"])
    assert found == {name: (f"{name}_mask.tif", f"{other}.png")}  # as the reference spells it


def test_what_is_left_over_is_said_on_each_side(tmp_path: Path) -> None:
    reference = touch(tmp_path / "r", "p/1.png", "p/2.png", "q/3.png")
    prediction = touch(tmp_path / "m", "p/1.png", "3.png", "q/4.png", "log.csv", ".p/2.png", "p/.2.png")
    pairing = pair_masks(reference, prediction)
    assert told(pairing, reference, prediction) == {
        "p/1": ("p/1.png", "p/1.png"),
        "p/2": ("p/2.png", None),
        "q/3": ("q/3.png", None),  # 3.png has its name, but where one path agrees no name does
    }
    assert pairing.unmatched_references == ["p/2.png", "q/3.png"]
    assert pairing.unmatched_predictions == ["3.png", "q/4.png"]
    assert pairing.notes == ["2 predictions have no reference and are not counted: 3.png, q/4.png"]
    message = fault(check_complete, pairing, prediction)
    assert message.startswith(f"{prediction}: has no prediction for 2 of 3 references: p/2.png, q/3.png (")
    assert "--missing-as-empty" in message and "3.png, q/4.png" in message
    check_complete(pair_masks(reference, reference), reference)


def test_names_alone_are_used_only_where_no_path_agrees_and_that_is_said(tmp_path: Path) -> None:
    reference, prediction = touch(tmp_path / "r", "p/1.png", "q/2.png"), touch(tmp_path / "m", "1.png", "z/2.png")
    pairing = pair_masks(reference, prediction)
    assert told(pairing, reference, prediction) == {"p/1": ("p/1.png", "1.png"), "q/2": ("q/2.png", "z/2.png")}
    assert pairing.notes == ["matched by file name alone, as no path agrees: p/1.png with 1.png"]


@pytest.mark.parametrize(
    ("references", "predictions", "two"),
    [
        (["p/1.png", "q/1.png"], ["1.png"], ("r/q/1.png", "p/1.png")),
        (["1.png"], ["p/1.png", "q/1.png"], ("m/q/1.png", "p/1.png")),
        (["p/1.png", "q/1.png"], ["u/1.png", "v/1.png"], ("r/q/1.png", "p/1.png")),
    ],
)
def test_a_name_that_stands_twice_tells_nothing(
    tmp_path: Path, references: list[str], predictions: list[str], two: tuple[str, str]
) -> None:
    message = fault(match, tmp_path, references, predictions)
    assert message.startswith(f"{tmp_path / two[0]}: has the same name as {two[1]} (no path agrees")


def test_names_that_stand_twice_where_nobody_asks_do_no_harm(tmp_path: Path) -> None:
    found = match(tmp_path, ["p/1.png", "q/9.png", "r/9.png"], ["1.png", "a/5.png", "b/5.png"])
    assert found["p/1"] == ("p/1.png", "1.png") and found["q/9"] == ("q/9.png", None)


@pytest.mark.parametrize(
    ("references", "predictions", "two"),
    [
        (["x.png", "x.tif"], ["x.png"], ("r/x.tif", "x.png")),
        (["x_mask.png", "masks/x.png"], ["x.png"], ("r/x_mask.png", "masks/x.png")),
        (["x.png"], ["x.png", "x.npy"], ("m/x.png", "x.npy")),
        (["x.png"], ["x_mask.png", "x_mask.tif", "x.png"], ("m/x_mask.tif", "x_mask.png")),
    ],
)
def test_two_files_of_one_slice_are_refused(
    tmp_path: Path, references: list[str], predictions: list[str], two: tuple[str, str]
) -> None:
    message = fault(match, tmp_path, references, predictions)
    assert message.startswith(f"{tmp_path / two[0]}: stands for the same slice as {two[1]} (")


def test_two_references_of_one_slice_are_refused_even_without_a_prediction(tmp_path: Path) -> None:
    assert "r/y.tif: stands for the same slice as y.png" in fault(
        match, tmp_path, ["x.png", "y.png", "y.tif"], ["x.png"]
    )


def test_under_a_suffix_rule_no_file_goes_before_another(tmp_path: Path) -> None:
    predictions = ["x_pred.png", "x_mask_pred.png"]
    message = fault(match, tmp_path, ["x.png"], predictions, prediction_suffix="_pred")
    assert "stands for the same slice as x_mask_pred.png" in message
    told_apart = match(tmp_path, ["x.png"], predictions, prediction_suffix="_mask_pred")
    assert told_apart == {"x": ("x.png", "x_mask_pred.png")}


def test_two_spellings_of_one_slice_are_two_files_of_it(tmp_path: Path) -> None:
    spelled = [unicodedata.normalize(form, "é.png") for form in ("NFC", "NFD")]
    touch(tmp_path / "m", *spelled)
    if len(list((tmp_path / "m").iterdir())) < 2:
        pytest.skip("this disk keeps one spelling")
    assert "stands for the same slice as" in fault(match, tmp_path, ["é.png"], spelled)


def test_two_predictions_of_no_reference_and_two_images_of_one_mask_do_no_harm(tmp_path: Path) -> None:
    reference = touch(tmp_path / "r", "x_mask.png", "x.png", "x.tif")
    prediction = touch(tmp_path / "m", "x.png", "y.png", "y.tif")
    pairing = pair_masks(reference, prediction)
    assert pairing.pairs == [Pair("x", reference / "x_mask.png", prediction / "x.png", None)]
    assert pairing.unmatched_predictions == ["y.png", "y.tif"]


def test_only_masks_are_references_where_some_are_called_so(tmp_path: Path) -> None:
    reference, prediction = touch(tmp_path / "r", *LGG, "p2/y_2.tif"), touch(tmp_path / "m", *LGG, "p2/y_2.tif")
    pairing = pair_masks(reference, prediction)
    assert [pair.reference.stem for pair in pairing.pairs] == ["x_1_mask", "x_2_mask", "y_1_mask"]
    assert [pair.prediction and pair.prediction.stem for pair in pairing.pairs] == ["x_1_mask", "x_2_mask", "y_1_mask"]
    assert pairing.notes == [
        "1 images have no reference mask beside them and are not counted: p2/y_2.tif",
        "1 predictions have no reference and are not counted: p2/y_2.tif",
    ]


@pytest.mark.parametrize("names", [("images", "masks"), ("Imgs", "Mask"), ("train/image", "train/masks")])
@pytest.mark.parametrize("predictions", ["mirrored", "flat", "same tree"])
def test_images_and_masks_in_folders_of_their_own(tmp_path: Path, names: tuple[str, str], predictions: str) -> None:
    images, masks = names
    trees = touch(tmp_path / "r", f"{images}/p/x_1.jpg", f"{masks}/p/x_1.png", f"{masks}/p/x_2_mask.png")
    ones = {"mirrored": f"{images}/p/x_{{}}.png", "flat": "x_{}.png", "same tree": f"{masks}/p/x_{{}}.png"}[predictions]
    prediction = touch(tmp_path / "m", ones.format(1), ones.format(2))
    for folder, key in ((trees, f"{'train/' * ('/' in masks)}p"), (trees / masks, "p")):
        pairing = pair_masks(folder, prediction)
        one, two = pairing.pairs
        assert (one.key, two.key) == (f"{key}/x_1", f"{key}/x_2")
        assert (one.reference, two.reference) == (trees / masks / "p/x_1.png", trees / masks / "p/x_2_mask.png")
        assert (one.prediction, two.prediction) == (prediction / ones.format(1), prediction / ones.format(2))
        assert one.image == trees / images / "p/x_1.jpg" and two.image is None


def test_the_slice_beside_its_mask(tmp_path: Path) -> None:
    reference, prediction = touch(tmp_path / "r", *LGG), touch(tmp_path / "m", "p1/x_1.png", "p1/x_2.png", "p2/y_1.png")
    (reference / "p2/y_1.tif").unlink()
    images = [pair.image for pair in pair_masks(reference, prediction).pairs]
    assert images == [reference / "p1/x_1.tif", reference / "p1/x_2.tif", None]
    suffixed = pair_masks(reference, prediction, reference_suffix="_mask")
    assert [pair.image for pair in suffixed.pairs] == images and suffixed.notes == []


@pytest.mark.parametrize("flat", [False, True])
def test_slices_from_a_folder_of_their_own(tmp_path: Path, flat: bool) -> None:
    reference = touch(tmp_path / "r", "p/x_1.png", "p/x_2.png", "p/x_3.png")
    slices = ["p/x_1.tif", "p/x_1_mask.tif", "p/x_3.tif", "p/x_3.png"]  # of x_3 there are two
    images = touch(tmp_path / "i", *(name.removeprefix("p/") if flat else name for name in slices))
    pairing = pair_masks(reference, reference, images=images)
    assert [pair.image for pair in pairing.pairs] == [images / ("x_1.tif" if flat else "p/x_1.tif"), None, None]
    assert pairing.notes[-1] == f"2 references have no image in {images}: p/x_2.png, p/x_3.png"
    assert "i/none: is not a folder" in fault(pair_masks, reference, reference, images=images / "none")


def test_a_mask_is_never_taken_for_its_slice(tmp_path: Path) -> None:
    folder = touch(tmp_path / "a", "x_seg.png", "x_pred.png", "y_seg.png", "y_pred.png", "y.png")
    pairing = pair_masks(folder, folder, reference_suffix="_seg", prediction_suffix="_pred", images=folder)
    assert [pair.image for pair in pairing.pairs] == [None, folder / "y.png"]
    references = touch(tmp_path / "r", "p/x_mask.png")  # without its slice, a mask counts as an image
    assert pair_masks(references, references, images=references).pairs[0].image is None


def test_references_and_predictions_in_one_folder(tmp_path: Path) -> None:
    folder = touch(tmp_path / "a", "p/x.png", "p/x_pred.png", "p/y.png", "p/y_pred.png")
    expected = {"p/x": ("p/x.png", "p/x_pred.png"), "p/y": ("p/y.png", "p/y_pred.png")}
    assert told(pair_masks(folder, folder, prediction_suffix="_pred"), folder, folder) == expected
    turned = pair_masks(folder, folder, reference_suffix="_pred")
    assert told(turned, folder, folder) == {key: pair[::-1] for key, pair in expected.items()}
    assert turned.notes == [] and {pair.image for pair in turned.pairs} == {None}


def test_masks_compared_with_themselves_are_said_to_be(tmp_path: Path) -> None:
    reference = touch(tmp_path / "r", "p/x.png", "p/y.png")
    assert pair_masks(reference, reference).notes == ["2 references are compared with themselves: p/x.png, p/y.png"]
    (tmp_path / "linked").symlink_to(reference, target_is_directory=True)
    assert pair_masks(reference, tmp_path / "linked").notes == pair_masks(reference, reference).notes


@pytest.mark.parametrize(
    ("outer", "inner", "message"),
    [("reference", "prediction", "holds no reference mask"), ("prediction", "reference", "it holds no mask")],
)
def test_a_folder_within_the_other_keeps_its_files_to_itself(
    tmp_path: Path, outer: str, inner: str, message: str
) -> None:
    folder = touch(tmp_path / "a", "p/x.png", "p/y.png", "inner/p/x.png", "inner/p/y.png")
    sides = {outer: folder, inner: folder / "inner"}
    pairing = pair_masks(**sides)
    assert [pair.key for pair in pairing.pairs] == ["p/x", "p/y"] and pairing.notes == []
    assert all(pair.prediction != pair.reference for pair in pairing.pairs)
    shutil.rmtree(folder / "p")  # by name, what is left would match with itself
    assert message in fault(pair_masks, **sides)


def test_in_a_folder_of_masks_each_file_is_one_and_elsewhere_those_called_so(tmp_path: Path) -> None:
    names = ["x_1.png", "x_2_mask.png"]
    for folder, keys in (("masks", ["x_1", "x_2"]), ("other", ["x_2"])):
        reference = touch(tmp_path / folder, *names)
        assert [pair.key for pair in pair_masks(reference, touch(tmp_path / "m", *names)).pairs] == keys
    lgg = touch(tmp_path / "lgg" / "masks", "p/x_1.tif", "p/x_1_mask.tif")
    assert told(pair_masks(lgg, lgg), lgg, lgg) == {"p/x_1": ("p/x_1_mask.tif", "p/x_1_mask.tif")}


def test_only_the_references_that_are_wanted(tmp_path: Path) -> None:
    reference = touch(tmp_path / "r", "p/1.png", "q/1.png", "q/2.png")
    prediction = touch(tmp_path / "m", "p/1.png", "q/1.png", "q/2.png")
    pairing = pair_masks(reference, prediction, wanted=lambda key: key.startswith("q/"))
    assert [pair.key for pair in pairing.pairs] == ["q/1", "q/2"]
    assert pairing.unmatched_predictions == ["p/1.png"] and pairing.unmatched_references == []
    flat = touch(tmp_path / "f", "1.png")  # of two patients, but one is asked for
    assert told(pair_masks(reference, flat, wanted="p/1".__eq__), reference, flat) == {"p/1": ("p/1.png", "1.png")}
    nobody = pair_masks(reference, prediction, wanted=lambda key: False)
    assert nobody.pairs == [] and len(nobody.unmatched_predictions) == 3


def test_where_nothing_matches_both_sides_are_shown(tmp_path: Path) -> None:
    message = fault(match, tmp_path, ["p/x_1.png", "p/x_2.png"], ["x_1_pred.png", "x_2_pred.png"])
    assert message.startswith(f"{tmp_path / 'm'}: has no prediction for 2 of 2 references: ")
    assert "a reference is p/x_1.png, a prediction x_1_pred.png" in message and "--prediction-suffix" in message


def test_folders_that_hold_nothing(tmp_path: Path) -> None:
    full, empty = touch(tmp_path / "r", "x.png"), touch(tmp_path / "e", "x.nii.gz", "x.csv")
    assert fault(pair_masks, empty, full).startswith(f"{empty}: holds no reference mask (PNG")
    assert fault(pair_masks, full, empty).startswith(f"{empty}: has no prediction for 1 of 1 references: it holds no")
    for one, other in ((full / "x.png", full), (full, full / "none")):
        assert "is not a folder" in fault(pair_masks, one, other)
    for side in ("reference", "prediction"):
        message = fault(pair_masks, full, full, **{f"{side}_suffix": "_pred.png"})
        assert message == f"{full}: holds no file named *_pred.png before its extension (but x.png)"


def test_long_lists_are_cut(tmp_path: Path) -> None:
    names = [f"{number}.png" for number in range(1, 9)]
    pairing = pair_masks(touch(tmp_path / "r", *names), touch(tmp_path / "m", "8.png"))
    assert len(pairing.unmatched_references) == 7
    assert "references: 1.png, 2.png, 3.png, 4.png, 5.png and 2 more (" in fault(check_complete, pairing, tmp_path)


SHAPE = (5, 7)


def save(path: Path, array: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, array)
    else:
        ok, data = cv2.imencode(path.suffix, array)
        assert ok
        path.write_bytes(data.tobytes())
    return path


def block(value: int = 1, dtype: Any = np.uint8) -> np.ndarray:
    array = np.zeros(SHAPE, dtype)
    array[1:3, 2:6] = value
    return array


@pytest.mark.parametrize(
    ("dtype", "top", "suffix"), [("u2", 65535, ".png"), ("u1", 255, ".tif"), ("u2", 65535, ".npy")]
)
def test_a_share_that_equals_the_threshold_is_tumour(tmp_path: Path, dtype: str, top: int, suffix: str) -> None:
    """Integers decide: of `v / top >= a / b` nothing may be lost in floating point."""
    values = np.arange(top + 1, dtype=dtype).reshape(-1, 16)
    path = save(tmp_path / f"p{suffix}", values)
    wide = values.astype(np.int64)
    for a, b in [(1, 2), (1, 5), (3, 10), (1, 3), (2, 3), (0, 1), (1, 1), (1, top), (top - 1, top), (10922, 65535)]:
        mask, probs = read_prediction(path, threshold=a / b)
        assert mask.dtype == np.uint8 and probs is not None and probs.dtype == np.float32
        np.testing.assert_array_equal(mask, wide * b >= a * top, err_msg=f"{a}/{b}")


def test_a_threshold_is_compared_as_the_segmenter_compares_it(tmp_path: Path, rng: np.random.Generator) -> None:
    from brainseg_cli.models.segmenter import apply_threshold

    values = rng.random((40, 56), dtype=np.float32)
    values[0, :3] = np.float32(0.1), np.nextafter(np.float32(0.1), np.float32(0)), 0.7
    path = save(tmp_path / "p.npy", values)
    for threshold in (0.1, 0.5, 0.7, float(values[3, 3])):
        mask, probs = read_prediction(path, threshold=threshold)
        np.testing.assert_array_equal(mask, apply_threshold(values, threshold))
        np.testing.assert_array_equal(probs, values)
    assert read_prediction(path, threshold=0.1)[0][0, :2].tolist() == [1, 0]


def test_without_a_threshold_it_is_a_mask_or_an_error_that_names_the_option(tmp_path: Path) -> None:
    for number, array in enumerate([block(), block(255), block(dtype=bool), block(dtype=np.float64)]):
        mask, probs = read_prediction(save(tmp_path / f"{number}.npy", array), threshold=None)
        np.testing.assert_array_equal(mask, block())
        assert probs is None
    for name, array in (("a.png", block(128)), ("b.png", block(65535, np.uint16)), ("c.npy", block() * 0.5)):
        message = fault(read_prediction, save(tmp_path / name, array), threshold=None)
        assert "is not a binary mask" in message and "--threshold" in message


def test_a_mask_of_0_and_1_is_not_read_as_a_map(tmp_path: Path) -> None:
    path = save(tmp_path / "m" / "1.png", block())
    assert "a mask, or an all but empty" in fault(read_prediction, path, threshold=0.5)
    masks = [path, save(tmp_path / "m" / "2.png", block(0)), save(tmp_path / "m" / "3.png", block(255))]
    assert not hold_maps(masks)
    maps = [*masks, save(tmp_path / "m" / "4.png", block(2))]  # 2 / 255 is no value of a mask
    assert hold_maps(maps)
    mask, probs = read_prediction(path, threshold=0.5, maps=hold_maps(maps))
    assert probs is not None and not mask.any() and probs.max() == np.float32(1 / 255)
    assert hold_maps([save(tmp_path / "f.npy", block() * 0.25)]) and not hold_maps([])


def test_a_pair_is_read(tmp_path: Path) -> None:
    reference = tmp_path / "r.png"
    write_mask(reference, block())
    half = save(tmp_path / "p.npy", block() * 0.5)
    one, other, probs = read_pair(Pair("r", reference, half, None), threshold=0.5)
    np.testing.assert_array_equal(one, block())
    np.testing.assert_array_equal(other, block())
    np.testing.assert_array_equal(probs, block() * np.float32(0.5))
    assert not read_pair(Pair("r", reference, half, None), threshold=0.51)[1].any()
    one, other, nothing = read_pair(Pair("r", reference, reference, None))
    assert nothing is None and (one == other).all() and one.any()
    faint = Pair("r", reference, save(tmp_path / "faint.png", block()), None)
    assert "a mask, or" in fault(read_pair, faint, threshold=0.5)
    assert not read_pair(faint, threshold=0.5, maps=True)[1].any()


def test_a_missing_prediction_is_read_as_empty(tmp_path: Path) -> None:
    pair = Pair("r", save(tmp_path / "r.png", block()), None, None)
    one, other, probs = read_pair(pair)
    assert one.any() and other.shape == SHAPE and other.dtype == np.uint8 and not other.any() and probs is None
    _, other, probs = read_pair(pair, threshold=0.0)  # not even a threshold of 0 finds something in nothing
    assert not other.any() and probs is not None and probs.dtype == np.float32 and not probs.any()


@pytest.mark.parametrize("threshold", [None, 0.5])
def test_sizes_that_differ_are_an_error(tmp_path: Path, threshold: float | None) -> None:
    turned = save(tmp_path / "p.png", np.ascontiguousarray(block(255).T))
    pair = Pair("r", save(tmp_path / "r.png", block()), turned, None)
    assert fault(read_pair, pair, threshold=threshold).startswith(f"{turned}: is 5x7, its reference 7x5 (")


def test_a_reference_is_never_a_map(tmp_path: Path) -> None:
    pair = Pair("r", save(tmp_path / "r.png", block(128)), save(tmp_path / "p.png", block(128)), None)
    message = fault(read_pair, pair, threshold=0.5)
    assert message.startswith(f"{pair.reference}: is not a binary mask") and "--threshold" not in message
