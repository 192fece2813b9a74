"""Building the network: what is refused, and in which words."""

import pytest
import torch

from brainseg_cli.config import ModelConfig
from brainseg_cli.errors import DownloadError, InputError, UsageError
from brainseg_cli.models.build import (
    build_model,
    count_parameters,
    describe_model,
    list_encoders,
    rebuild_model,
    to_channels_last,
)

TINY = "tu-test_resnet"


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No network and an empty cache, without waiting for either."""
    import huggingface_hub.constants as hub

    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path_factory.mktemp("hub")))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("stages", [(16, 8, 8), (16, 8, 8, 8, 8)])
def test_one_logit_a_pixel(channels: int, stages: tuple[int, ...]) -> None:
    model = build_model(ModelConfig(encoder=TINY, decoder_channels=stages), channels).eval()
    assert model(torch.zeros(2, channels, 32, 64)).shape == (2, 1, 32, 64)


@pytest.mark.parametrize("encoder", ["resnet18", "vgg13_bn", "tu-mobilenetv4_conv_small", "efficientnet-b0"])
def test_encoders_of_both_libraries(encoder: str) -> None:
    model = build_model(ModelConfig(encoder=encoder, decoder_channels=(8, 8, 8, 8, 8)), 3).eval()
    with torch.inference_mode():
        assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 1, 32, 32)


@pytest.mark.parametrize(
    ("encoder", "hint"),
    [
        ("resnet35", "did you mean .*resnet34"),
        ("tu-resnet1O1", "did you mean .*tu-resnet"),
        ("zzzzzzzz", "brainseg info --encoders"),
        ("tu-zzzzzzzz", "brainseg info --encoders"),
    ],
)
def test_an_unknown_encoder_gets_one_line_with_a_suggestion(encoder: str, hint: str) -> None:
    with pytest.raises(UsageError, match=hint) as caught:
        build_model(ModelConfig(encoder=encoder), 3)
    assert encoder in str(caught.value) and "\n" not in str(caught.value)


def test_an_encoder_that_cannot_have_so_many_stages() -> None:
    with pytest.raises(UsageError, match=r"no U-Net of 5 stages can be built on encoder 'tu-test_vit'") as caught:
        build_model(ModelConfig(encoder="tu-test_vit"), 3)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("encoder", ["resnet18", "tu-resnet18"])
def test_weights_that_cannot_be_downloaded_are_one_line(encoder: str) -> None:
    with pytest.raises(DownloadError, match="--encoder-weights none") as caught:
        build_model(ModelConfig(encoder=encoder, encoder_weights="imagenet"), 3)
    assert f"the imagenet weights of {encoder}" in str(caught.value) and "\n" not in str(caught.value)


def test_a_described_network_is_rebuilt_without_its_first_weights() -> None:
    model = build_model(ModelConfig(encoder=TINY, decoder_channels=(16, 8, 8)), 1)
    model.config["encoder_weights"] = True  # as if it had been downloaded
    described = describe_model(model)
    assert described["encoder_weights"] is None and described["_model_class"] == "Unet"
    again = rebuild_model(described | {"encoder_weights": "imagenet"})  # not even if the file says so
    assert {name: tensor.shape for name, tensor in again.state_dict().items()} == {
        name: tensor.shape for name, tensor in model.state_dict().items()
    }


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        [],
        None,
        {"_model_class": "FPN"},
        {"_model_class": "Unet", "encoder_name": "resnet35"},
        {"_model_class": "Unet", "encoder_name": 34},
        {"_model_class": "Unet", "no_such_parameter": 1, "encoder_name": TINY},
        {"_model_class": "Unet", "encoder_name": TINY, "decoder_channels": [8]},
    ],
)
def test_what_describes_no_network_is_refused(parameters: object) -> None:
    with pytest.raises(InputError):
        rebuild_model(parameters)


def test_counting_and_listing() -> None:
    model = build_model(ModelConfig(encoder=TINY, decoder_channels=(16, 8, 8)), 3)
    assert count_parameters(model) == sum(p.numel() for p in model.parameters())
    for parameter in model.encoder.parameters():
        parameter.requires_grad = False
    assert count_parameters(model) == sum(
        p.numel() for part in (model.decoder, model.segmentation_head) for p in part.parameters()
    )
    assert {"resnet34", "vgg13_bn", TINY} <= set(list_encoders())


def test_channels_last_changes_the_layout_and_no_number() -> None:
    torch.manual_seed(0)
    model = build_model(ModelConfig(encoder=TINY, decoder_channels=(16, 8, 8)), 3).eval()
    images = torch.rand(2, 3, 32, 32)
    before = model(images)
    after = to_channels_last(model)
    weights = next(p for p in after.parameters() if p.ndim == 4 and p.shape[1] > 1 and p.shape[2] > 1)
    assert weights.is_contiguous(memory_format=torch.channels_last) and not weights.is_contiguous()
    torch.testing.assert_close(after(images), before, rtol=1e-4, atol=1e-5)
