"""The step: optimiser, learning rate, gradient scaling and clipping, averaged weights."""

import math
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from brainseg_cli.config import OptimizerConfig, ScheduleConfig

LAST_SHARE = 0.01
"""Of the learning rate, where the cosine ends."""
FUSED_ON = ("cpu", "cuda")
HOW = ("fused", "foreach", "capturable")
PLATEAU_EPOCHS, PLATEAU_FACTOR = 5, 0.5


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """Adamax, AdamW or SGD with Nesterov momentum. Weight decay spares biases and norms (1-D parameters).

    On CPUs and NVIDIA's GPUs a step is one kernel where PyTorch has it, which is not for Adamax.
    """
    weights = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
    rest = [p for p in model.parameters() if p.requires_grad and p.ndim <= 1]
    groups: list[dict[str, Any]] = [
        {"params": weights, "weight_decay": config.weight_decay},
        {"params": rest, "weight_decay": 0.0},
    ]
    if config.name == "adamax":
        return torch.optim.Adamax(groups, lr=config.lr)
    fused = all(weight.device.type in FUSED_ON for weight in weights)
    if config.name == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr, fused=fused)
    return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=config.momentum > 0, fused=fused)


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """`load_state_dict`, save that how a step is computed is this machine's to say, not the one's that saved it."""
    groups = [
        saved | {name: group[name] for name in HOW if name in group}
        for saved, group in zip(state["param_groups"], optimizer.param_groups, strict=True)
    ]
    optimizer.load_state_dict(state | {"param_groups": groups})


def compute_lr(config: ScheduleConfig, lr: float, progress_epochs: float, epochs: int) -> float:
    """The learning rate after `progress_epochs` (a fraction counts) of `epochs`; `plateau` is a factor on it."""
    warmup = min(config.warmup_epochs, epochs / 2)
    if progress_epochs < warmup:
        return lr * (progress_epochs + 1e-3) / (warmup + 1e-3)
    if config.name != "cosine":
        return lr
    along = (progress_epochs - warmup) / max(epochs - warmup, 1e-9)
    return lr * (LAST_SHARE + (1 - LAST_SHARE) * 0.5 * (1 + math.cos(math.pi * min(along, 1.0))))


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """One learning rate for every group."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def build_average(model: nn.Module, decay: float) -> AveragedModel | None:
    """An exponential moving average of weights and norms' statistics, or None for a decay of 0."""
    if decay == 0:
        return None
    average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    return AveragedModel(model, multi_avg_fn=average, use_buffers=True)
