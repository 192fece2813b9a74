"""A model as a file: it says what PyTorch says, says so of itself, and is whole or not there."""

import gc
import importlib.util
import json
import shutil
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from bundle_sample import name_fastest
from torch.fx.experimental.symbolic_shapes import ShapeEnv

import brainseg_cli.export as export_module
from brainseg_cli.config import Config
from brainseg_cli.data.manifest import load_dataset
from brainseg_cli.errors import BrainsegError, InputError, OutputExistsError, UsageError
from brainseg_cli.export import MAX_LOSS, Comparison, Exported, export
from brainseg_cli.models import export as forms
from brainseg_cli.models.bundle import load_bundle
from brainseg_cli.models.exported import import_runtime, load_openvino
from brainseg_cli.models.locate import find_bundle, open_bundle, read_info
from brainseg_cli.models.network import TorchNetwork
from brainseg_cli.models.parity import Parity
from brainseg_cli.models.runtimes import HALF_ERROR, Choice, open_network
from brainseg_cli.models.segmenter import Network

NAMES = {"onnx": "m.onnx", "openvino": "m.xml", "torchscript": "m.pt", "torch": "m.pt2"}


@pytest.fixture(scope="module")
def made(run: Path, dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Exported]:
    """The run in every format, onnx measured on val; to be read and never written to."""
    folder = tmp_path_factory.mktemp("made")
    told = StringIO()
    with redirect_stdout(told), redirect_stderr(told):
        exported = {
            form: export(run, folder / name, dataset_path=dataset if form == "onnx" else None)
            for form, name in NAMES.items()
        }
    assert told.getvalue() == ""  # exporters print, log and warn
    return exported


@pytest.fixture
def squares(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)


@pytest.fixture
def wanted(run: Path, squares: np.ndarray) -> np.ndarray:
    model, info = load_bundle(run)
    return TorchNetwork(model, info.preprocess, 3, torch.device("cpu")).submit(squares)()


def copy_graph(made: dict[str, Exported]) -> Callable[[object, Path], None]:
    """In place of an exporter, which takes seconds."""
    return lambda _, target: shutil.copyfile(made["onnx"].path, target)


def test_every_format_is_written_alone_and_agrees(made: dict[str, Exported]) -> None:
    folder = made["onnx"].path.parent
    assert {path.name for path in folder.iterdir()} == {*NAMES.values(), "m.bin"}
    for form, exported in made.items():
        assert exported.format == form and exported.precision == "fp32" and exported.met
        assert exported.size_bytes >= exported.path.stat().st_size > 10_000
        for parity in exported.parity.values():
            assert parity.max_error <= 1e-3 and parity.flipped == 0
    assert set(made["onnx"].parity) == {"openvino fp32 cpu", "onnx fp32 cpu"}  # whoever may run it
    assert made["openvino"].size_bytes > (folder / "m.bin").stat().st_size


def test_tracing_leaves_no_cache_of_shapes_behind(run: Path, tmp_path: Path) -> None:
    for write in (forms.export_onnx, lambda exact, target: forms.export_program(exact, target, {"brainseg": ""})):
        known = {id(left) for left in gc.get_objects() if type(left) is ShapeEnv}
        write(forms.load_exact(open_bundle(run / "model")), tmp_path / "made")
        gc.collect()
        left = [each for each in gc.get_objects() if type(each) is ShapeEnv and id(each) not in known]
        assert all(not each.fake_tensor_cache for each in left)


def test_onnx_runs_with_nothing_of_ours(made: dict[str, Exported], squares: np.ndarray, wanted: np.ndarray) -> None:
    session = import_runtime("onnx").InferenceSession(made["onnx"].path, providers=["CPUExecutionProvider"])
    for count in (1, 3):
        (found,) = session.run(["probabilities"], {"pixels": squares[:count]})
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, wanted[:count], atol=1e-3)


def test_openvino_runs_with_nothing_of_ours(made: dict[str, Exported], squares: np.ndarray, wanted: np.ndarray) -> None:
    compiled = load_openvino().compile_model(made["openvino"].path, "CPU")
    np.testing.assert_allclose(compiled({"pixels": squares})["probabilities"], wanted, atol=2e-2)  # may choose bf16


def test_pytorchs_own_formats_run_with_nothing_of_ours(
    run: Path, made: dict[str, Exported], squares: np.ndarray, wanted: np.ndarray
) -> None:
    with forms.quiet(), torch.no_grad():
        said = {"brainseg": ""}
        traced = torch.jit.load(made["torchscript"].path, _extra_files=said)  # type: ignore[no-untyped-call]
        known = {"brainseg": ""}
        program = torch.export.load(made["torch"].path, extra_files=known).module()
        for network in (traced, program):
            for count in (1, 3):
                found = network(torch.from_numpy(squares[:count]))
                np.testing.assert_allclose(found.numpy(), wanted[:count], atol=1e-3)
    assert json.loads(said["brainseg"]) == json.loads(known["brainseg"])
    assert json.loads(said["brainseg"])["channel_names"] == read_info(find_bundle(run)).channel_names


def test_a_file_says_of_itself_what_its_bundle_says(made: dict[str, Exported], run: Path) -> None:
    info = read_info(find_bundle(run))
    for form in ("onnx", "openvino"):
        assert read_info(made[form].path) == info
    said = {each.key: each.value for each in onnx.load(made["onnx"].path).metadata_props}
    assert said["precision"] == "fp32"
    assert "uint8 (N, 32, 32, 3)" in said["input"] and ", ".join(info.channel_names) in said["input"]
    assert f">= {info.threshold:g}" in said["output"]


@pytest.mark.parametrize(
    ("form", "runtime"), [("onnx", "auto"), ("onnx", "onnx"), ("onnx", "openvino"), ("openvino", "auto")]
)
def test_predict_takes_the_file_for_the_run(
    form: str, runtime: Any, made: dict[str, Exported], squares: np.ndarray, wanted: np.ndarray
) -> None:
    path = made[form].path
    network = open_network(open_bundle(path), Choice(runtime))
    assert network.described == ("onnx fp32 cpu" if runtime == "onnx" else name_fastest())
    tolerance = 1e-3 if "fp32" in network.described else HALF_ERROR
    np.testing.assert_allclose(network.submit(squares)(), wanted, atol=tolerance)


@pytest.mark.parametrize(
    ("form", "choice", "told"),
    [
        ("onnx", Choice("torch"), "without PyTorch, not with --runtime torch"),
        ("onnx", Choice(device="cuda"), "on the CPU without PyTorch, not with --device cuda"),
        ("openvino", Choice("onnx"), "--runtime onnx does not read .xml"),
        ("onnx", Choice("onnx", precision="bf16"), "does not compute in bf16"),
        ("onnx", Choice(precision="fp16"), "does not compute in fp16"),
    ],
)
def test_what_a_file_cannot_do_is_said(form: str, choice: Choice, told: str, made: dict[str, Exported]) -> None:
    path = made[form].path
    with pytest.raises(UsageError, match=told) as caught:
        open_network(open_bundle(path), choice)
    assert "\n" not in str(caught.value)


def test_a_file_needs_one_runtime_and_no_exporter(made: dict[str, Exported], monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    missing = {"onnx", "onnxscript", "openvino"}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in missing else find(name))
    path = made["onnx"].path
    assert open_network(open_bundle(path), Choice()).described == "onnx fp32 cpu"
    with pytest.raises(UsageError, match="--runtime openvino needs openvino"):
        open_network(open_bundle(made["openvino"].path), Choice())


def test_on_val_both_are_measured(made: dict[str, Exported], dataset: Path, run: Path) -> None:
    val = made["onnx"].val
    assert val is not None and val.slices == len(load_dataset(dataset).rows("val"))
    assert val.parity.max_error <= 1e-3 and 0 <= val.torch["dice_pooled"] <= 1
    # the run's own best val score, which was measured at a threshold of 0.5, or at the one chosen since
    rows = (run / "thresholds.csv").read_text().splitlines()
    threshold = read_info(find_bundle(run)).threshold
    scores = {float(row.split(",")[0]): dict(zip(rows[0].split(","), row.split(","), strict=True)) for row in rows[1:]}
    assert val.torch["dice_patient"] == pytest.approx(float(scores[threshold]["dice_patient"]), abs=1e-6)
    assert val.exported == pytest.approx(val.torch, abs=1e-3) and val.loss == pytest.approx(dict.fromkeys(val.torch, 0))


@pytest.fixture(scope="module")
def int8(run: Path, dataset: Path, made: dict[str, Exported], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The run in 8 bits, whatever that costs a network of so few channels."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forms, "export_onnx", copy_graph(made))
        patch.setattr("brainseg_cli.export.MAX_LOSS", 1.0)
        folder = tmp_path_factory.mktemp("int8")
        return [export(run, folder / name, int8=True, dataset_path=dataset) for name in ("i.onnx", "i.xml")]


def test_int8_is_near_and_says_so(int8: list[Exported], squares: np.ndarray, wanted: np.ndarray) -> None:
    for exported in int8:
        assert exported.precision == "int8" and exported.val is not None and exported.val.parity.max_error > 0
        network = open_network(open_bundle(exported.path), Choice())
        assert network.described == "openvino int8 cpu"
        found = network.submit(squares)()
        assert 0 < np.abs(found - wanted).max() < 0.2
        np.testing.assert_array_equal(network.submit(squares[:1])(), found[:1])
        with pytest.raises(UsageError, match="computes in int8, not in fp32"):
            open_network(open_bundle(exported.path), Choice(precision="fp32"))
    assert open_bundle(int8[0].path, verify=False).sha256 != open_bundle(int8[1].path, verify=False).sha256
    nodes = onnx.load(int8[0].path).graph.node
    makers = {name: node.op_type for node in nodes for name in node.output}
    for kind, exact in (("Conv", 2), ("ConvTranspose", 0)):  # the first and the last convolution stay fp32
        read = [makers.get(node.input[1]) == "DequantizeLinear" for node in nodes if node.op_type == kind]
        assert len(read) > 2 and read.count(False) == exact, kind


def test_int8_is_made_alike_each_time(
    int8: list[Exported], run: Path, dataset: Path, made: dict[str, Exported], monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:  # fmt: skip
    monkeypatch.setattr(forms, "export_onnx", copy_graph(made))
    monkeypatch.setattr("brainseg_cli.export.MAX_LOSS", 1.0)
    again = export(run, tmp_path / "again.onnx", int8=True, dataset_path=dataset)
    assert open_bundle(again.path, verify=False).sha256 == open_bundle(int8[0].path, verify=False).sha256


@pytest.mark.parametrize("loss", [MAX_LOSS - 1e-6, MAX_LOSS, 0.1, -0.1])
@pytest.mark.parametrize("worse", ["dice_patient", "dice_pooled"])
def test_int8_is_met_by_less_than_the_loss_alone_in_both_scores(loss: float, worse: str) -> None:
    torch_scores = {"dice_patient": 0.8, "dice_pooled": 0.8}
    val = Comparison("openvino int8 cpu", 3, Parity(0.1, 0.01), torch_scores, torch_scores | {worse: 0.8 - loss})
    told = Exported(Path("m.onnx"), "onnx", "int8", 9, {"openvino int8 cpu": Parity(0.1, 0.0)}, val).to_json()
    assert told["met"] == (loss < MAX_LOSS) and told["path"] == ("m.onnx" if told["met"] else None)
    assert told["val"]["loss"][worse] == pytest.approx(loss)
    assert json.loads(json.dumps(told))["parity"]["openvino int8 cpu"] == {"max_error": 0.1, "flipped": 0.0}


def test_int8_that_costs_too_much_is_not_left_behind(
    run: Path, dataset: Path, made: dict[str, Exported], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(forms, "export_onnx", copy_graph(made))
    monkeypatch.setattr("brainseg_cli.export.MAX_LOSS", -1.0)
    (tmp_path / "m.onnx").write_text("what was there")
    exported = export(run, tmp_path / "m.onnx", int8=True, dataset_path=dataset, overwrite=True)
    assert not exported.met and exported.val is not None
    assert [path.read_text() for path in tmp_path.iterdir()] == ["what was there"]


def test_int8_is_judged_by_the_runtime_that_loses_most_by_it(
    run: Path, dataset: Path, made: dict[str, Exported], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(forms, "export_onnx", copy_graph(made))
    compare = export_module._compare

    def lose_by_onnx(network: Network, *arguments: Any) -> Comparison:
        found = compare(network, *arguments)
        lost = {name: 0.1 if network.described.startswith("onnx") else 0.0 for name in found.torch}
        return replace(found, exported={name: score - lost[name] for name, score in found.torch.items()})

    monkeypatch.setattr(export_module, "_compare", lose_by_onnx)
    exported = export(run, tmp_path / "m.onnx", int8=True, dataset_path=dataset)
    assert exported.val is not None and exported.val.runtime == "onnx int8 cpu" and not exported.met
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("form", ["onnx", "torch"])
def test_a_file_that_does_not_agree_is_not_left_behind(
    form: Any, run: Path, made: dict[str, Exported], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(forms, "MAX_ERROR", -1.0)
    monkeypatch.setattr(forms, "export_onnx", copy_graph(made))
    monkeypatch.setattr(forms, "export_program", lambda _, target, __: shutil.copyfile(made["torch"].path, target))
    with pytest.raises(BrainsegError, match="differs from PyTorch"):
        export(run, tmp_path, form=form)
    assert list(tmp_path.iterdir()) == []


def test_another_networks_file_does_not_agree(
    other_run: Path, made: dict[str, Exported], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(forms, "export_onnx", copy_graph(made))  # of `run`
    with pytest.raises(BrainsegError, match="differs from PyTorch by up to"):
        export(other_run, tmp_path / "m.onnx")


def test_what_is_there_is_replaced_only_if_asked(
    run: Path, made: dict[str, Exported], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(forms, "export_onnx", copy_graph(made))
    (tmp_path / "m.bin").write_text("there")
    with pytest.raises(OutputExistsError, match=r"m\.bin: is already there"):
        export(run, tmp_path / "m.xml")
    assert [path.name for path in tmp_path.iterdir()] == ["m.bin"]
    export(run, tmp_path / "m.xml", overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.bin", "m.xml"]
    path = tmp_path / "m.xml"
    assert open_network(open_bundle(path), Choice()).described == name_fastest()


def test_a_folder_names_the_file_as_the_run(
    run: Path, made: dict[str, Exported], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(forms, "export_onnx", copy_graph(made))
    for source, out in ((run, tmp_path), (run / "model", tmp_path / "new" / "folder")):
        assert export(source, out).path == out / f"{run.name}.onnx"
        assert (out / f"{run.name}.onnx").is_file()


def test_what_cannot_be_asked_for_is_said_before_the_work(
    run: Path,
    other_run: Path,
    dataset: Path,
    made: dict[str, Exported],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(forms, "load_exact", lambda _: pytest.fail("work was begun"))
    folds = tmp_path / "cv"
    for number, source in enumerate((run, other_run)):
        shutil.copytree(source / "model", folds / f"fold{number}" / "model", ignore=shutil.ignore_patterns("cache"))
    target = tmp_path / "m.onnx"
    for told, call in {
        "holds 2 models, and a file holds one": lambda: export(folds, target),
        "is an exported file": lambda: export(made["onnx"].path, target),
        "the format torch ends in .pt2": lambda: export(run, target, form="torch"),
        "ends in .onnx": lambda: export(run, tmp_path / "m.zip"),
        "--int8 is for openvino and onnx, not for torch": lambda: export(
            run, tmp_path / "m.pt2", int8=True, dataset_path=dataset
        ),
        "--data DATASET": lambda: export(run, target, int8=True),
    }.items():
        with pytest.raises(UsageError, match=told) as caught:
            call()
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="holds no model"):
        export(tmp_path / "gone", target)
    assert [path.name for path in tmp_path.iterdir()] == ["cv"]


def test_what_is_not_installed_is_named(
    run: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxruntime" else find(name))
    with pytest.raises(UsageError, match=r"--int8 needs onnxruntime \(pip install onnxruntime\)"):
        export(run, tmp_path / "m.xml", int8=True, dataset_path=dataset)


def test_a_dataset_that_is_not_the_models_own_is_said(
    run: Path, dataset: Path, made: dict[str, Exported], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(forms, "export_onnx", copy_graph(made))
    assert made["onnx"].notes == []
    other = shutil.copytree(dataset, tmp_path / "other")
    table = (other / "slices.csv").read_text()
    (other / "slices.csv").write_text(table.replace(",train\n", ",TRAIN\n").replace(",test\n", ",train\n"))
    exported = export(run, tmp_path / "m.onnx", dataset_path=other, verify=False)
    assert len(exported.notes) == 1 and "not the one the model was trained with" in exported.notes[0]
    (other / "slices.csv").write_text(table.replace(",val\n", ",train\n"))
    with pytest.raises(InputError, match="no val slices with tumour"):
        export(run, tmp_path / "n.onnx", dataset_path=other, verify=False)


def test_of_a_k_fold_the_models_own_val_is_taken(
    phantom: Path, tiny: Callable[..., Config], made: dict[str, Exported], monkeypatch: pytest.MonkeyPatch, run: Path,
    tmp_path: Path,
) -> None:  # fmt: skip
    from brainseg_cli import prepare
    from brainseg_cli.models.bundle import write_info

    prepare.write_dataset(prepare.check(phantom, split="kfold:3", workers=1), tmp_path / "folds")
    folds = load_dataset(tmp_path / "folds")
    model = shutil.copytree(run / "model", tmp_path / "run" / "model", ignore=shutil.ignore_patterns("cache"))
    monkeypatch.setattr(forms, "export_onnx", copy_graph(made))
    with pytest.raises(UsageError, match="trained with none of them"):
        export(model, tmp_path / "m.onnx", dataset_path=tmp_path / "folds")
    for fold in range(3):
        own = folds.with_fold(fold)
        known = {"split_hash": own.split_hash(), "dataset_hash": own.info.content_hash}
        write_info(model, read_info(model).model_copy(update=known))
        exported = export(model, tmp_path / "m.onnx", dataset_path=tmp_path / "folds", overwrite=True)
        assert exported.notes == [] and exported.val is not None and exported.val.slices == len(own.rows("val"))


def test_a_network_that_has_no_such_form_is_told(run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("an operator\nand a page about it")

    for module, name in ((torch.onnx, "export"), (torch.jit, "trace"), (torch.export, "export")):
        monkeypatch.setattr(module, name, refuse)
    for form in ("onnx", "openvino", "torchscript", "torch"):
        with pytest.raises(BrainsegError, match=r"has no [\w.]+ form: an operator$"):
            export(run, tmp_path, form=form)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []
