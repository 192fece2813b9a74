"""Views of a square: as many as promised, no two alike, each with its exact way back."""

import itertools
from typing import Any, get_args

import pytest
import torch

from brainseg_cli.errors import UsageError
from brainseg_cli.models.tta import views
from brainseg_cli.types import Tta

SQUARE = torch.arange(2 * 3 * 5 * 5, dtype=torch.float32).reshape(2, 3, 5, 5)  # no symmetry of its own


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.shape == other.shape and torch.equal(one, other)


@pytest.mark.parametrize(("tta", "count"), [("none", 1), ("flips", 4), ("d4", 8)])
def test_there_are_as_many_views_as_promised_no_two_alike_and_the_image_first(tta: Any, count: int) -> None:
    seen = [view.forward(SQUARE) for view in views(tta)]
    assert len(seen) == count and same(seen[0], SQUARE)
    assert not any(same(one, other) for one, other in itertools.combinations(seen, 2))
    assert all(same(view.sum((2, 3)), SQUARE.sum((2, 3))) for view in seen)  # channels and slices are left alone


def test_there_is_no_name_without_views() -> None:
    assert [len(views(tta)) for tta in get_args(Tta)] == [1, 4, 8]


@pytest.mark.parametrize("tta", get_args(Tta))
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 3, 5, 5), (2, 1, 4, 7)])
def test_every_view_has_its_way_back(tta: Any, shape: tuple[int, ...]) -> None:
    pixels = torch.rand(shape, generator=torch.Generator().manual_seed(3))
    before = pixels.clone()
    for view in views(tta):
        assert same(view.backward(view.forward(pixels)), pixels)
        assert same(view.forward(view.backward(pixels)), pixels)
    assert same(pixels, before)


def test_flips_are_left_right_up_down_and_both() -> None:
    seen = [view.forward(SQUARE) for view in views("flips")]
    for expected in (SQUARE, SQUARE.flip(3), SQUARE.flip(2), SQUARE.flip(2, 3)):
        assert sum(same(expected, one) for one in seen) == 1


def test_d4_is_all_that_keeps_a_square_a_square() -> None:
    """Closed: one view of another is a third. With eight of them that is the square's whole group."""
    seen = views("d4")
    alone = [view.forward(SQUARE) for view in seen]
    for first, second in itertools.product(seen, seen):
        assert sum(same(second.forward(first.forward(SQUARE)), one) for one in alone) == 1
    assert any(same(SQUARE.transpose(2, 3), one) for one in alone)


def test_another_name_is_refused() -> None:
    with pytest.raises(UsageError, match=r"'rotations' \(none, flips, d4\)"):
        views("rotations")  # type: ignore[arg-type]
