"""A folded network has other arithmetic and gives the same."""

import copy
from typing import Any

import pytest
import segmentation_models_pytorch as smp
import torch
from torch import nn

from brainseg_cli.config import ModelConfig
from brainseg_cli.models.build import build_model
from brainseg_cli.models.folded import fold


def settle(model: nn.Module) -> nn.Module:
    """Norms that do something, as those of a trained network."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.2)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 1.5)  # type: ignore[arg-type]
            nn.init.normal_(module.weight, 1, 0.2)
            nn.init.normal_(module.bias, std=0.2)
    return model.eval()


def count_enlarged(model: Any) -> int:
    return sum(isinstance(module, nn.ConvTranspose2d) for module in model.modules())


@torch.inference_mode()
def compare(model: nn.Module, folded: nn.Module, *shape: int) -> None:
    pixels = torch.randn(shape)
    wanted = model(pixels)
    assert wanted.std() > 0.01  # or there is nothing to compare
    torch.testing.assert_close(folded(pixels), wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max()))


@pytest.mark.parametrize(
    ("encoder", "channels"),
    [
        ("resnet18", (24, 16, 12, 8, 4)),
        ("resnet18", (16, 8, 4)),
        ("tu-mobilenetv4_conv_small", (24, 16, 12, 8, 4)),
        ("mit_b0", (24, 16, 12, 8, 4)),  # without a map of half the size: nothing to join it with
    ],
)
def test_a_folded_network_gives_what_it_gave(encoder: str, channels: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    model = settle(build_model(ModelConfig(encoder=encoder, decoder_channels=list(channels)), 3))
    before = copy.deepcopy(model.state_dict())
    folded = fold(model)
    assert count_enlarged(folded) == len(channels)
    assert any(isinstance(module, nn.PixelShuffle) for module in folded.modules())
    compare(model, folded, 2, 3, 64, 96)
    assert count_enlarged(model) == 0
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"decoder_attention_type": "scse"}, 0),
        ({"decoder_interpolation": "bilinear"}, 0),
        ({"decoder_use_norm": False}, 0),
        ({}, 3),
    ],
)
def test_another_form_of_decoder_stays_as_it_is(options: dict[str, Any], wanted: int) -> None:
    torch.manual_seed(0)
    model = smp.Unet("resnet18", encoder_depth=3, encoder_weights=None, decoder_channels=(32, 16, 16), **options)
    folded = fold(settle(model))
    assert count_enlarged(folded) == wanted
    compare(model, folded, 1, 3, 32, 32)


def test_a_map_that_is_not_doubled_is_told() -> None:
    model = build_model(ModelConfig(encoder="resnet18", decoder_channels=[8, 4, 2]), 3).eval()
    block: Any = fold(model).decoder.blocks[0]  # type: ignore[union-attr,index]
    with pytest.raises(ValueError, match="a map of 4x4 is enlarged to 9x8"):
        block(torch.zeros(1, 128, 4, 4), 9, 8)
