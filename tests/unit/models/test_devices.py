"""Which device, and which precision on it."""

import pytest
import torch

from brainseg_cli.errors import UsageError
from brainseg_cli.models import devices
from brainseg_cli.models.devices import choose_device, choose_precision, describe_device, full_precision, list_devices


def test_a_cpu_is_always_there() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    assert any(name.startswith("cpu (") for name in list_devices())
    assert describe_device(torch.device("cpu")) == f"cpu ({torch.get_num_threads()} threads)"


@pytest.mark.parametrize(
    ("cuda", "mps", "chosen"),
    [(True, False, "cuda"), (False, True, "mps"), (False, False, "cpu"), (True, True, "cuda")],
)
def test_auto_takes_the_fastest_there_is(monkeypatch: pytest.MonkeyPatch, cuda: bool, mps: bool, chosen: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: int(cuda))
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert choose_device().type == chosen


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "", "cuda:7", "meta", "xpu", "mps", "cuda:-1"])
def test_a_device_that_is_not_here(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(UsageError) as caught:
        choose_device(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("wanted", "device", "bf16", "chosen"),
    [
        ("auto", "cpu", True, "bf16"),
        ("auto", "cpu", False, "fp32"),
        ("auto", "cuda", True, "bf16"),
        ("auto", "cuda", False, "fp16"),
        ("auto", "mps", True, "fp32"),
        ("fp32", "cuda", True, "fp32"),
        ("bf16", "cpu", False, "bf16"),
        ("fp16", "cuda", True, "fp16"),
    ],
)
def test_precision(monkeypatch: pytest.MonkeyPatch, wanted: str, device: str, bf16: bool, chosen: str) -> None:
    monkeypatch.setattr(devices, "cpu_multiplies_bf16", lambda: bf16)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bf16)
    assert choose_precision(wanted, torch.device(device)) == chosen


def test_half_precision_on_a_cpu_is_refused() -> None:
    with pytest.raises(UsageError, match="fp16 needs a GPU"):
        choose_precision("fp16", torch.device("cpu"))


def test_fp32_is_fp32_within_and_what_it_was_after() -> None:
    products, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = products.allow_tf32, cudnn.allow_tf32
    try:
        products.allow_tf32 = cudnn.allow_tf32 = True
        with pytest.raises(ZeroDivisionError), full_precision():
            assert not products.allow_tf32 and not cudnn.allow_tf32 and cudnn.enabled
            raise ZeroDivisionError
        assert products.allow_tf32 and cudnn.allow_tf32
    finally:
        products.allow_tf32, cudnn.allow_tf32 = before
