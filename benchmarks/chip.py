"""What the device could do at best: the rate of large matrix products, and what a network asks of it."""

import time
from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
CPU_SIDE, GPU_SIDE, TRIES = 2048, 8192, 12


def count_flops(work: Callable[[], object]) -> float:
    """Floating-point operations of the products and convolutions in `work`, a multiplication and an addition each."""
    with FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops())


def measure_products(device: torch.device, dtype: torch.dtype) -> float:
    """The FLOP/s of large square matrix products, the best of TRIES."""
    side = GPU_SIDE if device.type == "cuda" else CPU_SIDE
    a, b = torch.randn(2, side, side, device=device).to(dtype)
    seconds = []
    for _ in range(TRIES):
        wait(device)
        start = time.perf_counter()
        a @ b
        wait(device)
        seconds.append(time.perf_counter() - start)
    return float(2 * side**3 / min(seconds))


def wait(device: torch.device) -> None:
    """Until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
