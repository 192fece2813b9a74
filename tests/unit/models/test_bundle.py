"""The model/ folder: what was saved is what is loaded, by us and by the library, and nothing else is accepted."""

import io
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import segmentation_models_pytorch as smp
import torch
from torch import nn

from brainseg_cli.config import ModelConfig, PreprocessConfig
from brainseg_cli.errors import InputError
from brainseg_cli.models.build import build_model
from brainseg_cli.models.bundle import load_bundle, load_network, save_bundle, write_info
from brainseg_cli.models.locate import BUNDLE_SCHEMA, Bundle, BundleInfo

INFO = BundleInfo(
    brainseg_version="0.1.0",
    torch_version="2",
    preprocess=PreprocessConfig(size=32, intensity="unit"),
    threshold=0.4,
    threshold_from="val",
    channel_names=["pre-contrast", "FLAIR", "post-contrast"],
    encoder_weights="imagenet",
    dataset_hash="d",
    split="70/15/15",
    split_hash="s",
    leaky=False,
    epoch=7,
    val_dice_patient=None,
)


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(5)
    model = build_model(ModelConfig(encoder="tu-test_resnet", decoder_channels=(16, 8, 8)), 3)
    with torch.no_grad():  # so that the norms' statistics are not those of a new network
        model.train()(torch.rand(4, 3, 32, 32))
    return model.eval()


@pytest.fixture
def bundle(model: nn.Module, tmp_path: Path) -> Path:
    save_bundle(tmp_path / "run" / "model", model, INFO)
    return tmp_path / "run" / "model"


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(2, 3, 32, 64, generator=torch.Generator().manual_seed(1))


def test_the_same_network_comes_back(bundle: Path, model: nn.Module, images: torch.Tensor) -> None:
    for path in (bundle, bundle.parent):  # the model/ folder, or the run
        loaded, info = load_bundle(path)
        assert not loaded.training and info.model_copy(update={"sha256": {}}) == INFO
        with torch.inference_mode():
            assert torch.equal(loaded(images), model(images))
    assert sorted(path.name for path in bundle.iterdir()) == ["brainseg.json", "config.json", "model.safetensors"]


def test_the_library_reads_it_too(bundle: Path, model: nn.Module, images: torch.Tensor) -> None:
    theirs = smp.from_pretrained(str(bundle)).eval()
    with torch.inference_mode():
        assert torch.equal(theirs(images), model(images))


def test_loading_downloads_nothing(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a download was tried")

    import huggingface_hub
    import timm.models._builder

    monkeypatch.setattr("segmentation_models_pytorch.encoders.hf_hub_download", refuse)
    monkeypatch.setattr(timm.models._builder, "load_pretrained", refuse)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
    assert json.loads((bundle / "config.json").read_text())["encoder_weights"] is None
    assert load_bundle(bundle)[1].encoder_weights == "imagenet"  # where it came from is still told


def test_saving_again_replaces_it(bundle: Path, images: torch.Tensor) -> None:
    torch.manual_seed(6)
    other = build_model(ModelConfig(encoder="tu-test_convnext", decoder_channels=(8, 8, 8)), 3).eval()
    save_bundle(bundle, other, INFO.model_copy(update={"epoch": 8}))
    loaded, info = load_bundle(bundle)
    assert info.epoch == 8
    with torch.inference_mode():
        assert torch.equal(loaded(images), other(images))
    assert len(list(bundle.iterdir())) == 3


def test_the_information_alone_is_replaced(bundle: Path) -> None:
    weights = (bundle / "model.safetensors").read_bytes()
    before = load_bundle(bundle)[1]
    write_info(bundle, before.model_copy(update={"threshold": 0.37}))
    known = load_bundle(bundle)[1]
    assert known.model_copy(update={"sha256": {}}) == INFO.model_copy(update={"threshold": 0.37})
    assert set(known.sha256) == {"brainseg.json", "config.json", "model.safetensors"}
    assert {name for name in known.sha256 if known.sha256[name] != before.sha256[name]} == {"brainseg.json"}
    assert (bundle / "model.safetensors").read_bytes() == weights and len(list(bundle.iterdir())) == 3


def test_a_threshold_that_was_changed_by_hand_is_told_by_the_checksum(bundle: Path) -> None:
    told = json.loads((bundle / "brainseg.json").read_text())
    (bundle / "brainseg.json").write_text(json.dumps(told | {"threshold": 0.05}))
    with pytest.raises(InputError, match=r"brainseg\.json: is not as it was written.*--no-verify"):
        load_bundle(bundle)
    assert load_bundle(bundle, verify=False)[1].threshold == 0.05


def test_a_bundle_of_the_first_schema_has_the_default_threshold(bundle: Path) -> None:
    older = {name: value for name, value in INFO.model_dump(mode="json").items() if name != "threshold_from"}
    (bundle / "brainseg.json").write_text(json.dumps(older | {"schema_version": 1, "threshold": 0.5}))
    info = load_bundle(bundle)[1]
    assert (info.schema_version, info.threshold, info.threshold_from) == (1, 0.5, "default")
    write_info(bundle, info.model_copy(update={"threshold": 0.37, "threshold_from": "val"}))
    written = json.loads((bundle / "brainseg.json").read_text())  # an older program is told to update
    assert (written["schema_version"], written["threshold_from"]) == (BUNDLE_SCHEMA, "val")


@pytest.mark.parametrize("name", ["brainseg.json", "config.json", "model.safetensors"])
def test_a_missing_file_is_named(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    with pytest.raises(InputError) as caught:
        load_bundle(bundle.parent)
    assert "\n" not in str(caught.value)
    if name != "brainseg.json":  # without which it is no bundle at all
        assert name in str(caught.value)
    else:
        assert "holds no model" in str(caught.value)


def change(name: str, **values: Any) -> Callable[[Path], None]:
    def edit(bundle: Path) -> None:
        path = bundle / name
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return edit


def cut(bundle: Path) -> None:
    weights = bundle / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])


def put(name: str, data: bytes) -> Callable[[Path], object]:
    return lambda bundle: (bundle / name).write_bytes(data)


class Trap:
    """A pickle that would run code."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (Path("sprung"), "")


def saved(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (cut, "safetensors"),
        (put("model.safetensors", b""), "safetensors"),
        (put("model.safetensors", pickle.dumps(Trap())), "safetensors"),
        (put("model.safetensors", saved(Trap())), "safetensors"),
        (change("config.json", encoder_name="tu-test_convnext"), "does not fit"),
        (change("config.json", in_channels=1), "does not fit"),
        (change("config.json", _model_class="Linknet"), "Linknet"),
        (put("config.json", b"[]"), "no network"),
        (put("config.json", b"{"), "JSON"),
        (put("brainseg.json", b"[]"), "brainseg.json"),
        (put("brainseg.json", b"\xff"), "JSON"),
        (change("brainseg.json", threshold="high"), "threshold"),
        (change("brainseg.json", threshold_from="test"), "threshold_from"),
        (change("brainseg.json", leaky=[]), "leaky"),
        (change("brainseg.json", surprise=1), "surprise"),
        (change("brainseg.json", schema_version=BUNDLE_SCHEMA + 1, surprise=1), "update brainseg"),
    ],
)
def test_a_damaged_foreign_or_newer_bundle_is_refused_in_one_line(
    bundle: Path, spoil: Callable[[Path], object], told: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    spoil(bundle)
    with pytest.raises(InputError, match=told) as caught:
        load_bundle(bundle, verify=False)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "sprung").exists()


def test_weights_and_description_that_changed_since_are_told_by_their_checksum(bundle: Path) -> None:
    weights, config = bundle / "model.safetensors", bundle / "config.json"
    for path in (weights, config):
        whole = path.read_bytes()
        at = len(whole) - 9
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])  # a weight, which would load
        with pytest.raises(InputError, match="is not as it was written: its checksum does not fit") as caught:
            load_bundle(bundle)
        assert caught.value.where == path
        path.write_bytes(whole)
    load_bundle(bundle)


def test_an_exported_file_is_not_for_pytorch(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.touch()
    with pytest.raises(InputError, match="is an exported file"):
        load_network(Bundle(path, INFO, {}))
