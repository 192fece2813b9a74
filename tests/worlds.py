"""Trainings that end alike in one process and in several: `python worlds.py DATASET OUT` is a process of several."""

import contextlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional

from brainseg_cli.config import Config, load_config
from brainseg_cli.data.manifest import load_dataset
from brainseg_cli.training import validation
from brainseg_cli.training.batch_norm import SyncedNorms
from brainseg_cli.training.distributed import ALONE, World, join
from brainseg_cli.training.engine import Engine
from brainseg_cli.training.state import TrainingState, load_state, save_state

SETTINGS: dict[str, Any] = {
    "preprocess.size": 32,
    "train.epochs": 3,
    "train.batch_size": 5,  # 13 slices: batches of 5, 4 and 4, which two processes share as 3 + 2, 2 + 2, 2 + 2
    "train.precision": "fp32",
    "train.tumour_share": 0,
    "optimizer.lr": 1e-2,
}
SGD = {"optimizer.name": "sgd", "optimizer.lr": 0.3, "optimizer.clip_norm": 0.5}
CASES: dict[str, dict[str, Any]] = {
    "dice+bce": {"loss.name": "dice+bce", "optimizer.name": "adamw", "train.ema_decay": 0.5},
    # 5 batches of 3 or 2 slices in groups of 2: the last group is one batch
    "lovasz": {"loss.name": "lovasz", "train.batch_size": 3, "train.accumulate": 2} | SGD,
    "resumed": {"loss.name": "tversky", "schedule.name": "cosine"} | SGD,
}


class Small(nn.Module):
    """Batch norm, and a weight that has no part in the result."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.unused, self.last = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 1, 3, padding=1)

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.last(functional.silu(self.norm(self.first(inputs))))
        return logits


class Silent:
    """An observer that hears nothing."""

    def on_step(self, epoch: int, step: int, steps: int, images_per_s: float) -> None: ...

    def on_epoch(self, row: dict[str, float], *, best: bool, epochs: int) -> None: ...

    def on_message(self, text: str) -> None: ...


class Enough(Exception):
    """The epoch that was wanted is done."""


def configure(case: str) -> Config:
    return load_config("default", overrides=SETTINGS | CASES[case])


def train_case(
    case: str, dataset: Path, world: World = ALONE, *, state: TrainingState | None = None, until: int = 3
) -> TrainingState:
    """The state after epoch `until`, from the start or from `state`."""
    found: list[TrainingState] = []

    def save(current: TrainingState) -> None:
        found.append(current)
        if current.epoch == until:
            raise Enough

    cpu = torch.device("cpu")
    with contextlib.suppress(Enough), mock.patch.object(validation, "BATCH_SIZE", 3):  # val has 8 slices
        engine = Engine(Small(), load_dataset(dataset), configure(case), cpu, Silent(), state=state, world=world)
        engine.run(lambda model, row: None, save)
    return found[-1]


def normalise(whole: Tensor, weight: Tensor, bias: Tensor, share: Callable[[int], slice]) -> dict[str, Tensor]:
    """A batch norm of a share of `whole`, its gradients for a loss of it, and its running statistics."""
    inputs = whole[share(len(whole))].clone().requires_grad_()
    weight, bias = weight.clone().requires_grad_(), bias.clone().requires_grad_()
    mean, var = torch.zeros(len(weight)).to(weight), torch.ones(len(weight)).to(weight)
    output = functional.batch_norm(inputs, mean, var, weight, bias, training=True, momentum=0.3)
    (output * output * (1 + whole[share(len(whole))])).sum().backward()
    values = {"output": output.detach(), "mean": mean, "var": var}
    gradients = {name: value.grad for name, value in {"inputs": inputs, "weight": weight, "bias": bias}.items()}
    return values | {name: gradient for name, gradient in gradients.items() if gradient is not None}


def norm_inputs() -> tuple[Tensor, Tensor, Tensor]:
    """5 slices of 3 channels far from 0, in double precision, and the norm's weights."""
    generator = torch.Generator().manual_seed(7)
    whole = torch.randn(5, 3, 4, 2, generator=generator, dtype=torch.float64) * 3 + 100
    weight, bias = torch.randn(2, 3, generator=generator, dtype=torch.float64)
    return whole, weight, bias


def main(dataset: Path, out: Path) -> None:
    world, _ = join("cpu")
    with SyncedNorms():
        torch.save(normalise(*norm_inputs(), world.share), out / f"norm-{world.rank}.pt")
    for case in ("dice+bce", "lovasz"):
        ended = train_case(case, dataset, world)
        save_state(out / f"{case}-{world.rank}.pt", ended)
    begun = load_state(out / "begun.pt")
    save_state(out / f"resumed-{world.rank}.pt", train_case("resumed", dataset, world, state=begun, until=2))
    dist.barrier()
    world.leave()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
