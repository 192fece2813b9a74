"""Which device computes, and in which precision."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from brainseg_cli.errors import UsageError
from brainseg_cli.types import Precision


def choose_device(name: str = "auto") -> torch.device:
    """`auto` takes the first GPU, else Apple's, else the CPU. UsageError for one that is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda", "mps"):
        raise UsageError(f"there is no device {name!r}", hint="auto, cpu, cuda, cuda:N or mps")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"--device {name}: PyTorch sees {torch.cuda.device_count()} CUDA devices here")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UsageError("--device mps: PyTorch sees no Apple GPU here")
    return device


def choose_precision(wanted: str, device: torch.device) -> Precision:
    """`auto` is bf16 where CUDA or the CPU multiplies in it, else fp16 with CUDA and fp32 anywhere else.

    UsageError for fp16 on a CPU, which has no gradient scaling worth the name.
    """
    if wanted == "auto":
        if device.type == "cuda":
            return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
        return "bf16" if device.type == "cpu" and cpu_multiplies_bf16() else "fp32"
    if wanted == "fp16" and device.type == "cpu":
        raise UsageError("train.precision fp16 needs a GPU", hint="auto, bf16 or fp32 on a CPU")
    return wanted  # type: ignore[return-value]


@contextmanager
def full_precision() -> Iterator[None]:
    """Within, fp32 is fp32: a GPU rounds its convolutions to TF32 otherwise, and training its products too."""
    products, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = products.allow_tf32
    products.allow_tf32 = False
    try:
        with cudnn.flags(
            enabled=cudnn.enabled, benchmark=cudnn.benchmark, deterministic=cudnn.deterministic, allow_tf32=False
        ):
            yield
    finally:
        products.allow_tf32 = before


@contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """Within, where wanted, PyTorch computes the same bits each time on the same device.

    An operation that cannot raises a RuntimeError that says so.
    """
    if not wanted:
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS is first used
    before, benchmark = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        torch.backends.cudnn.benchmark = benchmark


def cpu_multiplies_bf16() -> bool:
    """Whether this CPU has bf16 products (AVX-512 BF16 or AMX); without them bf16 is slower than fp32."""
    # Private, and the only place PyTorch tells; absent on other architectures.
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(bool(getattr(torch.cpu, probe, lambda: False)()) for probe in probes)


def list_devices() -> list[str]:
    """Every device that `choose_device` takes here, described."""
    names = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    names += ["mps"] if torch.backends.mps.is_available() else []
    return [describe_device(torch.device(name)) for name in [*names, "cpu"]]


def describe_device(device: torch.device) -> str:
    """For logs: the GPU's name, or the CPU with its threads."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"{device} ({torch.get_num_threads()} threads)"
