"""The contact sheet: every figure whole, in its cell, on white."""

import numpy as np
import pytest

from brainseg_cli.errors import InputError, UsageError
from brainseg_cli.figures.caption import TEXT_COLOUR
from brainseg_cli.figures.scene import name_colours
from brainseg_cli.figures.sheet import MARGIN_PX, draw_sheet


def tile(height: int, width: int, value: int, channels: int = 3) -> np.ndarray:
    return np.full((height, width, channels), value, np.uint8)


def test_figures_of_unequal_size_stand_in_rows() -> None:
    sheet = draw_sheet([tile(10, 20, 1), tile(14, 6, 2), tile(5, 8, 3)], columns=2)
    assert sheet.shape == (14 + 5 + 3 * MARGIN_PX, 20 + 6 + 3 * MARGIN_PX, 3)
    m = MARGIN_PX
    assert (sheet[m : m + 10, m : m + 20] == 1).all()
    assert (sheet[m : m + 14, 2 * m + 20 : 2 * m + 26] == 2).all()
    assert (sheet[2 * m + 14 : 2 * m + 19, m + 6 : m + 14] == 3).all()  # in the middle of its column
    areas = [(sheet == value).all(axis=-1).sum() for value in (1, 2, 3)]
    assert areas == [200, 84, 40]
    assert (sheet == 255).all(axis=-1).sum() == sheet.shape[0] * sheet.shape[1] - sum(areas)


def test_no_more_columns_than_figures() -> None:
    assert draw_sheet([tile(4, 5, 0)], columns=3).shape == (4 + 2 * MARGIN_PX, 5 + 2 * MARGIN_PX, 3)


def test_a_grey_figure_is_taken() -> None:
    sheet = draw_sheet([tile(4, 5, 7, channels=1)], columns=1)
    assert (sheet == 7).sum() == 4 * 5 * 3


def test_nothing_to_lay_out_is_refused() -> None:
    with pytest.raises(InputError, match="no figure"):
        draw_sheet([], columns=2)
    with pytest.raises(UsageError, match="0 columns"):
        draw_sheet([tile(1, 1, 0)], columns=0)


def test_a_title_and_a_legend_stand_above_the_figures() -> None:
    figures = [tile(30, 400, 1), tile(30, 400, 2)]
    bare = draw_sheet(figures, columns=2)
    titled = draw_sheet(figures, columns=2, title="patient 7")
    both = draw_sheet(figures, columns=2, title="patient 7", legend=name_colours("errors"))
    for sheet in (titled, both):
        np.testing.assert_array_equal(sheet[-len(bare) :], bare)
    assert len(both) > len(titled) > len(bare)
    heads = [sheet[: -len(bare)] for sheet in (titled, both)]
    assert all((head == TEXT_COLOUR).all(axis=-1).sum() > 50 for head in heads)
    for _, colour in name_colours("errors"):
        assert not (heads[0] == colour).all(axis=-1).any()
        assert (heads[1] == colour).all(axis=-1).sum() > 100


def test_a_small_sheet_has_room_for_its_legend_and_a_long_title_fits() -> None:
    sheet = draw_sheet([tile(5, 9, 1)], columns=1, title="long " * 50, legend=name_colours("fill"))
    assert sheet.shape[1] > 200
    head = sheet[: -5 - 2 * MARGIN_PX]
    assert (head[:, -6:] == 255).all()
    start = (sheet.shape[1] - 9) // 2
    assert (sheet[-5 - MARGIN_PX : -MARGIN_PX, start : start + 9] == 1).all() and (sheet == 1).all(axis=-1).sum() == 45
