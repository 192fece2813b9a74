"""Several networks as one: the mean of their probabilities, nobody counted twice, nobody left out."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from bundle_sample import about
from torch import Tensor, nn

from brainseg_cli.config import ModelConfig, PreprocessConfig
from brainseg_cli.errors import InputError, UsageError
from brainseg_cli.models.build import build_model
from brainseg_cli.models.bundle import save_bundle
from brainseg_cli.models.ensemble import Ensemble, load_ensemble
from brainseg_cli.models.locate import BundleInfo
from brainseg_cli.models.network import TorchNetwork
from brainseg_cli.models.runtimes import Choice
from brainseg_cli.models.segmenter import Segmenter

BY_TORCH = Choice(runtime="torch", device="cpu")


def network(seed: int, channels: int = 3) -> nn.Module:
    torch.manual_seed(seed)
    return build_model(ModelConfig(encoder="tu-test_resnet", decoder_channels=(16, 8, 8)), channels)


def wrap(model: nn.Module, info: BundleInfo) -> TorchNetwork:
    return TorchNetwork(model, info.preprocess, len(info.channel_names), torch.device("cpu"))


def ensemble_of(*members: tuple[nn.Module, BundleInfo]) -> Ensemble:
    return Ensemble([(wrap(model, info), info) for model, info in members])


@pytest.fixture(scope="module")
def networks() -> list[nn.Module]:
    return [network(seed) for seed in (1, 2, 3)]


@pytest.fixture
def images(rng: np.random.Generator) -> list[np.ndarray]:
    return [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in [(40, 56), (32, 32), (21, 64)]]


class Constant(nn.Module):
    """The same logit everywhere."""

    def __init__(self, logit: float) -> None:
        super().__init__()
        self.logit = logit

    def forward(self, images: Tensor) -> Tensor:
        return torch.full_like(images[:, :1], self.logit)


def test_probabilities_are_averaged_not_logits() -> None:
    ensemble = ensemble_of(*((Constant(logit), about()) for logit in (0.0, 4.0)))
    found = ensemble.predict([np.full((20, 30, 3), 9, np.uint8)])[0]
    sure = 1 / (1 + np.exp(-4.0))
    np.testing.assert_allclose(found.members[0], 0.5)
    np.testing.assert_allclose(found.members[1], sure, rtol=1e-6)
    np.testing.assert_allclose(found.probs, (0.5 + sure) / 2, rtol=1e-6)


def test_each_member_says_what_it_says_alone(networks: list[nn.Module], images: list[np.ndarray]) -> None:
    sizes = (32, 64, 32)  # each with its own preprocessing
    infos = [about(preprocess=PreprocessConfig(size=size)) for size in sizes]
    found = ensemble_of(*zip(networks, infos, strict=True)).predict(images, tta="flips")
    assert len(found) == len(images)
    for number, (model, info) in enumerate(zip(networks, infos, strict=True)):
        alone = Segmenter(wrap(model, info)).predict_probs(images, tta="flips")
        for one, probs in zip(found, alone, strict=True):
            np.testing.assert_array_equal(one.members[number], probs)
    for image, one in zip(images, found, strict=True):
        assert one.probs.shape == image.shape[:2] and one.probs.dtype == np.float32
        assert one.probs.min() >= 0 and one.probs.max() <= 1
        np.testing.assert_allclose(one.probs, sum(one.members) / 3, atol=1e-6)
        assert not np.array_equal(one.members[0], one.members[1])


def test_one_alone_is_its_own_mean_bit_for_bit(networks: list[nn.Module], images: list[np.ndarray]) -> None:
    found = ensemble_of((networks[0], about())).predict(images)
    alone = Segmenter(wrap(networks[0], about())).predict_probs(images)
    for one, probs in zip(found, alone, strict=True):
        np.testing.assert_array_equal(one.probs, probs)
        assert len(one.members) == 1


def test_what_the_bundles_say_together(networks: list[nn.Module]) -> None:
    infos = [about(threshold=0.3, epoch=1), about(threshold=0.6, epoch=2, leaky=True), about(threshold=0.45, epoch=3)]
    ensemble = ensemble_of(*zip(networks, infos, strict=True))
    assert ensemble.threshold == pytest.approx(0.45)
    assert [bundle.epoch for bundle in ensemble.bundles] == [1, 2, 3]
    assert ensemble.leaky and not ensemble_of((networks[0], infos[0])).leaky
    assert ensemble_of((networks[0], about(threshold=0.37))).threshold == 0.37
    assert ensemble.described == "torch fp32 cpu" and ensemble.batch_size > 1


def test_what_one_member_refuses_is_refused(networks: list[nn.Module]) -> None:
    grey, colour = np.zeros((8, 9, 1), np.uint8), np.zeros((8, 9, 3), np.uint8)
    of_grey = network(4, channels=1), about(channel_names=["FLAIR"])
    mixed = ensemble_of((networks[0], about()), of_grey)
    mixed.check_channels(grey)
    assert mixed.predict([grey])[0].probs.shape == (8, 9)
    with pytest.raises(InputError, match="3 channels, the model takes 1"):
        mixed.check_channels(colour)
    ensemble_of((networks[0], about())).check_channels(colour)


def test_nothing_in_nothing_out_and_no_network_no_ensemble(networks: list[nn.Module]) -> None:
    assert ensemble_of((networks[0], about())).predict([]) == []
    with pytest.raises(UsageError, match="no model"):
        Ensemble([])
    with pytest.raises(UsageError, match="no model"):
        load_ensemble([], BY_TORCH)


@pytest.fixture
def folds(networks: list[nn.Module], tmp_path: Path) -> Path:
    for number, (fold, model) in enumerate(zip((2, 10, 1), networks, strict=True)):
        save_bundle(tmp_path / "cv" / f"fold_{fold}" / "model", model, about(epoch=fold, threshold=0.2 + number / 10))
    return tmp_path / "cv"


def test_a_k_fold_is_one_model(folds: Path, networks: list[nn.Module], images: list[np.ndarray]) -> None:
    ensemble = load_ensemble([folds], BY_TORCH)
    assert [bundle.epoch for bundle in ensemble.bundles] == [1, 2, 10]
    assert ensemble.threshold == pytest.approx(0.3)
    expected = ensemble_of(*((networks[at], about()) for at in (2, 0, 1))).predict(images)
    for one, other in zip(ensemble.predict(images), expected, strict=True):
        np.testing.assert_array_equal(one.probs, other.probs)


def test_runs_and_model_folders_keep_the_order_they_are_named_in(folds: Path) -> None:
    ensemble = load_ensemble([folds / "fold_10", folds / "fold_1" / "model"], BY_TORCH)
    assert [bundle.epoch for bundle in ensemble.bundles] == [10, 1]
    assert len(load_ensemble([folds / "fold_2"], BY_TORCH).members) == 1


def test_the_same_model_twice_is_refused(folds: Path) -> None:
    copied = shutil.copytree(folds / "fold_2", folds.parent / "copied")
    (folds.parent / "link").symlink_to(folds / "fold_2")
    run = folds / "fold_2"
    for paths in ([run, run], [run, run / "model"], [folds, run], [run, copied], [run, folds.parent / "link"]):
        with pytest.raises(UsageError, match="hold the same model") as caught:
            load_ensemble(paths, BY_TORCH)
        assert "\n" not in str(caught.value)


def test_a_member_that_cannot_be_loaded_ends_it(folds: Path) -> None:
    with pytest.raises(InputError, match="holds no model"):
        load_ensemble([folds, folds.parent / "gone"], BY_TORCH)
    (folds / "fold_1" / "model" / "model.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match="safetensors"):
        load_ensemble([folds], BY_TORCH)
