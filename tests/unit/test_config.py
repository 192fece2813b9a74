"""Presets, files and overrides: who wins, and what is refused in one line."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from brainseg_cli.config import DEFAULT_PRESET, Config, list_presets, load_config, read_config
from brainseg_cli.errors import InputError, UsageError

PRESETS = ["best", "classic", "default", "demo", "fast"]


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    return path


# presets


def test_the_presets_are_these() -> None:
    assert list_presets() == PRESETS
    assert load_config() == load_config(DEFAULT_PRESET)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_valid_and_comes_back_from_toml(name: str, tmp_path: Path) -> None:
    config = load_config(name)
    path = write(tmp_path, config.to_toml())
    assert read_config(path) == config
    assert load_config("classic", path) == config  # every setting is in it: nothing of the preset shows
    assert config.to_toml() == read_config(path).to_toml()


def test_classic_is_the_keras_recipe() -> None:
    classic = load_config("classic")
    assert (classic.train.epochs, classic.train.batch_size, classic.preprocess.size) == (120, 40, 256)
    assert (classic.loss.name, classic.optimizer.name, classic.schedule.name) == ("dice", "adamax", "constant")
    assert classic.preprocess.intensity == "unit" and classic.model.encoder == "vgg13_bn"
    assert classic.augment.rotate_deg > 0 and classic.augment.zoom > 0 and classic.augment.flip_horizontal > 0


def test_a_preset_that_is_none() -> None:
    with pytest.raises(UsageError, match=r"no preset 'slow' \(there are best, classic, default, demo, fast\)"):
        load_config("slow")
    with pytest.raises(UsageError, match=r"no preset 'defalt'; did you mean default\? \(there are"):
        load_config("defalt")


# who wins


def test_overrides_over_file_over_preset_over_defaults(tmp_path: Path) -> None:
    path = write(tmp_path, "[train]\nbatch_size = 7\nseed = 5\n[loss]\nname = 'focal'\n")
    config = load_config("fast", path, {"train.seed": 9, "loss.focal_gamma": "1.5"})
    fast, default = load_config("fast"), Config()
    assert config.train.seed == 9
    assert config.train.batch_size == 7
    assert (config.loss.name, config.loss.focal_gamma) == ("focal", 1.5)
    assert config.train.epochs == fast.train.epochs != default.train.epochs
    assert config.optimizer.momentum == default.optimizer.momentum
    assert config.augment == fast.augment


def test_neither_the_preset_nor_the_mapping_is_changed() -> None:
    before, overrides = load_config("fast"), {"train.epochs": "9", "augment": {"zoom": 0.3}}
    changed = load_config("fast", overrides=overrides)
    assert (changed.train.epochs, changed.augment.zoom) == (9, 0.3)
    assert overrides == {"train.epochs": "9", "augment": {"zoom": 0.3}}
    assert load_config("fast") == before


def test_a_configuration_cannot_be_changed_in_place() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        load_config().train.epochs = 3  # type: ignore[misc]


# what --set says


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("optimizer.lr", "1e-4", 1e-4),
        ("optimizer.lr", "1", 1.0),
        ("train.epochs", "12", 12),
        ("train.epochs", " 12 ", 12),
        ("train.compile", "true", True),
        ("optimizer.name", "sgd", "sgd"),
        ("optimizer.name", "'sgd'", "sgd"),
        ("loss.name", "dice+bce", "dice+bce"),
        ("model.encoder", "tu-mobilenetv4_conv_small", "tu-mobilenetv4_conv_small"),
        ("model.decoder_channels", "[64, 32, 16]", (64, 32, 16)),
        ("augment.flip_vertical", "0", 0.0),
    ],
)
def test_texts_are_read_as_toml_or_as_they_are(key: str, text: str, value: Any) -> None:
    section, name = key.split(".")
    read = getattr(getattr(load_config(overrides={key: text}), section), name)
    assert read == value and type(read) is type(value)


def test_a_whole_section_may_be_set() -> None:
    config = load_config("fast", overrides={"preprocess": "{size = 96}"})
    assert config.preprocess.size == 96
    assert config.preprocess.intensity == load_config("fast").preprocess.intensity


# what is refused


REFUSED = [
    ("train.epoch", "5", "train.epoch: is no setting; did you mean train.epochs?"),
    ("lr", "5", "lr: is no setting; did you mean optimizer.lr?"),
    ("nonsense", "5", "nonsense: is no setting; there are preprocess, model, "),
    ("optimizer.learning_rate", "1", "optimizer.learning_rate: is no setting; optimizer has name, lr, "),
    ("nonsense.deep.down", "5", "nonsense: is no setting"),
    ("train.seed.x", "1", "train.seed: "),
    ("train", "5", "train: is a section, written as a table, not 5"),
    ("train.epochs", "0", "train.epochs: input should be greater than or equal to 1, not 0"),
    ("train.epochs", "2.5", "train.epochs: "),
    ("train.epochs", "many", "train.epochs: "),
    ("train.epochs", "[5]", "train.epochs: "),
    ("optimizer.lr", "0", "optimizer.lr: input should be greater than 0, not 0"),
    ("optimizer.lr", "-1e-3", "optimizer.lr: "),
    ("optimizer.lr", "nan", "optimizer.lr: "),
    ("optimizer.lr", "inf", "optimizer.lr: "),
    ("optimizer.lr", "2020-01-01", "optimizer.lr: "),
    ("optimizer.name", "adam", "optimizer.name: input should be 'adamax', 'adamw' or 'sgd', not 'adam'"),
    ("augment.flip_horizontal", "1.01", "augment.flip_horizontal: "),
    ("augment.zoom", "1", "augment.zoom: "),
    ("preprocess.size", "100", "preprocess.size: input should be a multiple of 32, not 100"),
    ("preprocess.size", "4096", "preprocess.size: "),
    ("model.encoder", "5", "model.encoder: "),
    ("model.decoder_channels", "[64, 32]", "model.decoder_channels: tuple should have at least 3 items, not [64, 32]"),
    (
        "model.decoder_channels",
        "[64, 32, true]",
        "model.decoder_channels: should be a number or a name, not [64, 32, True]",
    ),
    ("model.decoder_channels", "[64, 32, 0]", "model.decoder_channels.2: "),
    ("model.decoder_channels", "64", "model.decoder_channels: "),
    ("train.compile", "perhaps", "train.compile: "),
    ("train.epochs", "true", "train.epochs: should be a number or a name, not True"),
    ("model.encoder", "true", "model.encoder: should be a number or a name, not True"),
    ("augment", "{}", "augment: an empty table changes nothing"),
    ("train.seed", "4294967296", "train.seed: "),
    ("schedule.warmup_epochs", "-1", "schedule.warmup_epochs: "),
]


@pytest.mark.parametrize(("key", "text", "told"), REFUSED)
def test_an_override_that_makes_no_sense_is_a_usage_error_in_one_short_line(key: str, text: str, told: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_config(overrides={key: text})
    line = str(caught.value)
    assert line.startswith(told)
    assert "\n" not in line and len(line) < 200


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[train]\nepoch = 5", "train.epoch: is no setting"),
        ("[trains]\nepochs = 5", "trains: is no setting; did you mean train?"),
        ("train = 5", "train: is a section"),
        ("[train]\nepochs = 'five'", "train.epochs: "),
        ("[train]\nepochs = 0\nbatch_size = 0", "train.batch_size: "),
        ("[schedule]\nwarmup_epochs = -1", "schedule.warmup_epochs: "),
        ("[train", "cannot be read as TOML: "),
        ("[train]\nepochs = 5\nepochs = 6", "cannot be read as TOML: "),
        ("[train]\nepochs = \xff", "cannot be read as TOML: "),
    ],
)
@pytest.mark.parametrize("read", [read_config, lambda path: load_config("fast", path)])
def test_a_file_that_makes_no_sense_is_an_input_error_that_names_it(
    tmp_path: Path, read: Any, text: str, told: str
) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError) as caught:
        read(path)
    line = str(caught.value)
    assert line.startswith(str(path)) and told in line
    assert "\n" not in line and len(line) < 300


def test_every_fault_is_told_at_once() -> None:
    with pytest.raises(UsageError, match=r"preprocess\.size: .*; train\.epochs: "):
        load_config(overrides={"train.epochs": "0", "preprocess.size": "33"})


def test_a_file_that_is_not_there_or_a_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not there"):
        load_config(path=tmp_path / "absent.toml")
    with pytest.raises(InputError, match="cannot be read as TOML"):
        read_config(tmp_path)


def test_one_epoch_needs_no_shorter_warm_up() -> None:
    assert load_config(overrides={"train.epochs": 1}).train.epochs == 1


def test_toml_too_deep_or_too_long_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    for text in ("a = " + "[" * 100_000, "a = " + "9" * 10_000):
        path.write_text(text)
        with pytest.raises(InputError, match="cannot be read as TOML") as caught:
            load_config(path=path)
        assert "\n" not in str(caught.value)
        with pytest.raises(UsageError):
            load_config(overrides={"train.epochs": text.removeprefix("a = ")})
    with pytest.raises(InputError, match="is a device"):
        load_config(path=Path("/dev/zero"))
