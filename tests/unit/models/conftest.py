"""A tiny trained-looking network as a bundle, and its exports: made once, each takes seconds."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bundle_sample import SIZE, about

from brainseg_cli.config import ModelConfig
from brainseg_cli.models.build import build_model
from brainseg_cli.models.bundle import save_bundle
from brainseg_cli.models.locate import BundleInfo, open_bundle
from brainseg_cli.models.runtimes import Choice, open_network
from brainseg_cli.models.segmenter import Network

RUNTIMES = ("torch", "openvino", "onnx")


@pytest.fixture(scope="session")
def info() -> BundleInfo:
    """What the bundle `exported` says of itself."""
    return about()


@pytest.fixture(scope="session")
def make_bundle() -> Callable[..., Path]:
    """`make_bundle(folder, seed=1, threshold=0.4)`: the model/ folder of a network, its norms with real statistics."""

    def make(folder: Path, *, seed: int = 1, **changes: Any) -> Path:
        torch.manual_seed(seed)
        model = build_model(ModelConfig(encoder="tu-test_resnet", decoder_channels=(16, 8, 8)), 3)
        with torch.no_grad():
            model.train()(torch.rand(4, 3, SIZE, SIZE))
        save_bundle(folder, model.eval(), about(**changes))
        return folder

    return make


@pytest.fixture(scope="session")
def exported(make_bundle: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model/ folder whose cache/ has an export for each runtime; to be read and never written to."""
    folder = make_bundle(tmp_path_factory.mktemp("exported") / "model")
    for runtime in RUNTIMES:
        open_network(open_bundle(folder), Choice(runtime, "cpu"))  # type: ignore[arg-type]
    return folder


@pytest.fixture(scope="session")
def networks(exported: Path) -> dict[str, Network]:
    """The network of `exported` by each runtime, in fp32."""
    bundle = open_bundle(exported)
    return {name: open_network(bundle, Choice(name, "cpu", "fp32")) for name in RUNTIMES}  # type: ignore[arg-type]


@pytest.fixture
def copied(exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of `exported`, to be spoilt; the user's own cache is an empty folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    return shutil.copytree(exported, tmp_path / "run" / "model")


@pytest.fixture
def squares(rng: np.random.Generator) -> np.ndarray:
    """Seven images as the network takes them."""
    return rng.integers(0, 256, (7, SIZE, SIZE, 3), dtype=np.uint8)
