"""Mixed precision: which convolutions it is, how far off they are, and when it is chosen."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bundle_sample import about

from brainseg_cli.config import ModelConfig, PreprocessConfig
from brainseg_cli.errors import UsageError
from brainseg_cli.models import export, runtimes
from brainseg_cli.models import exported as running
from brainseg_cli.models.build import build_model
from brainseg_cli.models.bundle import save_bundle
from brainseg_cli.models.locate import open_bundle
from brainseg_cli.models.metadata import MIXED, read_metadata, read_mixed_error
from brainseg_cli.models.mixed import CONVOLUTIONS, mix_precision, round_to_bf16
from brainseg_cli.models.runtimes import Choice, open_network

SIZE = 64


def set_bf16(patch: pytest.MonkeyPatch, *, able: bool) -> None:
    for module in (running, runtimes, export):
        patch.setattr(module, "computes_bf16", lambda: able)


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose network goes down to maps of a 32nd of the image, exported by a CPU that has bf16, or says so."""
    torch.manual_seed(3)
    model = build_model(ModelConfig(encoder="tu-test_resnet", decoder_channels=(32, 16, 16, 8, 8)), 3)
    with torch.no_grad():
        model.train()(torch.rand(4, 3, SIZE, SIZE))
    folder = tmp_path_factory.mktemp("deep") / "model"
    save_bundle(folder, model.eval(), about(preprocess=PreprocessConfig(size=SIZE)))
    with pytest.MonkeyPatch.context() as patch:
        set_bf16(patch, able=True)
        open_network(open_bundle(folder), Choice("openvino", "cpu"))
    return folder


@pytest.fixture
def graph(deep: Path) -> Path:
    """Its export."""
    (found,) = (deep / "cache").glob("*.openvino.onnx")
    return found


@pytest.fixture
def bf16(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A CPU that has bf16, or says so: OpenVINO then computes in fp32 what it is told to compute in bf16."""
    set_bf16(monkeypatch, able=True)
    return


def test_the_convolutions_on_the_smallest_maps_are_changed_and_no_others(graph: Path) -> None:
    model = running.load_openvino().read_model(graph)
    model.reshape([1, SIZE, SIZE, 3])
    count = mix_precision(model, 8)
    ops: list[Any] = [op for op in model.get_ordered_ops() if op.get_type_name() in CONVOLUTIONS]
    kinds = {(op.output(0).shape[2], op.output(0).element_type.get_type_name()) for op in ops}
    assert kinds == {(64, "f32"), (32, "f32"), (16, "f32"), (8, "bf16"), (4, "bf16"), (2, "bf16")}
    assert count == sum(op.output(0).shape[2] <= 8 for op in ops) > 6
    others = [op for op in model.get_ordered_ops() if op.get_type_name() not in (*CONVOLUTIONS, "Constant", "Convert")]
    assert not any("bf16" in out.element_type.get_type_name() for op in others for out in op.outputs())


def test_it_is_near_and_every_runtime_says_what_it_computes_in(deep: Path, rng: np.random.Generator) -> None:
    if not running.computes_bf16():
        pytest.skip("this CPU has no bf16")
    bundle = open_bundle(deep)
    pixels = rng.integers(0, 256, (3, SIZE, SIZE, 3), dtype=np.uint8)
    wanted = open_network(bundle, Choice("torch", "cpu")).submit(pixels)()
    errors = {}
    for name in ("fp32", "mixed", "bf16"):
        network = open_network(bundle, Choice("openvino", "cpu", name))  # type: ignore[arg-type]
        assert network.described == f"openvino {name} cpu"
        errors[name] = float(np.abs(network.submit(pixels)() - wanted).mean())
    assert errors["fp32"] < errors["mixed"] / 10 and errors["mixed"] < errors["bf16"] < 0.01


def test_weights_are_rounded_to_the_nearest(rng: np.random.Generator) -> None:
    ties = [1.00390625, 1.01171875] * 10
    values = np.concatenate([rng.standard_normal((50, 20)), [ties]]).astype(np.float32)
    wanted = torch.from_numpy(values).bfloat16().float().numpy()
    rounded = round_to_bf16(values)
    np.testing.assert_array_equal(rounded, wanted)
    # and OpenVINO, which cuts off, has nothing left to cut
    openvino = running.import_runtime("openvino")
    kept = openvino.opset13.constant(rounded, dtype=openvino.Type.bf16).get_data(dtype=np.float32)
    np.testing.assert_array_equal(kept, wanted)


@pytest.mark.usefixtures("bf16")
def test_auto_takes_it_where_it_agreed_when_the_export_was_made(deep: Path, graph: Path) -> None:
    assert 0 <= read_mixed_error(read_metadata(graph, graph.read_bytes())) <= runtimes.HALF_ERROR
    bundle = open_bundle(deep)
    assert open_network(bundle, Choice()).described == "openvino mixed cpu"
    assert open_network(bundle, Choice(precision="mixed")).described == "openvino mixed cpu"
    assert open_network(bundle, Choice(precision="fp32")).described == "openvino fp32 cpu"
    assert open_network(bundle, Choice("onnx")).described == "onnx fp32 cpu"


def test_auto_is_fp32_where_it_did_not_agree_or_the_cpu_has_none(deep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = open_bundle(deep)
    set_bf16(monkeypatch, able=False)
    assert open_network(bundle, Choice()).described == "openvino fp32 cpu"
    with pytest.raises(UsageError, match="mixed: this CPU does not compute in bf16"):
        open_network(bundle, Choice(precision="mixed"))
    set_bf16(monkeypatch, able=True)
    monkeypatch.setattr(runtimes, "HALF_ERROR", -1.0)
    assert open_network(bundle, Choice()).described == "openvino fp32 cpu"


@pytest.mark.parametrize("told", [{}, {MIXED: "little"}, {MIXED: "nan"}, {MIXED: "-1"}])
def test_a_file_that_does_not_say_is_not_believed(told: dict[str, str]) -> None:
    assert read_mixed_error(told) == float("inf")
    assert read_mixed_error({MIXED: "0.01"}) == 0.01


@pytest.mark.usefixtures("bf16")
def test_a_network_without_such_maps_has_nothing_to_mix(
    deep: Path, graph: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "INNER", SIZE)
    bundle = open_bundle(deep)
    assert export.judge_mixed(export.load_exact(bundle), graph) == {}
    with pytest.raises(UsageError, match="no maps small enough"):
        open_network(bundle, Choice(precision="mixed"))


def test_pytorch_and_onnx_runtime_have_none(deep: Path) -> None:
    for runtime, told in (("torch", "PyTorch does not"), ("onnx", "onnx does not")):
        with pytest.raises(UsageError, match=f"{told} compute in mixed"):
            open_network(open_bundle(deep), Choice(runtime, "cpu", "mixed"))  # type: ignore[arg-type]
