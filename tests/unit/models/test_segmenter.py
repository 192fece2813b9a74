"""From images of any size to probabilities of the same size, whatever else is in the batch."""

import itertools
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from brainseg_cli.config import ModelConfig, PreprocessConfig
from brainseg_cli.errors import BrainsegError, InputError, UsageError
from brainseg_cli.models.build import build_model
from brainseg_cli.models.network import TorchNetwork, prepare_input
from brainseg_cli.models.segmenter import Pending, Segmenter, apply_threshold
from brainseg_cli.types import Tta

CPU = torch.device("cpu")
SIZES = [(40, 56), (32, 32), (21, 64), (64, 30), (128, 90)]


def segment_with(model: nn.Module, preprocess: PreprocessConfig, channels: int = 3) -> Segmenter:
    return Segmenter(TorchNetwork(model, preprocess, channels, CPU))


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    torch.manual_seed(2)
    model = build_model(ModelConfig(encoder="tu-test_resnet", decoder_channels=(16, 8, 8)), 3)
    return segment_with(model, PreprocessConfig(size=32))


@pytest.fixture
def images(rng: np.random.Generator) -> list[np.ndarray]:
    return [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in SIZES]


def test_each_at_its_own_size(segmenter: Segmenter, images: list[np.ndarray]) -> None:
    found = segmenter.predict_probs(images)
    assert [probs.shape for probs in found] == SIZES
    for probs in found:
        assert probs.dtype == np.float32 and 0 <= probs.min() < probs.max() <= 1


def test_one_by_one_is_the_same_as_together(segmenter: Segmenter, images: list[np.ndarray]) -> None:
    segmenter.network.model.train()  # type: ignore[attr-defined]  # predicting leaves that by itself
    together = segmenter.predict_probs(images)
    for image, probs in zip(images, together, strict=True):
        np.testing.assert_array_equal(segmenter.predict_probs([image])[0], probs)
    for size in (2, 3, 4):
        parts = [segmenter.predict_probs(images[start : start + size]) for start in range(0, len(images), size)]
        for found, probs in zip(itertools.chain.from_iterable(parts), together, strict=True):
            np.testing.assert_array_equal(found, probs)


def test_nothing_in_nothing_out(segmenter: Segmenter) -> None:
    assert segmenter.predict_probs([]) == []


def test_a_grey_image_is_one_of_three_equal_channels(segmenter: Segmenter, rng: np.random.Generator) -> None:
    grey = rng.integers(0, 256, (40, 56, 1), dtype=np.uint8)
    alone, spread = segmenter.predict_probs([grey, np.repeat(grey, 3, axis=2)])
    np.testing.assert_array_equal(alone, spread)


def test_other_channel_counts_are_refused(segmenter: Segmenter, rng: np.random.Generator) -> None:
    with pytest.raises(InputError, match="2 channels, the model takes 3"):
        segmenter.predict_probs([rng.integers(0, 256, (8, 8, 2), dtype=np.uint8)])
    model = build_model(ModelConfig(encoder="tu-test_resnet", decoder_channels=(16, 8, 8)), 1)
    of_grey = segment_with(model, PreprocessConfig(size=32), channels=1)
    assert of_grey.predict_probs([rng.integers(0, 256, (9, 8, 1), dtype=np.uint8)])[0].shape == (9, 8)
    with pytest.raises(InputError, match="3 channels, the model takes 1"):
        of_grey.check_channels(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))


class FirstChannel(nn.Module):
    """Its logits are the first channel: what goes in can be read from what comes out."""

    def forward(self, images: Tensor) -> Tensor:
        return images[:, :1]


@pytest.mark.parametrize("tta", get_args(Tta))
def test_pixels_stay_where_they_are(tta: Any) -> None:
    image = np.zeros((20, 64, 3), np.uint8)
    image[2:6, 40:60, 0] = 255  # red comes first
    image[10:, :, 2] = 255
    segmenter = segment_with(FirstChannel(), PreprocessConfig(size=64, intensity="unit"))
    expected = 1 / (1 + np.exp(image[..., 0] / -255.0))
    np.testing.assert_allclose(segmenter.predict_probs([image], tta=tta)[0], expected, atol=1e-6)


def test_what_a_reader_a_network_and_a_writer_do_is_all_there_is_to_it(
    segmenter: Segmenter, images: list[np.ndarray]
) -> None:
    """Training's val and eval take the three parts one by one, and the logits."""
    network = segmenter.network
    assert isinstance(network, TorchNetwork)
    prepared = [segmenter.prepare(image) for image in images]
    squares = np.stack([each.square for each in prepared])
    logits = network.logits(squares)
    assert logits.shape == (len(images), 1, 32, 32) and logits.dtype == torch.float32
    for found in (segmenter.submit(prepared)(), network.submit(squares)(), logits.sigmoid()[:, 0].numpy()):
        assert found.dtype == np.float32
        for one, square, probs in zip(prepared, found, segmenter.predict_probs(images), strict=True):
            np.testing.assert_array_equal(one.restore(square), probs)


class Counting:
    """A network that says a square's middle pixel, and remembers what it was asked."""

    preprocess = PreprocessConfig(size=32)
    in_channels, described, batch_size = 1, "counting", 4

    def __init__(self) -> None:
        self.seen: list[np.ndarray] = []

    def submit(self, pixels: np.ndarray) -> Pending:
        self.seen.append(pixels.copy())
        found = np.broadcast_to((pixels[:, 16:17, 16:17, 0] + np.float32(1)) / 512, pixels.shape[:3]).astype(np.float32)
        return lambda: found


@pytest.mark.parametrize("tta", get_args(Tta))
def test_a_square_without_a_pixel_is_computed_once(tta: Any) -> None:
    network = Counting()
    segmenter = Segmenter(network)
    levels = [0, 7, 0, 0, 9, 0]
    images = [np.full((40, 32, 1), level, np.uint8) for level in levels]
    images[1][9, 9] = images[4][9, 9] = 0  # a pixel of 0 does not make a blank square
    first = segmenter.predict_probs(images, tta=tta)
    blank = [square for pixels in network.seen for square in pixels if not square.any()]
    assert len(blank) == {"none": 1, "flips": 4, "d4": 8}[tta]  # a view each, of one square
    asked = len(network.seen)
    again = segmenter.predict_probs(images[:1], tta=tta)
    assert len(network.seen) == asked
    np.testing.assert_array_equal(again[0], first[0])
    for at in (0, 2, 3, 5):
        np.testing.assert_allclose(first[at], 1 / 512)
    assert [float(first[at][20, 16]) for at in (1, 4)] == [8 / 512, 10 / 512]  # the others are where they were
    for at in (1, 4):
        np.testing.assert_array_equal(Segmenter(Counting()).predict_probs([images[at]], tta=tta)[0], first[at])


def test_what_is_pending_may_be_asked_again_and_later(segmenter: Segmenter, images: list[np.ndarray]) -> None:
    batches = [[segmenter.prepare(image) for image in some] for some in (images[:2], images[2:])]
    pending = [segmenter.submit(batch) for batch in batches]
    later = [each() for each in reversed(pending)]
    for one, other in zip(pending, reversed(later), strict=True):
        np.testing.assert_array_equal(one(), other)


SYMMETRIES: dict[str, list[tuple[int, bool]]] = {
    "flips": [(0, False), (0, True), (2, False), (2, True)],
    "d4": [(turns, mirrored) for turns in range(4) for mirrored in (False, True)],
}


def move(array: np.ndarray, turns: int, mirrored: bool) -> np.ndarray:
    return np.rot90(np.fliplr(array) if mirrored else array, turns)


@pytest.mark.parametrize("tta", SYMMETRIES)
def test_probabilities_are_averaged_over_the_views(segmenter: Segmenter, rng: np.random.Generator, tta: Any) -> None:
    image = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)  # the network's own square
    back = []
    for turns, mirrored in SYMMETRIES[tta]:
        turned = np.rot90(segmenter.predict_probs([move(image, turns, mirrored)])[0], -turns)
        back.append(np.fliplr(turned) if mirrored else turned)
    averaged = segmenter.predict_probs([image], tta=tta)[0]
    np.testing.assert_allclose(averaged, np.mean(back, axis=0), atol=1e-5)
    assert np.abs(averaged - segmenter.predict_probs([image])[0]).max() > 1e-3  # it does something


@pytest.mark.parametrize("tta", SYMMETRIES)
def test_a_turned_image_gives_the_turned_answer(segmenter: Segmenter, rng: np.random.Generator, tta: Any) -> None:
    image = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
    straight = segmenter.predict_probs([image], tta=tta)[0]
    for turns, mirrored in SYMMETRIES[tta]:
        turned = segmenter.predict_probs([move(image, turns, mirrored)], tta=tta)[0]
        np.testing.assert_allclose(turned, move(straight, turns, mirrored), atol=1e-5)


def test_views_keep_every_images_own_size(segmenter: Segmenter, images: list[np.ndarray]) -> None:
    together = segmenter.predict_probs(images, tta="d4")
    assert [probs.shape for probs in together] == SIZES
    for image, probs in zip(images, together, strict=True):
        assert probs.dtype == np.float32 and 0 <= probs.min() < probs.max() <= 1
        np.testing.assert_allclose(segmenter.predict_probs([image], tta="d4")[0], probs, atol=1e-5)


def test_views_that_do_not_exist_are_refused_even_for_nothing(segmenter: Segmenter) -> None:
    with pytest.raises(UsageError, match="'d8'"):
        segmenter.predict_probs([], tta="d8")  # type: ignore[arg-type]


def test_input_is_scaled_channels_last_floats(rng: np.random.Generator) -> None:
    pixels = torch.from_numpy(rng.integers(0, 256, (2, 32, 64, 3), dtype=np.uint8))
    unit = prepare_input(pixels, PreprocessConfig(size=64, intensity="unit"), CPU)
    assert unit.shape == (2, 3, 32, 64) and unit.dtype == torch.float32
    assert unit.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(unit[1, 2], pixels[1, :, :, 2] / 255)
    scored = prepare_input(pixels, PreprocessConfig(size=64, intensity="zscore"), CPU)
    torch.testing.assert_close(scored.mean((2, 3)), torch.zeros(2, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(scored.std((2, 3), correction=0), torch.ones(2, 3), atol=1e-4, rtol=0)


def test_the_threshold_itself_is_tumour() -> None:
    probs = np.array([[0.0, 0.5, 0.499999, 1.0]], np.float32)
    np.testing.assert_array_equal(apply_threshold(probs, 0.5), [[0, 1, 0, 1]])
    assert apply_threshold(probs, 0.5).dtype == np.uint8
    assert apply_threshold(probs, 0.0).all()


def test_a_device_that_is_full_is_told_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(*_: Any) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    network = TorchNetwork(nn.Conv2d(3, 1, 1), PreprocessConfig(size=32), 3, CPU)
    monkeypatch.setattr(network, "_forward", fill)
    with pytest.raises(BrainsegError, match=r"not enough memory for 5 slices at a time.*--batch-size"):
        network.submit(np.ones((5, 32, 32, 3), np.uint8))
