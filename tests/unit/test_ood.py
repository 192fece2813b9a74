"""Slices that a model cannot be asked about: told from those that it was trained on."""

from collections.abc import Callable

import cv2
import numpy as np
import pytest

from brainseg_cli.ood import LEAST_SHARE, Ranges, find_unlike, learn_ranges, measure_look
from brainseg_cli.types import Image


def draw_head(rng: np.random.Generator, *, size: int = 96, level: float = 1.0) -> Image:
    """An upright oval in air: a skull around a brain with a dark fissure down the middle, three channels alike."""
    canvas = np.zeros((size, size), np.uint8)
    middle = (size // 2 + int(rng.integers(-3, 4)), size // 2)
    axes = (int(size * rng.uniform(0.24, 0.32)), int(size * rng.uniform(0.36, 0.42)))
    cv2.ellipse(canvas, middle, axes, rng.uniform(-6, 6), 0, 360, int(120 * level), -1)
    cv2.ellipse(canvas, middle, (axes[0] - 4, axes[1] - 4), 0, 0, 360, int(70 * level), -1)
    front = (middle[0] + int(rng.integers(-2, 3)), middle[1] - int(axes[1] * rng.uniform(0.4, 0.6)))
    cv2.ellipse(canvas, front, (axes[0] // 2, axes[1] // 3), 0, 0, 360, int(150 * level), -1)  # not the same below
    noisy = canvas.astype(np.float64) + rng.normal(0, 3, canvas.shape) * (canvas > 0)
    return np.repeat(np.clip(noisy, 0, 255).astype(np.uint8)[..., None], 3, axis=2)


@pytest.fixture(scope="module")
def ranges() -> Ranges:
    rng = np.random.default_rng(0)
    return learn_ranges(draw_head(rng, level=rng.uniform(0.8, 1.2)) for _ in range(200))


CHANGES: dict[str, tuple[Callable[[Image], Image], list[str]]] = {
    "as it is": (lambda image: image, []),
    "mirrored": (lambda image: image[:, ::-1].copy(), []),
    "turned left": (lambda image: np.rot90(image).copy(), ["orientation"]),
    "turned right": (lambda image: np.rot90(image, 3).copy(), ["orientation"]),
    "inverted": (lambda image: 255 - image, ["intensity", "head"]),
    "dim": (lambda image: (image * 0.4).astype(np.uint8), ["intensity"]),
    "bright": (lambda image: np.clip(image * 2.0, 0, 255).astype(np.uint8), ["intensity"]),
    "a part": (lambda image: image[30:66, 35:61].copy(), ["head"]),
    "grey": (lambda image: image[..., :1].copy(), ["channels"]),
    "blank": (lambda image: np.zeros_like(image), []),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_is_unlike_is_named(name: str, ranges: Ranges) -> None:
    change, wanted = CHANGES[name]
    rng = np.random.default_rng(1)
    for _ in range(20):
        found = find_unlike(change(draw_head(rng)), known=[(3, ranges)])
        assert set(wanted) <= set(found) and (wanted or not found), found


def test_noise_and_a_page_are_no_head(ranges: Ranges) -> None:
    rng = np.random.default_rng(2)
    page = np.full((96, 96, 3), 255, np.uint8)
    cv2.putText(page, "REPORT", (4, 50), cv2.FONT_HERSHEY_SIMPLEX, 0.7, (0, 0, 0), 2)
    for image in (rng.integers(0, 256, (96, 96, 3), np.uint8), page):
        assert "head" in find_unlike(image, known=[(3, ranges)])


def test_size_and_margin_change_little() -> None:
    image = draw_head(np.random.default_rng(3))
    wide = cv2.copyMakeBorder(image, 3, 6, 9, 2, cv2.BORDER_CONSTANT)
    large = cv2.resize(image, (512, 512), interpolation=cv2.INTER_LINEAR)
    for other in (wide, large):
        assert measure_look(other) == pytest.approx(measure_look(image), rel=0.1, abs=0.1)


def test_a_slice_with_little_on_it_is_not_judged(ranges: Ranges) -> None:
    image = np.zeros((96, 96, 3), np.uint8)
    side = int((LEAST_SHARE * 0.8) ** 0.5 * 96)
    image[:side, :side] = 200
    assert measure_look(image) is None and find_unlike(image, known=[(3, ranges)]) == []
    assert learn_ranges([image]) == learn_ranges([]) == {}
    assert find_unlike(draw_head(np.random.default_rng(4)), known=[(3, {})]) == []  # nothing is known of the training


def test_a_grey_slice_is_held_against_every_channel(ranges: Ranges) -> None:
    image = draw_head(np.random.default_rng(5))[..., :1]
    assert find_unlike(image, known=[(1, ranges)]) == []
    assert find_unlike(np.clip(image * 2.0, 0, 255).astype(np.uint8), known=[(3, ranges)])[:2] == [
        "channels",
        "intensity",
    ]
