"""The Python API: what the command line gives, as objects; lazily, and with nothing loaded before it is needed."""

import doctest
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

import brainseg_cli
from brainseg_cli import Model, Segmentation, api, load_model
from brainseg_cli.config import ModelConfig
from brainseg_cli.data.phantom import patient_name
from brainseg_cli.errors import InputError, UsageError
from brainseg_cli.io.images import read_image, read_mask, write_image
from brainseg_cli.metrics.finding import describe_finding, measure_disagreement
from brainseg_cli.models.build import build_model
from brainseg_cli.models.bundle import load_bundle, save_bundle
from brainseg_cli.models.network import TorchNetwork
from brainseg_cli.models.segmenter import Pending, Prepared, Segmenter, apply_threshold
from brainseg_cli.ood import find_unlike
from brainseg_cli.postprocess import Postprocess, postprocess

DEEP, PATIENT = 2, 3  # of the phantom: one of 16 bits, one of seven slices


@pytest.fixture(scope="module")
def other(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second model: the run's, its weights a little shaken, its threshold another."""
    network, bundle = load_bundle(run)
    noise = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for weights in network.parameters():
            weights += 0.5 * weights.abs().mean() * torch.randn(weights.shape, generator=noise)
    folder = tmp_path_factory.mktemp("other")
    save_bundle(folder / "model", network, bundle.model_copy(update={"threshold": 0.2}))
    return folder


@pytest.fixture(scope="module")
def model(run: Path) -> Model:
    return load_model(run, device="cpu", runtime="torch")


@pytest.fixture(scope="module")
def slices(phantom: Path) -> list[Path]:
    """Seven images of one patient."""
    name = patient_name(PATIENT)
    return [phantom / name / f"{name}_{number}.tif" for number in range(1, 8)]


@pytest.fixture(scope="module")
def image(slices: list[Path]) -> np.ndarray:
    return read_image(slices[3])


def same(one: Segmentation, other: Segmentation) -> bool:
    """Bit for bit, wherever it is from."""
    return (
        np.array_equal(one.mask, other.mask) and np.array_equal(one.probs, other.probs) and one.finding == other.finding
    )


# what is loaded, and when


def run_python(code: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.split()


def test_the_import_is_as_light_as_the_command_line() -> None:
    heavy = {"torch", "pandas", "matplotlib", "albumentations", "segmentation_models_pytorch", "timm"}
    loaded = run_python("import sys; from brainseg_cli import Model, Segmentation, load_model; print(*sys.modules)")
    assert "brainseg_cli.api" in loaded and heavy.isdisjoint(loaded)


def test_its_names_are_there_before_they_are_loaded() -> None:
    code = "import sys, brainseg_cli; print(*dir(brainseg_cli), 'brainseg_cli.api' in sys.modules)"
    *names, loaded = run_python(code)
    assert {"load_model", "Model", "Segmentation", "__version__"} <= set(names) and loaded == "False"
    assert brainseg_cli.__all__ == ["Model", "Segmentation", "__version__", "load_model"]
    assert [getattr(brainseg_cli, name) for name in ("Model", "load_model")] == [api.Model, api.load_model]


def test_there_are_no_other_names() -> None:
    with pytest.raises(AttributeError, match="no attribute 'load_modle'"):
        _ = brainseg_cli.load_modle
    assert not hasattr(brainseg_cli, "Options")


def test_the_examples_of_the_docstrings_run(
    run: Path, other: Path, slices: list[Path], image: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "demo").symlink_to(run)
    (tmp_path / "runs" / "other").symlink_to(other)
    (tmp_path / "slices").symlink_to(slices[0].parent)
    monkeypatch.chdir(tmp_path)
    names = {"load_model": load_model, "model": load_model("runs/demo"), "image": image}
    runner = doctest.DocTestRunner()
    tried = {}
    for test in doctest.DocTestFinder().find(api, "api", extraglobs=names):
        if test.examples:
            told: list[str] = []
            assert runner.run(test, out=told.append).failed == 0, "".join(told)
            tried[test.name] = len(test.examples)
    assert set(tried) == {"api", "api.Segmentation", "api.Model", "api.Model.predict", "api.load_model"}


# arrays


def test_an_array_gives_what_the_network_says_of_it(run: Path, model: Model, image: np.ndarray) -> None:
    found = model.predict(image)
    network, bundle = load_bundle(run)
    probs = Segmenter(TorchNetwork(network, bundle.preprocess, 3, torch.device("cpu"))).predict_probs([image])[0]
    mask = apply_threshold(probs, bundle.threshold)
    np.testing.assert_array_equal(found.probs, probs)
    np.testing.assert_array_equal(found.mask, mask)
    assert 0 < mask.sum() < mask.size and found.mask.dtype == np.uint8 and found.probs.dtype == np.float32
    ood = find_unlike(image, known=[(3, bundle.ranges)])
    assert found.finding == describe_finding(mask, probs) | {"disagreement": None, "ood": ood}
    assert list(found.finding)[-2:] == ["disagreement", "ood"] and found.path is None


def test_a_list_gives_a_list_whatever_the_sizes_and_the_batches(model: Model, rng: np.random.Generator) -> None:
    sizes = [(40, 56), (32, 32), (21, 64), (64, 30), (9, 8)]
    arrays = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
    for batch_size in (1, 2, 5, 100):
        found = model.predict(arrays, batch_size=batch_size)
        assert isinstance(found, list)
        for array, one in zip(arrays, found, strict=True):
            assert one.mask.shape == one.probs.shape == array.shape[:2] and one.path is None
            np.testing.assert_allclose(one.probs, model.predict(array).probs, atol=1e-5)
    assert model.predict(tuple(arrays))[2].mask.shape == (21, 64)


def test_an_empty_list_gives_an_empty_list(model: Model) -> None:
    nothing: list[np.ndarray] = []
    assert model.predict(nothing) == []


def test_a_list_is_segmented_in_batches(model: Model, image: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = count_batches(monkeypatch)
    assert len(model.predict([image] * 7, batch_size=3)) == 7
    assert asked == [3, 3, 1]


def test_grey_is_grey_with_or_without_its_axis(model: Model, image: np.ndarray) -> None:
    grey = image[..., 1]
    flat, deep, spread = model.predict([grey, grey[..., None], np.repeat(grey[..., None], 3, axis=2)])
    assert same(flat, deep)
    assert flat.finding["ood"][0] == "channels" and spread.finding["ood"] == flat.finding["ood"][1:]
    np.testing.assert_array_equal(flat.probs, spread.probs)


def test_how_an_array_lies_in_memory_does_not_matter(model: Model, image: np.ndarray) -> None:
    whole = model.predict([image, np.ascontiguousarray(image[::-1, ::2])])
    locked = image.copy()
    locked.flags.writeable = False
    for array, expected in ((locked, whole[0]), (image[::-1, ::2], whole[1]), (np.asfortranarray(image), whole[0])):
        assert same(model.predict([array, image])[0], expected)
    np.testing.assert_array_equal(locked, image)


def test_16_bits_are_read_as_those_of_a_file(model: Model, phantom: Path) -> None:
    name = patient_name(DEEP)
    path = phantom / name / f"{name}_2.tif"
    raw = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)[..., ::-1]
    assert raw.dtype == np.uint16 and raw.max() > 255
    expected = next(model.predict(path))
    assert same(model.predict(raw), expected)
    assert same(model.predict(raw.astype(">u2")), expected)
    assert expected.probs.std() > 0


@pytest.mark.parametrize(
    ("array", "told"),
    [
        (np.zeros(5, np.uint8), r"shape \(5,\) and type uint8"),
        (np.zeros((2, 40, 56, 3), np.uint8), r"shape \(2, 40, 56, 3\)"),
        (np.zeros((5, 40, 56), np.uint8), r"shape \(5, 40, 56\)"),  # a stack of slices
        (np.zeros((40, 56, 4), np.uint8), r"shape \(40, 56, 4\)"),
        (np.zeros((3, 40, 56), np.uint8), r"shape \(3, 40, 56\)"),
        (np.zeros((0, 56), np.uint8), r"shape \(0, 56\)"),
        (np.zeros((40, 56, 3)), "type float64"),
        (np.zeros((40, 56), np.float32), "type float32"),
        (np.zeros((40, 56), bool), "type bool"),
        (np.zeros((40, 56), np.int16), "type int16"),
        (np.zeros((40, 56), np.uint32), "type uint32"),
    ],
)
def test_other_arrays_are_refused_by_shape_and_type(
    model: Model, image: np.ndarray, array: Any, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = count_batches(monkeypatch)
    with pytest.raises(InputError, match=told) as caught:
        model.predict(array)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=f"^array 2: .*{told}"):
        model.predict([image, image, array], batch_size=1)
    assert asked == []  # before any work


def test_channels_that_the_model_does_not_take_are_refused(run: Path, image: np.ndarray, tmp_path: Path) -> None:
    torch.manual_seed(1)
    of_grey = build_model(ModelConfig(encoder="tu-test_resnet", decoder_channels=(16, 8, 8)), 1)
    save_bundle(tmp_path / "m", of_grey, load_bundle(run)[1].model_copy(update={"channel_names": ["FLAIR"]}))
    model = load_model(tmp_path / "m", device="cpu")
    assert model.predict(image[..., 0]).mask.shape == (40, 56)
    with pytest.raises(InputError, match="array 1: an image of 3 channels, the model takes 1"):
        model.predict([image[..., 0], image])
    write_image(tmp_path / "in" / "1.png", image[..., 0])
    write_image(tmp_path / "in" / "2.png", image)
    found = model.predict(tmp_path / "in")
    assert next(found).path == tmp_path / "in" / "1.png"
    with pytest.raises(InputError, match=r"2\.png: an image of 3 channels, the model takes 1"):
        next(found)


# files


def test_a_folder_comes_in_natural_order_without_masks(model: Model, phantom: Path, slices: list[Path]) -> None:
    found = list(model.predict(slices[0].parent, batch_size=7))
    assert [one.path for one in found] == slices
    for one, expected in zip(found, model.predict([read_image(path) for path in slices]), strict=True):
        assert same(one, expected)
    tree = list(model.predict(str(phantom)))
    assert len(tree) == 33 and {one.path for one in found} < {one.path for one in tree}
    assert any(one.finding["tumour"] for one in tree)


def test_it_is_what_the_command_line_writes(
    model: Model, run: Path, phantom: Path, tmp_path: Path, brainseg: Callable[..., Any]
) -> None:
    exactly = ("--device", "cpu", "--precision", "fp32")  # as `model` computes
    assert brainseg("predict", phantom, "-m", run, "-o", tmp_path / "masks", *exactly).code == 0
    found = list(model.predict(phantom))
    for one in found:
        assert one.path is not None
        written = (tmp_path / "masks" / one.path.relative_to(phantom)).with_suffix(".png")
        np.testing.assert_array_equal(one.mask, read_mask(written))
    assert len(list((tmp_path / "masks").rglob("*.png"))) == len(found) == 33


def test_a_list_of_paths_keeps_its_order(model: Model, slices: list[Path], tmp_path: Path) -> None:
    shutil.copy(slices[0], tmp_path / "x_10.tif")
    shutil.copy(slices[1], tmp_path / "x_9.tif")
    found = list(model.predict([slices[4], str(slices[2]), tmp_path, slices[4]]))
    assert [one.path for one in found] == [slices[4], slices[2], tmp_path / "x_9.tif", tmp_path / "x_10.tif"]


def test_files_are_read_as_they_are_asked_for(
    model: Model, slices: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []

    def watch(path: Path) -> np.ndarray:
        read.append(path)
        return read_image(path)

    monkeypatch.setattr(api, "read_image", watch)
    found = model.predict(slices, batch_size=2)
    assert isinstance(found, Iterator) and read == []
    for at in range(7):
        assert next(found).path == slices[at]
        assert read == slices[: min(at // 2 * 2 + 2, 7)]
    with pytest.raises(StopIteration):
        next(found)


@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_a_file_that_cannot_be_read_is_told_in_its_turn_and_the_others_go_on(
    model: Model, slices: list[Path], tmp_path: Path, batch_size: int
) -> None:
    for number, path in enumerate(slices[:5]):
        shutil.copy(path, tmp_path / f"{number}.tif")
    (tmp_path / "1.tif").write_bytes(b"no image")
    (tmp_path / "2.tif").write_bytes(b"")
    found = model.predict(tmp_path, batch_size=batch_size)
    assert next(found).path == tmp_path / "0.tif"
    for number, told in ((1, "cannot be decoded"), (2, "is empty")):
        with pytest.raises(InputError, match=told) as caught:
            next(found)
        assert caught.value.where == tmp_path / f"{number}.tif"
    rest = list(found)
    assert [one.path for one in rest] == [tmp_path / "3.tif", tmp_path / "4.tif"]
    expected = model.predict([read_image(path) for path in slices[3:5]])
    for one, other in zip(rest, expected, strict=True):
        np.testing.assert_allclose(one.probs, other.probs, atol=1e-5)


def test_what_is_not_there_is_told_at_once(model: Model, slices: list[Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not there"):
        model.predict(tmp_path / "gone.tif")
    with pytest.raises(InputError, match="is not there"):
        model.predict([slices[0], tmp_path / "gone.tif"])
    with pytest.raises(InputError, match="holds no image"):
        model.predict(tmp_path)


# options


def test_the_threshold_is_the_models_unless_told(model: Model, image: np.ndarray, run: Path) -> None:
    assert model.threshold == load_bundle(run)[1].threshold
    assert same(model.predict(image, threshold=model.threshold), model.predict(image))
    assert model.predict(image, threshold=0).mask.all() and not model.predict(image, threshold=1).mask.any()
    median = float(np.median(model.predict(image).probs))
    half = model.predict(image, threshold=median)
    np.testing.assert_array_equal(half.mask, half.probs >= median)


def test_views_are_averaged(model: Model, run: Path, image: np.ndarray, slices: list[Path]) -> None:
    network, bundle = load_bundle(run)
    segmenter = Segmenter(TorchNetwork(network, bundle.preprocess, 3, torch.device("cpu")))
    for tta in ("flips", "d4"):
        found = model.predict(image, tta=tta)  # type: ignore[call-overload]
        np.testing.assert_array_equal(found.probs, segmenter.predict_probs([image], tta=tta)[0])  # type: ignore[arg-type]
        assert not np.array_equal(found.probs, model.predict(image).probs)
    from_file = next(model.predict(slices[3], tta="d4"))
    np.testing.assert_array_equal(from_file.probs, model.predict(image, tta="d4").probs)


@pytest.mark.parametrize("options", [{"largest_component": True}, {"min_size": 40}, {"fill_holes": True}])
def test_masks_are_cleaned_and_the_numbers_are_of_the_clean_one(
    model: Model, rng: np.random.Generator, options: dict[str, Any], tmp_path: Path
) -> None:
    noise = rng.integers(0, 256, (40, 56, 3), dtype=np.uint8)
    level = float(np.quantile(model.predict(noise).probs, 0.6))  # specks and holes
    plain, clean = (model.predict(noise, threshold=level, **some) for some in ({}, options))
    np.testing.assert_array_equal(clean.mask, postprocess(plain.mask, Postprocess(**options)))
    assert clean.mask.any() and not np.array_equal(clean.mask, plain.mask)
    assert clean.finding["area_px"] == clean.mask.sum() != plain.finding["area_px"]
    np.testing.assert_array_equal(clean.probs, plain.probs)
    write_image(tmp_path / "noise.png", noise)
    assert same(next(model.predict(tmp_path / "noise.png", threshold=level, **options)), clean)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"threshold": -0.1}, "threshold of -0.1"),
        ({"threshold": 1.1}, "threshold of 1.1"),
        ({"threshold": float("nan")}, "threshold of nan"),
        ({"batch_size": 0}, "batch of 0"),
        ({"min_size": -1}, "-1"),
        ({"tta": "d8"}, "'d8'"),
    ],
)
def test_options_out_of_range_are_refused_at_once(
    model: Model, image: np.ndarray, slices: list[Path], options: dict[str, Any], told: str
) -> None:
    nothing: list[np.ndarray] = []
    inputs: list[Any] = [image, [image], nothing, slices[0], slices]
    for some in inputs:
        with pytest.raises(UsageError, match=told):
            model.predict(some, **options)


@pytest.mark.parametrize("kind", [None, 5, "mixed", "numbers", "generator"])
def test_other_things_are_refused(model: Model, image: np.ndarray, slices: list[Path], kind: Any) -> None:
    made = {"mixed": [image, slices[0]], "numbers": [1, 2], "generator": (one for one in [image])}
    with pytest.raises(UsageError, match="give an array, a list of arrays, a path or a list of paths"):
        model.predict(made.get(kind, kind))


# models


def test_several_models_are_asked_as_one(run: Path, other: Path, image: np.ndarray, tmp_path: Path) -> None:
    alone = [load_model(path, runtime="torch") for path in (run, other)]
    together = load_model([run, str(other)], runtime="torch")
    assert together.threshold == pytest.approx((alone[0].threshold + 0.2) / 2) and len(together.bundles) == 2
    found, members = together.predict(image), [one.predict(image) for one in alone]
    np.testing.assert_allclose(found.probs, (members[0].probs + members[1].probs) / 2, atol=1e-6)
    np.testing.assert_array_equal(found.mask, found.probs >= together.threshold)
    for level in (together.threshold, float(np.median(found.probs))):
        votes = [apply_threshold(one.probs, level) for one in members]
        assert (disagreement := together.predict(image, threshold=level).finding["disagreement"]) is not None
        assert disagreement == measure_disagreement(votes)
    assert 0 < disagreement < 1  # at the median, which cuts through both
    for number, path in enumerate((run, other)):
        shutil.copytree(path / "model", tmp_path / "cv" / f"fold_{number}" / "model")
    assert same(load_model(tmp_path / "cv", runtime="torch").predict(image), found)


def test_a_name_that_is_no_path_is_told_so(tmp_path: Path) -> None:
    for name in ("lgg-fast", tmp_path / "gone", ["lgg-fast"]):
        with pytest.raises(InputError, match="no built-in model is called so: there is lgg-small") as caught:
            load_model(name)  # type: ignore[arg-type]
        assert caught.value.where is not None and "\n" not in str(caught.value)
    with pytest.raises(InputError, match="holds no model"):
        load_model(tmp_path)


def test_what_cannot_be_one_model_is_refused(run: Path) -> None:
    with pytest.raises(UsageError, match="hold the same model"):
        load_model([run, run])
    with pytest.raises(UsageError, match="no model was given"):
        load_model([])
    with pytest.raises(UsageError, match="no device 'gpu'"):
        load_model(run, device="gpu")


def test_a_model_and_what_it_found_say_what_they_are(model: Model, image: np.ndarray) -> None:
    assert repr(model) == f"<Model of 1 network on torch fp32 cpu, threshold {model.threshold:g}>"
    assert model.device == "torch fp32 cpu" and not model.leaky
    assert model.bundles[0].channel_names == ["pre-contrast", "FLAIR", "post-contrast"]
    found = model.predict(image)
    assert "array" not in repr(found) and "'tumour'" in repr(found)
    with pytest.raises(AttributeError):
        found.mask = found.mask  # type: ignore[misc]


def count_batches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images the network is asked about, call by call."""
    asked: list[int] = []
    original = Segmenter.submit

    def watch(self: Segmenter, prepared: Sequence[Prepared], **options: Any) -> Pending:
        asked.append(len(prepared))
        return original(self, prepared, **options)

    monkeypatch.setattr(Segmenter, "submit", watch)
    return asked
