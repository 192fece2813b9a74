"""The losses: what they are by hand, what another library says, and what they do where there is no tumour."""

import math
from typing import get_args

import pytest
import segmentation_models_pytorch as smp
import torch
from torch import Tensor
from torch.nn import functional

from brainseg_cli.config import LossConfig
from brainseg_cli.models.losses import (
    build_loss,
    compute_focal_loss,
    compute_lovasz_hinge,
    compute_tversky_loss,
)

NAMES = get_args(LossConfig.model_fields["name"].annotation)
OVERLAP = ["dice", "tversky", "jaccard"]


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    """Logits and a reference with tumour in two of three slices, of 5 x 7 pixels."""
    generator = torch.Generator().manual_seed(3)
    reference = (torch.rand(3, 1, 5, 7, generator=generator) > 0.7).float()
    reference[2] = 0
    return torch.randn(3, 1, 5, 7, generator=generator) * 2, reference


def slope(name: str, logits: Tensor, reference: Tensor, **settings: float) -> Tensor:
    logits = logits.clone().requires_grad_()
    loss: Tensor = build_loss(LossConfig(name=name, **settings))(logits, reference)
    return torch.autograd.grad(loss, logits)[0]


@pytest.mark.parametrize("name", NAMES)
def test_perfect_logits_cost_next_to_nothing_and_wrong_ones_much(name: str, batch: tuple[Tensor, Tensor]) -> None:
    reference = batch[1]
    loss = build_loss(LossConfig(name=name))
    perfect = (2 * reference - 1) * 30
    assert loss(perfect, reference).shape == ()
    assert 0 <= float(loss(perfect, reference)) < 1e-6
    assert float(loss(-perfect, reference)) > 0.8


@pytest.mark.parametrize("name", NAMES)
def test_tumour_logits_are_pushed_up_and_the_others_down(name: str, batch: tuple[Tensor, Tensor]) -> None:
    logits, reference = batch
    push = slope(name, logits, reference)
    assert push.isfinite().all()
    assert (push[reference == 1] <= 0).all() and (push[reference == 1] < 0).any()
    assert (push[reference == 0] >= 0).all() and (push[reference == 0] > 0).any()


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_without_tumour_pushes_against_false_alarms(name: str) -> None:
    logits = torch.full((2, 1, 6, 8), -4.0)
    logits[0, 0, 2:4, 3:5] = torch.tensor([[2.0, 1.5], [1.0, 3.0]])  # the alarm
    empty = torch.zeros_like(logits)
    push = slope(name, logits, empty)
    assert (push >= 0).all()
    assert push[0, 0, 3, 4] > 0  # the loudest pixel
    if name != "lovasz":  # which corrects the worst pixel alone where there is nothing to find
        assert (push > 0).all()
    loss = build_loss(LossConfig(name=name))
    assert float(loss(logits, empty)) > float(loss(logits - 2, empty)) > float(loss(logits - 20, empty)) >= 0


def test_dice_by_hand() -> None:
    # probabilities 1/2, 3/4, 1/4, 1/5 on tumour, background, tumour, background
    logits = torch.tensor([0.0, math.log(3), -math.log(3), -math.log(4)]).reshape(1, 1, 2, 2)
    reference = torch.tensor([1.0, 0.0, 1.0, 0.0]).reshape(1, 1, 2, 2)
    # 1 - (2 * 0.75 + 1) / (1.7 + 2 + 1)
    assert float(build_loss(LossConfig(name="dice"))(logits, reference)) == pytest.approx(1 - 2.5 / 4.7)
    # 1 - (0.75 + 0.5) / (0.75 + 0.3 * 0.95 + 0.7 * 1.25 + 0.5)
    tversky = build_loss(LossConfig(name="tversky", tversky_alpha=0.3))
    assert float(tversky(logits, reference)) == pytest.approx(1 - 1.25 / 2.41)
    entropy = (math.log(2) + math.log(4) + math.log(4) + math.log(5 / 4)) / 4
    assert float(build_loss(LossConfig(name="bce"))(logits, reference)) == pytest.approx(entropy)
    assert float(build_loss(LossConfig(name="dice+bce"))(logits, reference)) == pytest.approx(1 - 2.5 / 4.7 + entropy)


def test_dice_of_an_empty_batch_is_the_formula_of_the_docstring() -> None:
    logits = torch.zeros(1, 1, 4, 5)  # P = 20 / 2
    loss = build_loss(LossConfig(name="dice", smoothing=2.5))
    assert float(loss(logits, torch.zeros_like(logits))) == pytest.approx(10 / 12.5)


def test_overlap_is_of_the_batch_not_the_mean_of_slices(batch: tuple[Tensor, Tensor]) -> None:
    logits, reference = batch
    for name in OVERLAP:
        loss = build_loss(LossConfig(name=name))
        one_slice = loss(logits.reshape(1, 1, 3, -1), reference.reshape(1, 1, 3, -1))
        torch.testing.assert_close(loss(logits, reference), one_slice)


def test_tversky_of_equal_weights_is_dice_or_jaccard(batch: tuple[Tensor, Tensor]) -> None:
    dice = build_loss(LossConfig(name="dice"))(*batch)
    torch.testing.assert_close(dice, compute_tversky_loss(*batch, 0.5, 0.5, 1.0))
    probs, reference = batch[0].sigmoid(), batch[1]
    both = probs.sum() + reference.sum()
    hits = (probs * reference).sum()
    torch.testing.assert_close(dice, 1 - (2 * hits + 1) / (both + 1))
    jaccard = build_loss(LossConfig(name="jaccard"))(*batch)
    torch.testing.assert_close(jaccard, compute_tversky_loss(*batch, 1.0, 1.0, 1.0))
    torch.testing.assert_close(jaccard, 1 - (hits + 0.5) / (both - hits + 0.5))


@pytest.mark.parametrize(
    ("name", "settings", "oracle"),
    [
        ("dice", {}, smp.losses.DiceLoss("binary")),
        ("jaccard", {}, smp.losses.JaccardLoss("binary")),
        ("tversky", {"tversky_alpha": 0.3}, smp.losses.TverskyLoss("binary", alpha=0.3, beta=0.7)),
        ("lovasz", {}, smp.losses.LovaszLoss("binary", per_image=False)),
        ("focal", {"focal_gamma": 2.0}, smp.losses.FocalLoss("binary", gamma=2.0)),
        ("focal", {"focal_gamma": 3.5}, smp.losses.FocalLoss("binary", gamma=3.5)),
    ],
)
def test_with_tumour_the_losses_are_those_of_another_library(
    name: str, settings: dict[str, float], oracle: torch.nn.Module, batch: tuple[Tensor, Tensor]
) -> None:
    ours = build_loss(LossConfig(name=name, smoothing=1e-6, **settings))(*batch)
    torch.testing.assert_close(ours, oracle(*batch), rtol=1e-4, atol=1e-6)


def test_focal_without_focus_is_cross_entropy(batch: tuple[Tensor, Tensor]) -> None:
    logits, reference = batch
    expected = functional.binary_cross_entropy_with_logits(logits, reference)
    torch.testing.assert_close(compute_focal_loss(logits, reference, 0.0), expected)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_focal_has_a_slope_where_a_pixel_is_certain(gamma: float) -> None:
    logits = torch.tensor([200.0, 20.0, -200.0, 0.3]).reshape(1, 1, 2, 2)
    reference = torch.tensor([1.0, 1.0, 0.0, 1.0]).reshape(1, 1, 2, 2)
    push = slope("focal", logits, reference, focal_gamma=gamma)
    assert push.isfinite().all()
    assert push[0, 0, 1, 1] < 0


def test_lovasz_does_not_depend_on_the_order_of_pixels(batch: tuple[Tensor, Tensor]) -> None:
    logits, reference = batch
    turned = compute_lovasz_hinge(logits.flip(0, 2, 3), reference.flip(0, 2, 3))
    torch.testing.assert_close(compute_lovasz_hinge(logits, reference), turned)
