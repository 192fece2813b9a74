"""Training as one of several processes: who this one is, its share of a batch, and what they tell one another.

A batch is the batch of all: each process takes its share of its slices, and every process computes the loss of
the whole of it, so that no loss, however it is taken, depends on how many processes there are.
"""

import inspect
import itertools
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from brainseg_cli.errors import UsageError
from brainseg_cli.models.devices import choose_device
from brainseg_cli.training.batch_norm import SyncedNorms
from brainseg_cli.training.launch import find_rank


@dataclass(frozen=True)
class World:
    """The processes that train together; all of them decide alike, one writes and tells."""

    rank: int = 0
    size: int = 1
    local_size: int = 1
    """Processes on this machine."""

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes and tells."""
        return self.rank == 0

    def share(self, total: int) -> slice:
        """This process's share of `total` consecutive things: as even as can be, the larger ones first."""
        return self._shares(total)[self.rank]

    def gather(self, mine: Tensor, total: int) -> Tensor:
        """(n, ...), the share of each, to (total, ...), the whole in order, the same in every process.

        A gradient flows back into the part that is `mine`, and only there.
        """
        if self.size == 1:
            return mine
        shares = [share.stop - share.start for share in self._shares(total)]
        padded = mine.new_zeros(shares[0], *mine.shape[1:])  # what is exchanged has to be of one size
        padded[: len(mine)] = mine.detach()
        slots = [torch.empty_like(padded) for _ in shares]
        dist.all_gather(slots, padded)
        parts = [slot[:share] for slot, share in zip(slots, shares, strict=True)]
        parts[self.rank] = mine
        return torch.cat(parts)

    def gather_objects(self, mine: Any) -> list[Any]:
        """What each process has, in their order; it is pickled."""
        if self.size == 1:
            return [mine]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, mine)
        return found

    def wrap(self, model: nn.Module, square: tuple[int, int, int]) -> Callable[[Tensor], Tensor]:
        """The model, which takes (N, *square), as what to call in training: its gradients are exchanged.

        They come out as their mean over the processes. The model itself, its names and its buffers stay as they are.
        """
        if self.size == 1:
            return model
        device = next(model.parameters()).device
        # the buffers agree already; what was called broadcast_buffers has another name since PyTorch 2.15
        known = inspect.signature(DistributedDataParallel).parameters
        options: dict[str, Any] = {
            "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers": False
        }
        return DistributedDataParallel(
            model,
            device_ids=[device] if device.type == "cuda" else None,
            find_unused_parameters=_has_unused(model, torch.zeros((1, *square), device=device)),
            **options,
        )

    def computing(self, model: Callable[[Tensor], Tensor], *, last: bool) -> AbstractContextManager[object]:
        """Around forward and backward: gradients are exchanged with the `last` batch of a step, not before."""
        return nullcontext() if last or not isinstance(model, DistributedDataParallel) else model.no_sync()

    def norms(self) -> AbstractContextManager[object]:
        """Around forward: batch norm over the whole batch."""
        return nullcontext() if self.size == 1 else SyncedNorms()

    def leave(self) -> None:
        """Nothing is exchanged from here on: a process may end, or go on alone."""
        if self.size > 1:
            dist.destroy_process_group()

    def _shares(self, total: int) -> list[slice]:
        bounds = [total // self.size * rank + min(rank, total % self.size) for rank in range(self.size + 1)]
        return [slice(start, stop) for start, stop in itertools.pairwise(bounds)]


ALONE = World()


def join(device_name: str = "auto") -> tuple[World, torch.device]:
    """The world that `launch`, or torchrun, began for this process, and its device; without them it is alone.

    On GPUs each process of a machine has its own. UsageError for a device that is not there, or cannot be shared.
    """
    size = int(os.environ["WORLD_SIZE"]) if dist.is_available() and dist.is_torchelastic_launched() else 1
    device = choose_device(device_name)
    if size == 1:
        return ALONE, device
    check_shareable(device, device_name)
    backend = "gloo"
    if device.type == "cuda":
        device = choose_device(f"cuda:{os.environ['LOCAL_RANK']}")
        torch.cuda.set_device(device)
        backend = "nccl" if dist.is_nccl_available() else "gloo"
    dist.init_process_group(backend, device_id=device if backend == "nccl" else None)
    return World(find_rank(), size, int(os.environ["LOCAL_WORLD_SIZE"])), device


def check_devices(count: int, device_name: str) -> None:
    """UsageError where this machine has not `count` devices of that name. A CPU takes any number of processes."""
    device = choose_device(device_name)
    check_shareable(device, device_name)
    if device.type == "cuda" and count > torch.cuda.device_count():
        raise UsageError(f"--devices {count}: PyTorch sees {torch.cuda.device_count()} CUDA devices here")


def check_shareable(device: torch.device, device_name: str) -> None:
    """UsageError for a device on which several processes cannot train."""
    if device.type == "mps" or ":" in device_name:
        raise UsageError(
            f"several processes cannot train on --device {device_name if ':' in device_name else 'mps'}",
            hint="cuda, each with a GPU of its own, or cpu",
        )


def _has_unused(model: nn.Module, inputs: Tensor) -> bool:
    """Whether the network has weights without a part in its result, as encoders cut short have."""
    model.eval()  # no statistic moves
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    gradients = torch.autograd.grad(model(inputs).sum(), weights, allow_unused=True)
    model.train()
    return any(gradient is None for gradient in gradients)
