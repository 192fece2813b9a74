"""The U-Net, and the only importer of segmentation-models-pytorch."""

import copy
import difflib
import logging
import warnings
from typing import Any

import torch
from torch import nn

from brainseg_cli.config import ModelConfig
from brainseg_cli.errors import DownloadError, InputError, UsageError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of its dependencies, about themselves
    import segmentation_models_pytorch as smp
    import timm

ARCHITECTURE = "Unet"


def build_model(config: ModelConfig, in_channels: int) -> nn.Module:
    """A U-Net (N, in_channels, S, S) float -> logits (N, 1, S, S), S a multiple of 2 ** stages.

    `encoder_weights` `none` starts from random numbers, `imagenet` downloads the encoder's; DownloadError in
    one line where that does not succeed. UsageError for an encoder that does not exist, or one that cannot
    have as many stages as there are decoder_channels.
    """
    name, depth = config.encoder, len(config.decoder_channels)
    _check_encoder(name)
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # its retries; the failure is told below
    weights: Any = None
    if config.encoder_weights == "imagenet":
        weights = True if name.startswith("tu-") else "imagenet"
    try:
        model: nn.Module = smp.Unet(
            encoder_name=name,
            encoder_depth=depth,
            encoder_weights=weights,
            decoder_channels=list(config.decoder_channels),
            in_channels=in_channels,
            classes=1,
        )
    except OSError as error:  # what the hub's client raises for anything between it and the file
        raise DownloadError(
            f"the {config.encoder_weights} weights of {name} could not be downloaded: {_first_line(error)}",
            hint="--encoder-weights none trains from scratch",
        ) from None
    except (KeyError, ValueError, RuntimeError, TypeError, AssertionError, IndexError) as error:
        raise UsageError(f"no U-Net of {depth} stages can be built on encoder {name!r}: {_first_line(error)}") from None
    return model


def check_trainable(model: nn.Module, shape: tuple[int, int, int, int]) -> None:
    """UsageError where the network cannot be trained on batches of `shape` (N, C, H, W); it is left as it was.

    Some encoders are made for one image size, and batch norm needs more than one value a channel.
    """
    try:
        with torch.no_grad():
            copy.deepcopy(model).train()(torch.zeros(shape))
    except (RuntimeError, ValueError, AssertionError) as error:
        raise UsageError(
            f"this network cannot be trained on {shape[0]} images of {shape[3]}x{shape[2]}: {_first_line(error)}",
            hint="another --image-size, --batch-size or --encoder",
        ) from None


def describe_model(model: nn.Module) -> dict[str, Any]:
    """config.json as `smp.from_pretrained` reads it; it names no weights, so that loading downloads nothing."""
    parameters = {key: value for key, value in model.config.items() if not key.startswith("_")}  # type: ignore[union-attr,operator]
    return {"_model_class": ARCHITECTURE, **parameters, "encoder_weights": None}


def rebuild_model(parameters: Any) -> nn.Module:
    """The network that `describe_model` described, with random weights. InputError for anything else."""
    if not isinstance(parameters, dict):
        raise InputError("the model's config.json describes no network")
    if parameters.get("_model_class") != ARCHITECTURE:
        raise InputError(f"the model is a {parameters.get('_model_class')}, not a {ARCHITECTURE}")
    known = {key: value for key, value in parameters.items() if not key.startswith("_")}
    try:
        model: nn.Module = smp.Unet(**{**known, "encoder_weights": None})
    except (KeyError, ValueError, RuntimeError, TypeError, AssertionError, IndexError, AttributeError) as error:
        raise InputError(f"the model's config.json describes no network: {_first_line(error)}") from None
    return model


def count_parameters(model: nn.Module) -> int:
    """Numbers that training changes."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def to_channels_last(model: nn.Module) -> nn.Module:
    """The same module with its weights laid out as convolutions on CPU and tensor cores want them."""
    return model.to(memory_format=torch.channels_last)


def list_encoders() -> list[str]:
    """Names for ModelConfig.encoder: smp's own, then timm's as `tu-*` (not all of those make a U-Net)."""
    return [*smp.encoders.get_encoder_names(), *(f"tu-{name}" for name in timm.list_models())]


def _check_encoder(name: str) -> None:
    known = timm.list_models() if name.startswith("tu-") else list(smp.encoders.get_encoder_names())
    wanted = name.removeprefix("tu-").partition(".")[0]
    if wanted not in known:
        near = difflib.get_close_matches(wanted, known, 3)
        prefix = "tu-" if name.startswith("tu-") else ""
        hint = (
            "did you mean " + ", ".join(prefix + n for n in near) + "?"
            if near
            else "brainseg info --encoders lists them"
        )
        raise UsageError(f"there is no encoder {name!r}", hint=hint)


def _first_line(error: BaseException) -> str:
    text = str(error.args[0] if error.args else error).strip()
    return text.splitlines()[0].partition(". ")[0] if text else type(error).__name__
