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
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
            nn.init.normal_(module.running_mean, std=0.2)
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
    ("encoder", "channels", "size", "enlarged"),
    [
        ("resnet18", (24, 16, 12, 8, 4), (64, 96), 5),
        ("resnet18", (16, 8, 4), (40, 24), 3),
        ("vgg11_bn", (16, 12, 8, 8, 4), (64, 32), 5),  # a block between encoder and decoder
        ("tu-mobilenetv4_conv_small", (24, 16, 12, 8, 4), (64, 96), 5),
        ("mit_b0", (24, 16, 12, 8, 4), (64, 96), 5),  # without a map of half the size: nothing to join it with
        ("tu-inception_v4", (16, 16, 8, 8, 4), (96, 96), 0),  # its maps are no halves: 46, 22, 10, 5, 2
    ],
)
def test_a_folded_network_gives_what_it_gave(
    encoder: str, channels: tuple[int, ...], size: tuple[int, int], enlarged: int
) -> None:
    torch.manual_seed(0)
    model = settle(build_model(ModelConfig(encoder=encoder, decoder_channels=list(channels)), 3))
    before = copy.deepcopy(model.state_dict())
    folded = fold(model, (3, *size))
    assert count_enlarged(folded) == enlarged
    assert any(isinstance(module, nn.PixelShuffle) for module in folded.modules())
    compare(model, folded, 2, 3, *size)
    assert count_enlarged(model) == 0
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"decoder_attention_type": "scse"}, 0),
        ({"decoder_interpolation": "bilinear"}, 0),
        ({"decoder_use_norm": False}, 0),
        ({"decoder_use_norm": {"type": "batchnorm", "track_running_stats": False}}, 0),
        ({}, 3),
    ],
)
def test_another_form_of_decoder_stays_as_it_is(options: dict[str, Any], wanted: int) -> None:
    torch.manual_seed(0)
    model = smp.Unet("resnet18", encoder_depth=3, encoder_weights=None, decoder_channels=(32, 16, 16), **options)
    folded = fold(settle(model), (3, 32, 32))
    assert count_enlarged(folded) == wanted
    compare(model, folded, 1, 3, 32, 32)


def test_more_classes_or_a_size_without_tiles_keep_their_head() -> None:
    torch.manual_seed(0)
    for classes, size in ((2, 32), (1, 34)):
        options: dict[str, Any] = {"encoder_depth": 3, "encoder_weights": None, "decoder_channels": (32, 16, 16)}
        model = smp.Unet("resnet18", classes=classes, **options)
        model.requires_divisible_input_shape = False
        folded = fold(settle(model), (3, size, size))
        assert not any(isinstance(module, nn.PixelShuffle) for module in folded.modules())
        compare(model, folded, 1, 3, size, size)
