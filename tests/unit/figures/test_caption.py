"""Words below a figure: each in its place, none over another, and nothing that no font can draw."""

import pytest

from brainseg_cli.figures.caption import Caption, lay_out_caption
from brainseg_cli.figures.scene import Entry

LEGEND = [Entry("reference", (1, 2, 3)), Entry("prediction (empty)", (4, 5, 6))]


def lay_out(title: str = "", legend: list[Entry] | None = None, min_width: int = 400) -> Caption:
    return lay_out_caption(title, legend or [], min_width=min_width, font_px=20)


def test_without_words_there_is_no_caption() -> None:
    for caption in (lay_out(), lay_out(" \n"), lay_out("", [])):
        assert (caption.width, caption.height, caption.title, caption.swatches) == (400, 0, "", [])


def test_a_line_for_the_title_and_one_for_the_legend() -> None:
    # lines of 30 px, a margin of 12 px above and below, less a quarter of a line
    assert [lay_out("x").height, lay_out("", LEGEND).height, lay_out("x", LEGEND).height] == [47, 47, 77]
    both = lay_out("x", LEGEND)
    assert (both.title_left, both.title_middle, both.legend_middle) == (12, 24, 54)
    assert lay_out("", LEGEND).legend_middle == 24


def test_the_entries_of_a_legend_stand_side_by_side() -> None:
    caption = lay_out("", LEGEND)
    first, second = caption.swatches
    assert first.box == (12, 16, 44, 32) and first.text_left == 54  # 32 x 16 px, 10 px before the label
    assert second.box[0] == 54 + round(caption.font.getlength("reference")) + 20
    assert [swatch.colour for swatch in caption.swatches] == [entry.colour for entry in LEGEND]
    assert second.text_left + caption.font.getlength(second.label) < caption.width


@pytest.mark.parametrize("min_width", [10, 11, 150, 151])
def test_a_legend_widens_the_caption_by_as_much_on_either_side(min_width: int) -> None:
    caption = lay_out("", LEGEND, min_width)
    last = caption.swatches[-1]
    assert caption.width >= last.text_left + caption.font.getlength(last.label)
    assert (caption.width - min_width) % 2 == 0


@pytest.mark.parametrize(
    ("title", "shown"),
    [
        ("two\nlines\tand  a tab", "two lines and a tab"),
        ("nul \x00 bell \x07 del \x7f", "nul \ufffd bell \ufffd del \ufffd"),
        ("not text: \udcff", "not text: \ufffd"),
        ("no character: \ufffe\U0010ffff", "no character: \ufffd\ufffd"),
        ("coupe n° 7 · Žižka · 脳", "coupe n° 7 · Žižka · 脳"),
    ],
)
def test_what_cannot_be_drawn_is_replaced(title: str, shown: str) -> None:
    assert lay_out(title).title == shown


def test_a_long_title_loses_its_middle_only() -> None:
    caption = lay_out("begin " + "word " * 100 + "end")
    assert caption.title.startswith("begin word") and caption.title.endswith("word end") and "…" in caption.title
    width = caption.font.getlength(caption.title)
    assert 400 - 24 - 20 < width <= 400 - 24
