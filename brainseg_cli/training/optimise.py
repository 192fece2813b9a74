"""The step: optimiser, learning rate, gradient scaling and clipping, averaged weights."""

import math
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from brainseg_cli.config import OptimizerConfig, ScheduleConfig

LAST_SHARE = 0.01
"""Of the learning rate, where the cosine ends."""
PLATEAU_EPOCHS, PLATEAU_FACTOR = 5, 0.5


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """Adamax, AdamW or SGD with Nesterov momentum. Weight decay spares biases and norms (1-D parameters)."""
    weights = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
    rest = [p for p in model.parameters() if p.requires_grad and p.ndim <= 1]
    groups: list[dict[str, Any]] = [
        {"params": weights, "weight_decay": config.weight_decay},
        {"params": rest, "weight_decay": 0.0},
    ]
    if config.name == "adamax":
        return torch.optim.Adamax(groups, lr=config.lr)
    if config.name == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr)
    return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=config.momentum > 0)


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
