"""Mixed precision: which convolutions it is, how far off they are, and when it is chosen."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bundle_sample import about
from torch import nn

from brainseg_cli.config import ModelConfig, PreprocessConfig
from brainseg_cli.errors import BrainsegError, UsageError
from brainseg_cli.models import export, runtimes
from brainseg_cli.models import exported as running
from brainseg_cli.models.build import build_model
from brainseg_cli.models.bundle import save_bundle
from brainseg_cli.models.locate import open_bundle
from brainseg_cli.models.metadata import read_properties
from brainseg_cli.models.mixed import CONVOLUTIONS, MIXED, mix_precision, read_mixed_error, round_to_bf16
from brainseg_cli.models.runtimes import Choice, open_network

SIZE = 64


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtimes, "may_have_gpu", lambda: False)


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose network goes down to maps of a 32nd of the image, and its export."""
    torch.manual_seed(3)
    model = build_model(ModelConfig(encoder="tu-test_resnet", decoder_channels=(32, 16, 16, 8, 8)), 3)
    with torch.no_grad():
        model.train()(torch.rand(4, 3, SIZE, SIZE))
    folder = tmp_path_factory.mktemp("deep") / "model"
    save_bundle(folder, model.eval(), about(preprocess=PreprocessConfig(size=SIZE)))
    open_network(open_bundle(folder), Choice("openvino", "cpu"))
    return folder


@pytest.fixture
def graph(deep: Path) -> Path:
    """Its export."""
    (found,) = (deep / "cache").glob("*.openvino.onnx")
    return found


def set_bf16(patch: pytest.MonkeyPatch, *, able: bool) -> None:
    """A CPU that has bf16 or not, or says so."""
    patch.setattr(running, "computes_bf16", lambda: able)
    patch.setattr(runtimes, "multiplies_bf16", lambda: able)


def mix(graph: Path, largest: int | None) -> tuple[int, list[Any]]:
    """How many operations were changed, and all there are now."""
    model = running.load_openvino().read_model(graph)
    model.reshape([1, SIZE, SIZE, 3])
    count = mix_precision(model, largest)
    return count, model.get_ordered_ops()


def test_the_convolutions_on_the_smallest_maps_are_changed_and_no_others(graph: Path) -> None:
    count, ops = mix(graph, 8)
    convolutions = [op for op in ops if op.get_type_name() in CONVOLUTIONS]
    kinds = {(op.output(0).shape[2], op.output(0).element_type.get_type_name()) for op in convolutions}
    tiles = SIZE // 4  # of the last convolution
    assert kinds == {(64, "f32"), (32, "f32"), (tiles, "f32"), (8, "bf16"), (4, "bf16"), (2, "bf16")}
    assert count == sum(op.output(0).shape[2] <= 8 for op in convolutions) > 6
    others = [op for op in ops if op.get_type_name() not in (*CONVOLUTIONS, "Convert")]
    assert not any("bf16" in out.element_type.get_type_name() for op in others for out in op.outputs())
    assert mix(graph, 1)[0] == 0


def test_all_of_them_are_without_a_limit_but_the_depthwise(tmp_path: Path) -> None:
    grouped, depthwise = (nn.Conv2d(8, 8, 3, groups=groups) for groups in (2, 8))
    model = nn.Sequential(nn.Conv2d(3, 8, 3), grouped, depthwise, nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 1, 1))
    with export.quiet():
        torch.onnx.export(model.eval(), (torch.rand(1, 3, 16, 16),), tmp_path / "m.onnx", dynamo=True, verbose=False)
    read = running.load_openvino().read_model(tmp_path / "m.onnx")
    assert mix_precision(read, None) == 2  # the first and the one in two groups: the last has a single pixel
    for op in read.get_ordered_ops():
        if op.get_type_name() in CONVOLUTIONS and op.output(0).element_type.get_type_name() == "bf16":
            (weights,) = op.input_value(1).get_node().input_values()  # of the conversion
            values = weights.get_node().get_data()
            np.testing.assert_array_equal(values, round_to_bf16(values))


def test_weights_are_rounded_to_the_nearest(rng: np.random.Generator) -> None:
    ties = [1.00390625, 1.01171875] * 10
    values = np.concatenate([rng.standard_normal((50, 20)), [ties]]).astype(np.float32)
    wanted = torch.from_numpy(values).bfloat16().float().numpy()
    rounded = round_to_bf16(values)
    np.testing.assert_array_equal(rounded, wanted)
    # and OpenVINO, which cuts off, has nothing left to cut
    openvino = running.import_runtime("openvino")
    opset = openvino.opset13
    folded = openvino.Model([opset.convert(opset.convert(opset.constant(rounded), "bf16"), "f32")], [])
    request = running.load_openvino().compile_model(folded, "CPU").create_infer_request()
    request.infer({})
    np.testing.assert_array_equal(request.get_output_tensor(0).data, wanted)


def test_it_is_near_and_as_near_as_it_says(deep: Path, graph: Path, rng: np.random.Generator) -> None:
    if not running.multiplies_bf16():
        pytest.skip("this CPU has no bf16")
    bundle = open_bundle(deep)
    pixels = rng.integers(0, 256, (3, SIZE, SIZE, 3), dtype=np.uint8)
    wanted = open_network(bundle, Choice("torch", "cpu")).submit(pixels)()
    errors = {}
    for name in ("fp32", "mixed", "bf16"):
        network = open_network(bundle, Choice("openvino", "cpu", name))  # type: ignore[arg-type]
        assert network.described == f"openvino {name} cpu"
        np.testing.assert_array_equal(network.submit(pixels[1:2])(), network.submit(pixels)()[1:2])
        errors[name] = float(np.abs(network.submit(pixels)() - wanted).mean())
    assert errors["fp32"] < errors["mixed"] / 10 and errors["mixed"] < errors["bf16"] < 0.01
    exact = export.load_exact(bundle)
    network = open_network(bundle, Choice("openvino", "cpu", "mixed"))
    measured = export.measure_parity(network, exact.network).max_error
    assert measured / 3 < read_mixed_error(read_properties(graph, graph.read_bytes())) < measured * 3


def test_auto_takes_it_where_it_agrees_and_the_cpu_has_it(deep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = open_bundle(deep)
    set_bf16(monkeypatch, able=True)
    assert open_network(bundle, Choice()).described == "openvino mixed cpu"
    assert open_network(bundle, Choice(precision="mixed")).described == "openvino mixed cpu"
    assert open_network(bundle, Choice(precision="fp32")).described == "openvino fp32 cpu"
    assert open_network(bundle, Choice("onnx")).described == "onnx fp32 cpu"
    with monkeypatch.context() as patch:
        patch.setattr(runtimes, "HALF_ERROR", 0.0)
        assert open_network(bundle, Choice()).described == "openvino fp32 cpu"
    set_bf16(monkeypatch, able=False)
    assert open_network(bundle, Choice()).described == "openvino fp32 cpu"
    with pytest.raises(UsageError, match="mixed: this CPU does not compute in bf16"):
        open_network(bundle, Choice(precision="mixed"))


def test_what_cannot_be_loaded_so_is_run_in_fp32(deep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_bf16(monkeypatch, able=True)
    monkeypatch.setattr(running, "mix_precision", lambda *_: 0)
    assert open_network(open_bundle(deep), Choice()).described == "openvino fp32 cpu"
    with pytest.raises(UsageError, match="no maps small enough"):
        open_network(open_bundle(deep), Choice(precision="mixed"))

    def refuse(*_: object) -> int:
        raise RuntimeError("no such product")

    monkeypatch.setattr(running, "mix_precision", refuse)
    assert open_network(open_bundle(deep), Choice()).described == "openvino fp32 cpu"
    with pytest.raises(BrainsegError, match=r"cannot run it in mixed: .*no such product"):
        open_network(open_bundle(deep), Choice(precision="mixed"))


@pytest.mark.parametrize("broken", [RuntimeError("could not execute a primitive"), np.nan])
def test_what_cannot_be_computed_so_is_run_in_fp32(
    deep: Path, broken: RuntimeError | float, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_bf16(monkeypatch, able=True)

    def compute(pixels: np.ndarray) -> np.ndarray:
        if isinstance(broken, RuntimeError):
            raise broken
        return np.full(pixels.shape[:3], broken, np.float32)

    def open_broken(*given: Any) -> running.ExportedNetwork:
        network = running.open_exported(*given)
        if given[-1] == "mixed":
            network._infer = compute
        return network

    monkeypatch.setattr(runtimes, "open_exported", open_broken)
    assert open_network(open_bundle(deep), Choice()).described == "openvino fp32 cpu"
    assert open_network(open_bundle(deep), Choice(precision="mixed")).described == "openvino mixed cpu"


def test_on_a_machine_with_a_gpu_it_is_the_cpus(deep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_bf16(monkeypatch, able=True)
    monkeypatch.setattr(runtimes, "may_have_gpu", lambda: True)
    monkeypatch.setattr(runtimes, "_has_gpu", lambda: True)
    assert open_network(open_bundle(deep), Choice(precision="mixed")).described == "openvino mixed cpu"


def test_who_has_none_says_so(deep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for runtime, told in (("torch", "PyTorch does not"), ("onnx", "onnx does not")):
        with pytest.raises(UsageError, match=f"{told} compute in mixed"):
            open_network(open_bundle(deep), Choice(runtime, "cpu", "mixed"))  # type: ignore[arg-type]

    def refuse(*_: object) -> None:
        raise BrainsegError("there is no form for it")

    set_bf16(monkeypatch, able=True)
    monkeypatch.setattr(runtimes, "_open_export", refuse)
    with pytest.raises(BrainsegError, match="there is no form for it"):  # PyTorch would be no help
        open_network(open_bundle(deep), Choice(precision="mixed"))


@pytest.mark.parametrize("told", [{}, {MIXED: "little"}, {MIXED: "nan"}, {MIXED: "-1"}])
def test_a_file_that_does_not_say_is_not_believed(told: dict[str, str]) -> None:
    assert read_mixed_error(told) == float("inf")
    assert read_mixed_error({MIXED: "0.01"}) == 0.01
