"""What a run is made of: frozen sections, unknown keys refused, presets as data.

Precedence, lowest first: the sections' defaults, a preset, a config file, `--set key=value` and the flags
that stand for one. What the machine decides (device, workers) is not configuration and not here.
"""

import difflib
import tomllib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from brainseg_cli.errors import InputError, UsageError

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Amount = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]

DEFAULT_PRESET = "default"


class Section(BaseModel):
    """A frozen part of the configuration that refuses keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _switches_are_no_numbers(cls, value: Any, info: ValidationInfo) -> Any:
        if info.field_name is None or cls.model_fields[info.field_name].annotation is bool:
            return value
        if any(isinstance(part, bool) for part in (value if isinstance(value, (list, tuple)) else [value])):
            raise ValueError("should be a number or a name")  # pydantic takes true for 1
        return value


class PreprocessConfig(Section):
    """From an image of any size to what the network sees; predict repeats it, so the bundle keeps it."""

    size: Annotated[int, Field(ge=32, le=2048, multiple_of=32)] = 256
    """The image is scaled to fit a square of this side, its aspect kept, and padded with 0."""
    crop: Literal["none", "head"] = "none"
    """`head`: what lies around the head is cut off first, so that heads of unlike size come out alike."""
    intensity: Literal["unit", "zscore"] = "zscore"
    """`unit`: to [0, 1]. `zscore`: each channel of each slice to mean 0 and standard deviation 1."""


class ModelConfig(Section):
    """The U-Net. Encoders are those of segmentation-models-pytorch; `tu-*` are timm's."""

    encoder: str = "resnet34"
    """`brainseg info --encoders` lists them."""
    encoder_weights: Literal["none", "imagenet"] = "none"
    """`imagenet` downloads what the encoder begins with; `none` is random numbers."""
    decoder_channels: Annotated[tuple[Count, ...], Field(min_length=3, max_length=5)] = (256, 128, 64, 32, 16)
    """One number per decoder stage, from the deepest, and as many of the encoder's stages are used: `[64, 32, 16]`."""


class LossConfig(Section):
    """What is minimised. The overlap losses (all but bce and focal) take their sums over the batch."""

    name: Literal["dice", "bce", "dice+bce", "focal", "tversky", "jaccard", "lovasz"] = "dice+bce"
    """`bce` is the binary cross-entropy; `dice+bce` the sum of both."""
    smoothing: Positive = 1.0
    """Of Dice: pixels added to its numerator and denominator, so that false alarms cost something on a batch without
    tumour too. In `jaccard` and `tversky` it is half of that."""
    tversky_alpha: Share = 0.3
    """Weight of false alarms in the Tversky loss; misses weigh 1 - alpha."""
    focal_gamma: Amount = 2.0
    """How much less the focal loss counts a pixel that is nearly right; 0 is bce."""


class OptimizerConfig(Section):
    """How a gradient becomes a step."""

    name: Literal["adamax", "adamw", "sgd"] = "adamw"
    """`sgd` is with Nesterov momentum."""
    lr: Annotated[float, Field(gt=0, le=1e38)] = 1e-3
    """The learning rate, where the schedule is at its height."""
    weight_decay: Amount = 1e-2
    """Of the weights; biases and norms are spared."""
    momentum: Share = 0.9
    """Of SGD (Nesterov); the others keep their own."""
    clip_norm: Amount = 1.0
    """The gradient's norm is cut to this; 0 leaves it."""


class ScheduleConfig(Section):
    """The learning rate, step by step."""

    name: Literal["constant", "cosine", "plateau"] = "cosine"
    """`cosine` falls to 1 % of lr at the last step; `plateau` halves it after every 5 epochs without a better val
    Dice."""
    warmup_epochs: Amount = 1.0
    """How many epochs, fractions too, it takes to rise from 0; at most half of all."""


class AugmentConfig(Section):
    """Random changes of a training slice; each bound 0 (or chance 0) leaves that change out. Several at once are
    written as a table: `--set 'augment={rotate_deg=0, zoom=0}'`; with all of them at 0 slices stay as they are."""

    rotate_deg: Annotated[float, Field(ge=0, le=180)] = 15.0
    """The largest turn, to either side."""
    zoom: Annotated[float, Field(ge=0, lt=1)] = 0.15
    """How far height and width, each by itself, may grow or shrink, as a share of the size."""
    shift: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """The largest shift in each direction, as a share of the side."""
    shear_deg: Annotated[float, Field(ge=0, le=45)] = 0.0
    """The largest slant along each axis, to either side."""
    flip_horizontal: Share = 0.5
    """The chance that left and right are exchanged."""
    flip_vertical: Share = 0.0
    """The chance that top and bottom are exchanged."""
    brightness: Share = 0.0
    """The most that is added or taken away, as a share of white; on four slices in five."""
    contrast: Share = 0.0
    """How far the factor of all values may be from 1; on the same slices as brightness."""
    gamma: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """How far the exponent of all values may be from 1; on four slices in five."""
    tone: Share = 0.0
    """Standard deviation of the two points that bend the tone curve, of each channel by itself; on four slices in five.
    Scanners and sequences differ in contrast."""
    noise: Share = 0.0
    """Largest standard deviation of Gaussian noise, as a share of white; on every other slice."""
    channel_dropout: Share = 0.0
    """The chance that one channel is blank, as where a sequence is missing."""
    channel_copy: Share = 0.0
    """The chance that other channels are copies of `copied_channel`, as the LGG set fills in for a missing sequence."""
    copied_channel: str = "FLAIR"
    """By its name in dataset.json. Where no channel is called so, none is copied."""
    elastic: Share = 0.0
    """The chance of an elastic deformation."""


class TrainConfig(Section):
    """The loop itself."""

    epochs: Count = 60
    """Passes over the training slices; `tumour_share` may leave some out of each."""
    batch_size: Count = 16
    """At most so many slices at a time, of all devices together; batches are as even as can be."""
    accumulate: Count = 1
    """Batches whose gradients are added up for one step."""
    tumour_share: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """The least share of slices with tumour: others are left out until it is reached, another choice each epoch; 0
    takes every slice."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Weights averaged over steps are what is validated and saved; 0 leaves that out."""
    choose: Literal["best", "last"] = "best"
    """Whose weights are kept: of the epoch that is best on val, or of the last one. `last` needs no val: in a
    k-fold every other fold is trained on. Patience and `plateau` go by val, and never act with it."""
    patience: Annotated[int, Field(ge=0)] = 0
    """Stop after this many epochs without a better val Dice; 0 never does."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """`auto`: on a GPU of NVIDIA's bf16 where it has that, else fp16; on a CPU bf16 where it multiplies in that, else
    fp32; elsewhere fp32. fp16 needs a GPU."""
    compile: bool = False
    """torch.compile: minutes at the start, for what it may save in each step."""
    deterministic: bool = False
    """The same weights each time on the same device, to the last bit; a GPU takes slower kernels for it."""
    save_minutes: Amount = 5.0
    """The state is saved within an epoch too, once this long has gone by since the last time; 0 leaves that out."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Of the initial weights, the augmentation, and the order of the slices."""


class Config(Section):
    """A whole run, as written to `config.toml`."""

    preprocess: PreprocessConfig = PreprocessConfig()
    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    augment: AugmentConfig = AugmentConfig()
    train: TrainConfig = TrainConfig()

    @field_validator("*", mode="before")
    @classmethod
    def _sections_are_tables(cls, value: Any) -> Any:
        if not isinstance(value, (Mapping, Section)):
            raise ValueError("is a section, written as a table")
        return value

    def to_toml(self) -> str:
        """The configuration as TOML, which `load_config` reads back to an equal one."""
        return tomli_w.dumps(self.model_dump(mode="json"))


def list_presets() -> list[str]:
    """Names of the presets in the package, sorted."""
    return sorted(
        entry.name.removesuffix(".toml") for entry in _preset_folder().iterdir() if entry.name.endswith(".toml")
    )


def load_config(
    preset: str = DEFAULT_PRESET, path: Path | None = None, overrides: Mapping[str, Any] | None = None
) -> Config:
    """Preset, then the TOML file at `path`, then `overrides` (dotted keys: `optimizer.lr`), lowest first.

    A string override is read as a TOML value, or taken as it is where it is none, so `lr=1e-4` and
    `name=sgd` both do what they say. UsageError for an unknown preset, key or value out of range in the
    overrides; InputError for one in the file.
    """
    names = list_presets()
    if preset not in names:
        near = difflib.get_close_matches(preset.lower(), names, 1)
        told = f"there is no preset {preset!r}" + (f"; did you mean {near[0]}?" if near else "")
        raise UsageError(told, hint=f"there are {', '.join(names)}")
    merged: dict[str, Any] = tomllib.loads((_preset_folder() / f"{preset}.toml").read_text(encoding="utf-8"))
    if path is not None:
        _merge(merged, _read_toml(path))
        _validate(merged, InputError, str(path))
    for key, value in (overrides or {}).items():
        nested: Any = _parse_value(value) if isinstance(value, str) else value
        if nested == {}:
            raise UsageError(f"{key}: an empty table changes nothing")
        for part in reversed(key.split(".")):
            nested = {part: nested}
        _merge(merged, nested)
    return _validate(merged, UsageError, None)


def read_config(path: Path) -> Config:
    """A configuration written whole by `Config.to_toml`. InputError for anything else."""
    return _validate(_read_toml(path), InputError, str(path))


def _preset_folder() -> Any:
    return resources.files("brainseg_cli") / "presets"


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        if path.is_char_device() or path.is_block_device():
            raise InputError("is a device, not a file", where=path)
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError("is not there", where=path) from None
    except (OSError, ValueError, RecursionError) as error:  # no UTF-8, no TOML, a number too long, tables too deep
        raise InputError(f"cannot be read as TOML: {error}", where=path) from None


def _merge(base: dict[str, Any], over: Mapping[str, Any]) -> None:
    for key, value in over.items():
        if isinstance(value, Mapping) and isinstance(base.get(key), dict):
            _merge(base[key], value)
        else:
            base[key] = dict(value) if isinstance(value, Mapping) else value


def _parse_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text


def _validate(values: dict[str, Any], error_type: type[InputError | UsageError], where: str | None) -> Config:
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        told = [_tell(fault) for fault in error.errors()]
        raise error_type("; ".join(told), where=where) from None


def _tell(error: Any) -> str:
    key = ".".join(map(str, error["loc"]))
    if error["type"] == "extra_forbidden":
        return f"{key}: is no setting{_suggest(key)}"
    told = str(error["msg"]).removeprefix("Value error, ").partition(" after validation")[0]
    return f"{key}: {told.lower()}, not {error['input']!r}"


def _suggest(key: str) -> str:
    """`; did you mean optimizer.lr?` for `lr` or `optimizer.lrr`; where nothing is near, what there is."""
    sections = {section: list(type(part).model_fields) for section, part in Config()}
    section, _, name = key.rpartition(".")
    if section in sections:
        near = difflib.get_close_matches(name, sections[section], 1)
        return f"; did you mean {section}.{near[0]}?" if near else f"; {section} has {', '.join(sections[section])}"
    near = [f"{section}.{key}" for section, names in sections.items() if key in names]
    near = near or difflib.get_close_matches(key, sections, 1)
    return f"; did you mean {near[0]}?" if near else f"; there are {', '.join(sections)}, and settings within each"
