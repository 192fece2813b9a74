"""Views of a square: as many as promised, no two alike, each with its exact way back."""

import itertools
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import pytest

from brainseg_cli.errors import UsageError
from brainseg_cli.models.tta import views
from brainseg_cli.types import Tta

SQUARE = np.arange(2 * 5 * 5 * 3, dtype=np.uint8).reshape(2, 5, 5, 3)  # no symmetry of its own


def same(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> bool:
    return one.shape == other.shape and bool((one == other).all())


@pytest.mark.parametrize(("tta", "count"), [("none", 1), ("flips", 4), ("d4", 8)])
def test_there_are_as_many_views_as_promised_no_two_alike_and_the_image_first(tta: Any, count: int) -> None:
    seen = [view.forward(SQUARE) for view in views(tta)]
    assert len(seen) == count and same(seen[0], SQUARE)
    assert not any(same(one, other) for one, other in itertools.combinations(seen, 2))
    assert all(same(view.sum((1, 2)), SQUARE.sum((1, 2))) for view in seen)  # channels and slices are left alone


def test_there_is_no_name_without_views() -> None:
    assert [len(views(tta)) for tta in get_args(Tta)] == [1, 4, 8]


@pytest.mark.parametrize("tta", get_args(Tta))
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 5, 5, 3), (2, 4, 7, 1), (3, 6, 5)])
def test_every_view_has_its_way_back(tta: Any, shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(3).random(shape, np.float32)
    before = pixels.copy()
    for view in views(tta):
        assert same(view.backward(view.forward(pixels)), pixels)
        assert same(view.forward(view.backward(pixels)), pixels)
    assert same(pixels, before)


def test_flips_are_left_right_up_down_and_both() -> None:
    seen = [view.forward(SQUARE) for view in views("flips")]
    for expected in (SQUARE, np.flip(SQUARE, 2), np.flip(SQUARE, 1), np.flip(SQUARE, (1, 2))):
        assert sum(same(expected, one) for one in seen) == 1


def test_d4_is_all_that_keeps_a_square_a_square() -> None:
    """Closed: one view of another is a third. With eight of them that is the square's whole group."""
    seen = views("d4")
    alone = [view.forward(SQUARE) for view in seen]
    for first, second in itertools.product(seen, seen):
        assert sum(same(second.forward(first.forward(SQUARE)), one) for one in alone) == 1
    assert any(same(SQUARE.swapaxes(1, 2), one) for one in alone)


def test_another_name_is_refused() -> None:
    with pytest.raises(UsageError, match=r"'rotations' \(none, flips, d4\)"):
        views("rotations")  # type: ignore[arg-type]
