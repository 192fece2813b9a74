"""The figure for print: the same picture as in pixels, with its words as words, and the same bytes each time."""

import base64
import hashlib
import os
import re
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any, get_args
from xml.etree import ElementTree

import cv2
import matplotlib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from matplotlib.figure import Figure

from brainseg_cli.errors import InputError, UsageError
from brainseg_cli.figures.overlay import draw_overlay
from brainseg_cli.figures.vector import VectorFormat, chain_edges, draw_vector, trace_edges
from brainseg_cli.io.images import decode_image
from brainseg_cli.types import Style

HEIGHT, WIDTH = 40, 56
STYLES: tuple[Style, ...] = get_args(Style)
FORMATS: tuple[VectorFormat, ...] = get_args(VectorFormat)
SVG = "{http://www.w3.org/2000/svg}"
HREF = "{http://www.w3.org/1999/xlink}href"
SMALL = arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 1))
IMAGE = np.random.default_rng(7).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def box(top: int, left: int, height: int, width: int) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[top : top + height, left : left + width] = 1
    return mask


ONE, OTHER = box(5, 10, 12, 12), box(9, 16, 12, 12)
ONE[8, 12] = OTHER[12, 20] = 0  # a hole each


def draw_svg(*masks: np.ndarray | None, **options: Any) -> ElementTree.Element:
    return ElementTree.fromstring(draw_vector(IMAGE, *masks, figure_format="svg", **options))


def texts(svg: ElementTree.Element) -> list[str]:
    return ["".join(text.itertext()) for text in svg.iter(f"{SVG}text")]


def corners(svg: ElementTree.Element, gid: str) -> list[tuple[float, float]]:
    """The points of a group's path, in px."""
    path = next(group for group in svg.iter(f"{SVG}g") if group.get("id") == gid).find(f"{SVG}path")
    assert path is not None
    numbers = [float(number) * 96 / 72 for number in re.findall(r"[\d.]+", path.get("d", ""))]
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def embedded(svg: ElementTree.Element) -> np.ndarray:
    (image,) = svg.iter(f"{SVG}image")
    data = base64.b64decode(image.attrib[HREF].removeprefix("data:image/png;base64,"))
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


def as_pixels(monkeypatch: pytest.MonkeyPatch, *masks: np.ndarray | None, **options: Any) -> np.ndarray:
    """The vector figure, drawn by the renderer for pixels at the size it has."""
    save = Figure.savefig
    with monkeypatch.context() as patch:
        patch.setattr(Figure, "savefig", lambda self, out, **_: save(self, out, format="png"))
        return decode_image(draw_vector(IMAGE, *masks, figure_format="svg", **options), "figure")


@pytest.mark.parametrize("zoom", [False, True])
@pytest.mark.parametrize(
    ("masks", "style"),
    [
        ((None, None), "contour"),
        ((ONE, None), "contour"),
        ((ONE, box(28, 40, 12, 16)), "contour"),
        ((ONE, box(0, 0, 0, 0)), "contour"),
        ((None, OTHER), "fill"),
        ((ONE, box(9, 14, 6, 6)), "fill"),
        ((ONE, OTHER), "errors"),
        ((box(0, 0, HEIGHT, WIDTH), box(3, 3, 1, 1)), "errors"),
        ((box(5, 10, 0, 0), OTHER), "errors"),
    ],
)
def test_the_picture_is_that_of_the_pixels(
    monkeypatch: pytest.MonkeyPatch, masks: tuple[np.ndarray | None, np.ndarray | None], style: Style, zoom: bool
) -> None:
    options: dict[str, Any] = {"style": style, "zoom": zoom, "title": "title", "min_side": 300}
    expected = draw_overlay(IMAGE, *masks, **options)
    drawn = as_pixels(monkeypatch, *masks, **options)
    assert drawn.shape == expected.shape
    picture = draw_overlay(IMAGE, *masks, **options | {"title": "", "legend": False}).shape[0]
    difference = np.abs(drawn[:picture].astype(int) - expected[:picture]).max(axis=-1)
    assert difference.max() <= 1
    # the words are drawn by two renderers, in the same places
    ink = [np.argwhere((figure[picture:] < 128).all(axis=-1)) for figure in (drawn, expected)]
    for edge in ("min", "max"):
        assert np.abs(getattr(ink[0], edge)(axis=0) - getattr(ink[1], edge)(axis=0)).max() <= 3


def test_outlines_that_fall_together_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    options: dict[str, Any] = {"min_side": 300, "legend": False}
    drawn = as_pixels(monkeypatch, ONE, ONE, **options)
    alone = draw_overlay(IMAGE, ONE, **options)
    on_line = (alone == (230, 159, 0)).all(axis=-1)
    share = [(drawn[on_line] == colour).all(axis=-1).mean() for colour in ((230, 159, 0), (86, 180, 233))]
    assert min(share) > 0.3 and sum(share) > 0.9  # between two dashes a pixel may be of both
    assert (drawn[~on_line] == alone[~on_line]).all()


def test_the_border_between_two_masks_is_of_both(monkeypatch: pytest.MonkeyPatch) -> None:
    options: dict[str, Any] = {"min_side": 300, "legend": False}
    drawn = as_pixels(monkeypatch, box(4, 10, 30, 10), box(4, 20, 30, 10), **options)
    column = drawn[2 + 6 * 5 : 2 + 6 * 33, 2 + 6 * 20]  # six px a pixel, in a frame of two
    share = [(column == colour).all(axis=-1).mean() for colour in ((230, 159, 0), (86, 180, 233))]
    assert min(share) > 0.3 and sum(share) > 0.9


def test_words_are_words_in_an_svg() -> None:
    svg = draw_svg(ONE, OTHER, style="errors", title="patient <1> & $a_b$ · slice 7")
    # 12 x 12 px each, less a hole of one; 8 x 6 shared, less the hole of the reference
    words = ["patient <1> & $a_b$ · slice 7", "hit 47 px", "missed 96 px", "false alarm 96 px"]
    assert texts(svg) == words
    assert svg.findtext(f"{SVG}title") == words[0]
    assert texts(draw_svg(ONE, box(0, 0, 0, 0))) == ["reference (empty)", "prediction"]
    assert texts(draw_svg(ONE, legend=False)) == []


def test_words_are_words_in_a_pdf() -> None:
    data = draw_vector(IMAGE, ONE, OTHER, figure_format="pdf", title="patient 1, slice 7")
    assert data.startswith(b"%PDF") and b"/FontFile2" in data and b"/Type3" not in data
    streams = [zlib.decompress(part) for part in re.findall(rb"stream\r?\n(x.+?)\r?\nendstream", data, re.DOTALL)]
    shown = b"".join(stream for stream in streams if b"BT" in stream)
    # letters may stand in pairs of bytes, with the distances between them
    words = b"".join(re.findall(rb"\(((?:\\.|[^\\)])*)\)", shown, re.DOTALL)).replace(b"\0", b"")
    for word in (b"patient 1, slice 7", b"reference", b"prediction"):
        assert word in words


def test_the_slice_is_embedded_with_its_own_pixels_below_the_lines() -> None:
    svg = draw_svg(ONE, zoom=True)
    np.testing.assert_array_equal(embedded(svg), IMAGE[0:28, 2:30])  # 12 + 2 * 8 around row 11 and column 16
    (image,) = svg.iter(f"{SVG}image")
    assert "pixelated" in image.get("style", "")
    assert image.get("id") == "slice"
    order = [element.get("id") for element in svg.iter()]
    assert order.index("slice") < order.index("prediction-halo") < order.index("prediction")


def test_outlines_are_paths_along_the_edges_of_pixels() -> None:
    svg = draw_svg(box(10, 20, 5, 4), min_side=WIDTH, legend=False)
    # one px a pixel, in a frame of two
    path = corners(svg, "prediction")[:4]  # the way back to the start may be told or not
    np.testing.assert_allclose(path, [(22, 12), (26, 12), (26, 17), (22, 17)], atol=1e-4)


def test_every_group_has_a_name_of_its_own() -> None:
    for style in STYLES:
        svg = draw_svg(ONE, OTHER, style=style, title="x")
        names = [element.get("id") for element in svg.iter() if element.get("id")]
        assert len(set(names)) == len(names) and not any(" " in name for name in names if name)


@pytest.mark.parametrize(
    ("mask", "chains"),
    [
        ([[0]], []),
        ([[1]], [[(0, 0), (1, 0), (1, 1), (0, 1), (0, 0)]]),
        ([[0, 1, 1]], [[(1, 0), (3, 0), (3, 1), (1, 1), (1, 0)]]),
        ([[1, 1], [1, 0]], [[(0, 0), (2, 0), (2, 1), (1, 1), (1, 2), (0, 2), (0, 0)]]),
        (
            [[1, 1, 1, 1], [1, 0, 0, 1], [1, 1, 1, 1]],  # a hole is followed the other way around
            [[(0, 0), (4, 0), (4, 3), (0, 3), (0, 0)], [(1, 1), (1, 2), (3, 2), (3, 1), (1, 1)]],
        ),
    ],
)
def test_the_outline_by_hand(mask: list[list[int]], chains: list[list[tuple[int, int]]]) -> None:
    assert chain_edges(trace_edges(np.array(mask, np.uint8))) == chains


def test_an_open_line_is_joined_from_its_start() -> None:
    edges = [((2, 0), (3, 0)), ((0, 0), (1, 0)), ((1, 0), (2, 0)), ((3, 0), (3, 1)), ((7, 7), (8, 7))]
    assert chain_edges(edges) == [[(0, 0), (3, 0), (3, 1)], [(7, 7), (8, 7)]]
    assert chain_edges([]) == []


@settings(max_examples=200, deadline=None)
@given(mask=SMALL)
def test_outlines_are_closed_hold_the_tumour_and_no_more(mask: np.ndarray) -> None:
    edges = trace_edges(mask)
    chains = chain_edges(edges)
    area, length = 0, 0
    for chain in chains:
        assert chain[0] == chain[-1]
        points = np.array(chain)
        steps = np.diff(points, axis=0)
        assert ((steps != 0).sum(axis=1) == 1).all()
        turns = np.cross(np.pad(steps, ((0, 0), (0, 1))), np.pad(np.roll(steps, -1, axis=0), ((0, 0), (0, 1))))[:, 2]
        assert (turns != 0).all()  # a corner at every point
        area += int((points[:-1, 0] * points[1:, 1] - points[1:, 0] * points[:-1, 1]).sum()) // 2
        length += int(np.abs(steps).sum())
    assert area == mask.sum()  # clockwise counts for, holes count against
    flips = np.abs(np.diff(np.pad(mask.astype(int), 1), axis=0)).sum()
    assert length == len(edges) == flips + np.abs(np.diff(np.pad(mask.astype(int), 1), axis=1)).sum()


AGAIN = """
import hashlib, numpy as np
from brainseg_cli.figures.vector import draw_vector
image = np.arange(40 * 56 * 3, dtype=np.uint32).astype(np.uint8).reshape(40, 56, 3)
mask = (image[..., 0] > 99).astype(np.uint8)
for form in ("svg", "pdf"):
    data = draw_vector(image, mask, 1 - mask, figure_format=form, style="errors", title="x")
    print(hashlib.sha256(data).hexdigest())
"""


def test_another_program_at_another_time_writes_the_same_bytes() -> None:
    image = np.arange(HEIGHT * WIDTH * 3, dtype=np.uint32).astype(np.uint8).reshape(HEIGHT, WIDTH, 3)
    mask = (image[..., 0] > 99).astype(np.uint8)
    here = [
        hashlib.sha256(draw_vector(image, mask, 1 - mask, figure_format=form, style="errors", title="x")).hexdigest()
        for form in FORMATS
    ]
    environment = os.environ | {
        "PYTHONHASHSEED": "77",
        "SOURCE_DATE_EPOCH": "1234567890",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    there = subprocess.run(
        [sys.executable, "-c", AGAIN], capture_output=True, text=True, check=True, env=environment
    ).stdout.split()
    assert here == there


@pytest.mark.parametrize("form", FORMATS)
def test_the_settings_of_the_user_change_nothing_and_are_left_alone(form: VectorFormat) -> None:
    def draw() -> bytes:
        return draw_vector(IMAGE, ONE, OTHER, figure_format=form, title="x")

    plain = draw()
    theirs = {
        "savefig.bbox": "tight",
        "savefig.dpi": 300,
        "figure.facecolor": "red",
        "font.family": "serif",
        "image.origin": "lower",
        "image.interpolation": "bicubic",
        "lines.scale_dashes": False,
        "svg.fonttype": "path",
        "text.usetex": True,
    }
    with matplotlib.rc_context(theirs):
        before = dict(matplotlib.rcParams)
        assert draw() == plain
        assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize("form", FORMATS)
def test_threads_do_not_disturb_each_other(form: VectorFormat) -> None:
    def draw(style: Style) -> bytes:
        return draw_vector(IMAGE, ONE, OTHER, figure_format=form, style=style, title=style)

    jobs = list(STYLES) * 2
    alone = [draw(style) for style in STYLES] * 2
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(draw, jobs)) == alone


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    "title",
    ["脳 7", "not text: \udcff", "nul \x00 \x0b", "\ufffe", "]]> &amp; <b>", "$a_b$ \\(x\\)", "𝔸 😀", "word " * 200],
)
def test_odd_titles_are_written(form: VectorFormat, title: str) -> None:
    data = draw_vector(IMAGE, ONE, figure_format=form, title=title)
    if form == "svg":
        assert len(texts(ElementTree.fromstring(data))) == 2
    else:
        assert data.rstrip().endswith(b"%%EOF")


def test_what_cannot_be_drawn_is_refused_as_in_pixels() -> None:
    with pytest.raises(UsageError, match=r"no vector format png \(svg, pdf\)"):
        draw_vector(IMAGE, ONE, figure_format="png")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="without a reference"):
        draw_vector(IMAGE, ONE, figure_format="svg", style="errors")
    with pytest.raises(UsageError, match="no channel 3"):
        draw_vector(IMAGE, ONE, figure_format="pdf", channel=3)
    with pytest.raises(InputError, match="the prediction is 1x1"):
        draw_vector(IMAGE, np.ones((1, 1), np.uint8), figure_format="pdf")
