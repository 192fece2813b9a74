"""The step: learning rates by hand, averages by hand, and accumulation that is the larger batch."""

import copy
import math
from typing import Any

import pytest
import torch
from torch import nn

from brainseg_cli.config import OptimizerConfig, ScheduleConfig
from brainseg_cli.training.optimise import build_average, build_optimizer, compute_lr, load_optimizer, set_lr


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3), nn.Conv2d(3, 1, 1))


def test_the_learning_rate_warms_up_and_falls_to_a_hundredth() -> None:
    schedule = ScheduleConfig(name="cosine", warmup_epochs=2)
    at = [compute_lr(schedule, 0.1, epoch, 10) for epoch in (0, 0.5, 1, 1.5, 2, 4, 6, 8, 10)]
    assert 0 < at[0] < 1e-3
    assert at[2] == pytest.approx(0.05, rel=1e-3)
    assert at[4] == pytest.approx(0.1)
    assert at[6] == pytest.approx(0.1 * (0.01 + 0.99 * 0.5))  # half of the way down
    assert at[8] == pytest.approx(0.001)
    assert at[:5] == sorted(at[:5]) and at[4:] == sorted(at[4:], reverse=True)


@pytest.mark.parametrize("name", ["constant", "plateau"])
def test_a_constant_learning_rate_is_constant_after_the_warm_up(name: str) -> None:
    schedule = ScheduleConfig(name=name, warmup_epochs=1)
    assert compute_lr(schedule, 0.1, 0.5, 10) < 0.1
    assert {compute_lr(schedule, 0.1, epoch, 10) for epoch in (1, 3.3, 10)} == {0.1}


def test_without_a_warm_up_the_first_step_is_whole() -> None:
    assert compute_lr(ScheduleConfig(name="constant", warmup_epochs=0), 0.1, 0, 1) == 0.1
    assert compute_lr(ScheduleConfig(name="cosine", warmup_epochs=0), 0.1, 0, 1) == pytest.approx(0.1)


def test_a_warm_up_takes_at_most_half_of_a_short_run() -> None:
    schedule = ScheduleConfig(name="cosine", warmup_epochs=2)
    assert compute_lr(schedule, 0.1, 0.25, 1) == pytest.approx(0.05, rel=1e-2)
    assert compute_lr(schedule, 0.1, 0.5, 1) == pytest.approx(0.1)
    assert compute_lr(schedule, 0.1, 1, 1) == pytest.approx(0.001)


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        ({"name": "adamax"}, torch.optim.Adamax),
        ({"name": "adamw"}, torch.optim.AdamW),
        ({"name": "sgd"}, torch.optim.SGD),
        ({"name": "sgd", "momentum": 0}, torch.optim.SGD),
    ],
)
def test_optimisers_decay_weights_and_spare_norms_and_biases(settings: dict[str, Any], kind: type) -> None:
    model = network()
    optimizer = build_optimizer(model, OptimizerConfig(lr=0.3, weight_decay=0.07, **settings))
    assert isinstance(optimizer, kind)
    decayed, spared = optimizer.param_groups
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.07, 0)
    assert {id(p) for p in decayed["params"]} == {id(model[0].weight), id(model[2].weight)}
    assert len(spared["params"]) == 4
    if kind is torch.optim.SGD:
        momentum = settings.get("momentum", 0.9)
        assert decayed["momentum"] == momentum and decayed["nesterov"] == (momentum > 0)
    set_lr(optimizer, 0.01)
    assert [group["lr"] for group in optimizer.param_groups] == [0.01, 0.01]


def stepped(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> torch.Tensor:
    """Its weights after steps along gradients that are the same each time."""
    for step in range(steps):
        for parameter in model.parameters():
            parameter.grad = torch.sin(torch.arange(parameter.numel()) + step).view_as(parameter)
        optimizer.step()
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_a_state_saved_by_a_machine_that_computes_otherwise_goes_on(name: str) -> None:
    config = OptimizerConfig(name=name, lr=0.1)
    plain, fused = network(), network()
    slow, fast = build_optimizer(plain, config), build_optimizer(fused, config)
    assert all(group["fused"] for group in fast.param_groups)
    for group in slow.param_groups:
        group["fused"] = False
    stepped(plain, slow, 2)
    fused.load_state_dict(plain.state_dict())
    load_optimizer(fast, copy.deepcopy(slow.state_dict()))
    assert all(group["fused"] for group in fast.param_groups) and not any(g["fused"] for g in slow.param_groups)
    torch.testing.assert_close(stepped(fused, fast, 2), stepped(plain, slow, 2), rtol=1e-6, atol=1e-7)


def test_frozen_parameters_are_left_alone() -> None:
    model = network()
    model[0].weight.requires_grad = False
    optimizer = build_optimizer(model, OptimizerConfig())
    assert all(p is not model[0].weight for group in optimizer.param_groups for p in group["params"])


def test_the_average_by_hand() -> None:
    assert build_average(network(), 0) is None
    model = network()
    average = build_average(model, 0.9)
    assert average is not None
    expected, norm = None, None
    for step in range(4):
        with torch.no_grad():
            model[0].weight.fill_(step)
            model[1].running_mean.fill_(10 * step)
            model[1].num_batches_tracked.fill_(step)
        average.update_parameters(model)
        # the first is taken as it is, each later one a tenth
        expected = step if expected is None else 0.9 * expected + 0.1 * step
        norm = 10 * step if norm is None else 0.9 * norm + 0.1 * 10 * step
    assert math.isclose(average.module[0].weight.mean().item(), expected, rel_tol=1e-6)
    assert math.isclose(average.module[1].running_mean.mean().item(), norm, rel_tol=1e-6)
    assert model[0].weight.mean().item() == 3  # the model itself is not averaged
