"""What runs a network: every runtime says the same, and where one cannot, another does or the reason is told."""

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bundle_sample import name_fastest

from brainseg_cli.config import PreprocessConfig
from brainseg_cli.errors import BrainsegError, InputError, UsageError
from brainseg_cli.models import export, runtimes
from brainseg_cli.models import exported as running
from brainseg_cli.models.locate import BundleInfo, open_bundle
from brainseg_cli.models.runtimes import Choice, open_network
from brainseg_cli.models.segmenter import Network, Segmenter

BY_EXPORT = ("openvino", "onnx")


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtimes, "may_have_gpu", lambda: False)


def hide(monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
    """As if these were not installed."""
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in modules else find(name))


@pytest.mark.parametrize("runtime", BY_EXPORT)
def test_an_export_says_what_pytorch_says(runtime: str, networks: dict[str, Network], squares: np.ndarray) -> None:
    found, wanted = (networks[name].submit(squares)() for name in (runtime, "torch"))
    assert found.shape == wanted.shape == (7, 32, 32) and found.dtype == wanted.dtype == np.float32
    assert np.ptp(wanted) > 0.1  # there is something to agree on
    np.testing.assert_allclose(found, wanted, atol=1e-3)


@pytest.mark.parametrize("runtime", ["torch", *BY_EXPORT])
@pytest.mark.parametrize("batch_size", [1, 2, 3, 5])
def test_what_a_slice_gives_does_not_depend_on_its_batch(
    runtime: str, batch_size: int, networks: dict[str, Network], squares: np.ndarray
) -> None:
    network = networks[runtime]
    together = network.submit(squares)()
    pending = [network.submit(squares[start : start + batch_size]) for start in range(0, 7, batch_size)]
    np.testing.assert_array_equal(np.concatenate([each() for each in pending]), together)


@pytest.mark.parametrize("runtime", BY_EXPORT)
def test_every_size_and_view_comes_out_alike(
    runtime: str, networks: dict[str, Network], rng: np.random.Generator
) -> None:
    images = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in [(40, 56), (9, 30), (32, 32)]]
    images.append(np.zeros((20, 20, 3), np.uint8))
    found, wanted = (Segmenter(networks[name]).predict_probs(images, tta="d4") for name in (runtime, "torch"))
    for one, other, image in zip(found, wanted, images, strict=True):
        assert one.shape == image.shape[:2]
        np.testing.assert_allclose(one, other, atol=1e-3)


@pytest.mark.parametrize("runtime", BY_EXPORT)
def test_a_slice_is_segmented_without_loading_pytorch(runtime: str, exported: Path, networks: object) -> None:
    code = (
        "import sys; from pathlib import Path; import numpy as np\n"
        "from brainseg_cli.models.ensemble import load_ensemble\n"
        "from brainseg_cli.models.runtimes import Choice\n"
        "reached = []\n"
        "sys.addaudithook(lambda name, _: reached.append(name) if name.startswith(('socket.', 'os.fork')) else None)\n"
        "ensemble = load_ensemble([Path(sys.argv[1])], Choice(sys.argv[2], 'cpu'))\n"
        "found = ensemble.predict([np.full((20, 30, 3), 50, np.uint8)], tta='flips')[0]\n"
        "heavy = {'torch', 'segmentation_models_pytorch', 'onnx', 'safetensors', 'pandas'} & set(sys.modules)\n"
        "print(found.probs.shape, ensemble.described, sorted(heavy), reached)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, exported, runtime], capture_output=True, text=True, timeout=120, check=True
    )
    # nor is anything sent over the network, as OpenVINO does when it is imported whole
    assert done.stdout.strip() == f"(20, 30) {name_fastest() if runtime == 'openvino' else 'onnx fp32 cpu'} [] []"
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("missing", "expected"),
    [
        ((), "the fastest"),
        (("openvino",), "onnx fp32 cpu"),
        (("openvino", "onnxruntime"), "torch fp32 cpu"),
        (("onnxscript",), "torch fp32 cpu"),
    ],
)
def test_auto_takes_the_fastest_that_is_there(
    missing: tuple[str, ...], expected: str, exported: Path, info: BundleInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    hide(monkeypatch, *missing)
    expected = name_fastest() if expected == "the fastest" else expected
    assert open_network(open_bundle(exported), Choice()).described == expected


@pytest.mark.parametrize(
    ("choice", "told"),
    [
        (Choice("openvino", "cuda"), "computes on the CPU, not on 'cuda'"),
        (Choice("onnx", "mps"), "computes on the CPU, not on 'mps'"),
        (Choice("openvino", "cpu", "fp16"), "does not compute in fp16"),
        (Choice("onnx", "cpu", "bf16"), "does not compute in bf16"),
        (Choice("torch", "cpu", "fp16"), "needs a GPU"),
        (Choice("auto", "cpu", "fp16"), "needs a GPU"),
        (Choice("auto", "tpu"), "no device 'tpu'"),
    ],
)
def test_what_cannot_be_combined_is_said_at_once(
    choice: Choice, told: str, copied: Path, info: BundleInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "export_onnx", lambda *_: pytest.fail("nothing is to be exported"))
    for file in (copied / "cache").iterdir():
        file.unlink()
    with pytest.raises(UsageError, match=told) as caught:
        open_network(open_bundle(copied), choice)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "given"), [("runtime", "tensorrt"), ("precision", "half")])
def test_what_does_not_exist_is_told_with_what_does(name: str, given: Any) -> None:
    with pytest.raises(UsageError, match=rf"there is no {name} '{given}' \(one of auto, "):
        Choice(**{name: given})


def test_bf16_is_refused_where_the_cpu_has_none(
    exported: Path, info: BundleInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "computes_bf16", lambda: False)
    for runtime in ("auto", "openvino"):
        with pytest.raises(UsageError, match="bf16: this CPU does not"):
            open_network(open_bundle(exported), Choice(runtime, "cpu", "bf16"))  # type: ignore[arg-type]


def test_bf16_is_near_where_the_cpu_has_it(
    exported: Path, info: BundleInfo, networks: dict[str, Network], squares: np.ndarray
) -> None:
    if not running.computes_bf16():
        pytest.skip("this CPU has no bf16")
    network = open_network(open_bundle(exported), Choice("openvino", "cpu", "bf16"))
    assert network.described == "openvino bf16 cpu"
    error = np.abs(network.submit(squares)() - networks["torch"].submit(squares)()).max()
    assert 0 < error < 0.05


def test_what_is_not_installed_is_named(exported: Path, info: BundleInfo, monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, "onnxruntime", "onnxscript")
    with pytest.raises(UsageError, match=r"--runtime onnx needs onnxruntime, onnxscript \(pip install"):
        open_network(open_bundle(exported), Choice("onnx", "cpu"))


def refuse(*_: object, **__: object) -> None:
    raise ValueError("an operator that ONNX has not\nand much more")


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda patch: patch.setattr(torch.onnx, "export", refuse), "no ONNX form: an operator that ONNX has not"),
        (lambda patch: patch.setattr(export, "MAX_ERROR", -1.0), "differs from PyTorch by up to"),
    ],
    ids=["not to be exported", "another answer"],
)
def test_where_the_faster_one_fails_pytorch_does_it_and_it_is_told(
    spoil: Callable[[Any], None], told: str, copied: Path, info: BundleInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = info.model_copy(update={"preprocess": PreprocessConfig(size=32, intensity="unit")})  # not in the cache
    spoil(monkeypatch)
    heard: list[str] = []
    bundle = replace(open_bundle(copied), info=changed)
    network = open_network(bundle, Choice("auto", "cpu"), tell=heard.append)
    assert network.described == "torch fp32 cpu"
    assert len(heard) == 2 and told in heard[1] and "PyTorch runs the model instead" in heard[1]
    assert not any("\n" in sentence for sentence in heard)
    with pytest.raises(BrainsegError, match=told):  # asked for by name, nothing else is taken for it
        open_network(bundle, Choice("openvino", "cpu"))
    assert len(list((copied / "cache").iterdir())) == 2  # what was there; nothing is left of this


def test_an_interrupt_while_a_runtime_is_loaded_is_not_taken_for_its_fault(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_off(*_: Any) -> None:
        raise ImportError("initialization failed") from KeyboardInterrupt()

    monkeypatch.setattr(runtimes, "open_exported", break_off)
    with pytest.raises(KeyboardInterrupt):
        open_network(open_bundle(copied), Choice("auto", "cpu"))


def test_a_runtime_that_breaks_when_it_is_loaded_is_no_fault_of_ours(
    copied: Path, info: BundleInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_off(*_: Any) -> None:
        raise RuntimeError("illegal instruction\nand where")

    monkeypatch.setattr(runtimes, "open_exported", break_off)
    heard: list[str] = []
    assert open_network(open_bundle(copied), Choice("auto", "cpu"), tell=heard.append).described == "torch fp32 cpu"
    assert len(heard) == 1 and "openvino cannot run this network: illegal instruction; PyTorch" in heard[0]
    with pytest.raises(BrainsegError, match=r"openvino cannot run this network: illegal instruction$"):
        open_network(open_bundle(copied), Choice("openvino", "cpu"))


def test_auto_in_bf16_takes_who_computes_in_it(
    exported: Path, info: BundleInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    hide(monkeypatch, "openvino")
    assert open_network(open_bundle(exported), Choice("auto", "cpu", "bf16")).described == "torch bf16 cpu"


def test_a_bundle_that_cannot_be_loaded_is_told_once(copied: Path, info: BundleInfo) -> None:
    (copied / "model.safetensors").write_bytes(b"")
    heard: list[str] = []
    with pytest.raises(InputError, match="checksum"):
        open_network(open_bundle(copied), Choice(), tell=heard.append)
    assert not any("instead" in sentence for sentence in heard)


def test_a_gpu_is_asked_for_only_where_there_may_be_one(
    exported: Path, info: BundleInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtimes, "may_have_gpu", lambda: True)
    monkeypatch.setattr(runtimes, "_has_gpu", lambda: False)  # a driver, and a PyTorch without CUDA
    assert open_network(open_bundle(exported), Choice()).described == name_fastest()
    monkeypatch.setattr(runtimes, "_has_gpu", lambda: True)
    monkeypatch.setattr(runtimes, "_open_torch", lambda *_: "on the GPU")
    assert open_network(open_bundle(exported), Choice()) == "on the GPU"  # type: ignore[comparison-overlap]
    assert open_network(open_bundle(exported), Choice(device="cpu")).described == name_fastest()
