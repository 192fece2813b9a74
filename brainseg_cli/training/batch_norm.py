"""Batch norm over the batch of all processes, without which N processes would train another network than one.

`nn.SyncBatchNorm` takes the place of a module, loses what timm's norms do beside normalising, and knows no CPU.
Here the function that every batch norm calls is the one that is exchanged, so the network stays as it is.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional
from torch.nn.modules._functions import SyncBatchNorm
from torch.overrides import TorchFunctionMode


class SyncedNorms(TorchFunctionMode):
    """Within, a batch norm that trains takes its statistics over the whole process group.

    Every process has to call the same norms in the same order, each with at least one value.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        call = _synced if func is functional.batch_norm else func
        return call(*args, **(kwargs or {}))


def _synced(
    inputs: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """As `functional.batch_norm`."""
    if not training:
        return functional.batch_norm(inputs, running_mean, running_var, weight, bias, False, momentum, eps)
    if inputs.is_cuda:
        group = dist.group.WORLD
        synced: Tensor = SyncBatchNorm.apply(
            inputs, weight, bias, running_mean, running_var, eps, momentum, group, dist.get_world_size()
        )
        return synced
    return normalise(inputs, running_mean, running_var, weight, bias, momentum, eps)


def normalise(
    inputs: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    momentum: float,
    eps: float,
) -> Tensor:
    """(n, C, ...) of this process, normalised a channel over what all processes have (Ioffe and Szegedy 2015).

    n may differ from process to process. Statistics are float32 at least; the running ones move by `momentum`,
    the variance unbiased, as PyTorch's do.
    """
    over = [0, *range(2, inputs.ndim)]
    shape = [1, -1] + [1] * (inputs.ndim - 2)
    values = inputs.to(torch.promote_types(inputs.dtype, torch.float32))
    sums = torch.cat([values.sum(over), values.new_tensor([values.numel() / values.shape[1]])])
    sums = sum_over_processes(sums)
    count = sums[-1]
    mean = sums[:-1] / count
    centred = values - mean.view(shape)
    # from centred values: a difference of two large sums would lose what float32 cannot hold
    var = sum_over_processes(centred.square().sum(over)) / count
    if running_mean is not None and running_var is not None:
        with torch.no_grad():
            running_mean.lerp_(mean.to(running_mean), momentum)
            running_var.lerp_((var * count / (count - 1)).to(running_var), momentum)
    scale = (var + eps).rsqrt()
    if weight is not None:
        scale = scale * weight
    normal = centred * scale.view(shape)
    return (normal if bias is None else normal + bias.view(shape)).to(inputs.dtype)


def sum_over_processes(value: Tensor) -> Tensor:
    """The sum of every process's `value`, the same in each; what flows back is summed likewise."""
    summed: Tensor = _Sum.apply(value)
    return summed


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        summed = value.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(summed)
        return summed

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return sum_over_processes(gradient)
