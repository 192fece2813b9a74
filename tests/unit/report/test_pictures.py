"""Which slices are shown, and that their outlines are the masks, edge by edge."""

import base64
import re
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from brainseg_cli.errors import InputError
from brainseg_cli.io.images import decode_image
from brainseg_cli.report.pictures import LONGEST_SIDE_PX, Picture, choose_pictures, draw_picture, trace_edges

Row = tuple[str, str, int, int, int]


def tabulate(*rows: Row) -> pd.DataFrame:
    """image, patient, tp, fp, fn to a table of slices."""
    table = pd.DataFrame(rows, columns=["image", "patient_id", "tp", "fp", "fn"])
    return table.assign(dice=2 * table["tp"] / (2 * table["tp"] + table["fp"] + table["fn"]).replace(0, np.nan))


def fill(path: str, shape: tuple[int, int]) -> np.ndarray:
    """Path data of closed loops of straight steps back to a mask, by the even-odd rule."""
    inside = np.zeros(shape, bool)
    x = y = start = 0
    for command, first, second in re.findall(r"([Mhvz])(-?\d*)(?: (\d+))?", path):
        if command == "M":
            x, y = int(first), int(second)
            start = y
        elif command == "h":
            x += int(first)
        else:  # z closes the loop: by a vertical side, where the last one was not
            end = start if command == "z" else y + int(first)
            inside[min(y, end) : max(y, end), x:] ^= True
            y = end
    return inside


def loops(path: str) -> list[str]:
    return [part + "z" for part in path.split("z") if part]


def test_the_worst_come_first_then_the_best() -> None:
    table = tabulate(
        ("good", "a", 90, 5, 5),
        ("empty", "a", 0, 0, 0),
        ("missed", "b", 0, 0, 40),
        ("alarm", "c", 0, 60, 0),
        ("apart", "d", 0, 10, 10),
        ("poor", "e", 10, 20, 20),
        ("perfect", "f", 30, 0, 0),
        ("larger perfect", "g", 300, 0, 0),
    )
    assert choose_pictures(table, 3) == [
        ("false alarm", "alarm"),  # all three have dice 0: the one with more wrong pixels first
        ("missed", "missed"),
        ("worst", "apart"),
        ("best", "larger perfect"),
        ("best", "perfect"),
        ("best", "good"),
    ]


def test_no_slice_is_chosen_twice_and_the_worst_take_half() -> None:
    table = tabulate(*((f"s{at}", f"p{at}", 10 + at, 5, 5) for at in range(5)))
    assert choose_pictures(table, 12) == [
        ("worst", "s0"),
        ("worst", "s1"),
        ("worst", "s2"),
        ("best", "s4"),
        ("best", "s3"),
    ]


def test_one_patient_does_not_fill_the_gallery_unless_it_must() -> None:
    bad = [(f"bad{at}", "a", at, 100, 100) for at in range(8)]
    others = [(f"other{at}", f"p{at}", 50 + at, 10, 10) for at in range(20)]
    worst = [image for kind, image in choose_pictures(tabulate(*others, *bad), 5) if kind != "best"]
    assert worst == ["bad0", "bad1", "bad2", "other0", "other1"]
    alone = [image for kind, image in choose_pictures(tabulate(*bad), 4) if kind != "best"]
    assert alone == ["bad0", "bad1", "bad2", "bad3"]


def test_nothing_to_see_is_no_picture() -> None:
    assert choose_pictures(tabulate(("empty", "a", 0, 0, 0))) == []
    assert choose_pictures(tabulate()) == []


@pytest.mark.parametrize(
    ("rows", "path"),
    [
        (["...", ".#.", "..."], "M1 1h1v1h-1z"),
        (["##", "##"], "M0 0h2v2h-2z"),
        (["...", "..."], ""),
    ],
)
def test_outlines_run_along_the_edges_of_pixels(rows: list[str], path: str) -> None:
    assert trace_edges(np.array([[cell == "#" for cell in row] for row in rows])) == path


def test_a_ring_has_two_loops_and_a_diagonal_closes() -> None:
    ring = np.ones((3, 4), bool)
    ring[1, 1] = False
    assert len(loops(trace_edges(ring))) == 2
    assert (fill(trace_edges(ring), ring.shape) == ring).all()
    diagonal = np.eye(3, dtype=bool)
    assert (fill(trace_edges(diagonal), diagonal.shape) == diagonal).all()


def test_any_mask_comes_back_from_its_outline(rng: np.random.Generator) -> None:
    for density in (0.05, 0.3, 0.5, 0.9, 1.0):
        mask = rng.random((13, 17)) < density
        assert (fill(trace_edges(mask), mask.shape) == mask).all()


def picture(rng: np.random.Generator, *, shape: tuple[int, int] = (40, 56), channels: int | None = 3) -> Picture:
    reference, prediction = np.zeros((2, *shape), np.uint8)
    reference[4:9, 5:12] = 255
    prediction[6:12, 5:12] = 1
    image = None if channels is None else rng.integers(0, 255, (*shape, channels), dtype=np.uint8)
    return Picture("worst", "p/p_1", "p", 1, 0.5, image, reference, prediction)


def test_a_picture_has_every_layer(rng: np.random.Generator) -> None:
    drawn = ElementTree.fromstring(draw_picture(picture(rng)))
    assert drawn.get("viewBox") == "0 0 56 40"
    paths = {part.get("class"): part.get("d") or "" for part in drawn.iter("path")}
    masks = {name: fill(path, (40, 56)) for name, path in paths.items()}
    shown = picture(rng)
    assert (masks["layer reference line"] == (shown.reference > 0)).all()
    assert (masks["layer prediction line"] == (shown.prediction > 0)).all()
    assert masks["hit"].sum() == 3 * 7
    assert masks["miss"].sum() == 2 * 7
    assert masks["false-alarm"].sum() == 3 * 7
    order = [part.get("class") for part in drawn.iter("path")]
    assert order.index("layer prediction halo") < order.index("layer reference line")


@pytest.mark.parametrize("channels", [1, 3])
def test_the_image_is_inside_and_small(rng: np.random.Generator, channels: int) -> None:
    drawn = draw_picture(picture(rng, shape=(600, 1100), channels=channels))
    (data,) = re.findall(r'href="data:image/jpeg;base64,([^"]+)"', drawn)
    image = decode_image(base64.b64decode(data), "picture")
    assert image.shape[:2] == (279, LONGEST_SIDE_PX)
    assert 'viewBox="0 0 1100 600"' in drawn  # the masks keep every pixel
    assert '<image width="1100" height="600"' in drawn


def test_without_an_image_the_ground_is_black(rng: np.random.Generator) -> None:
    drawn = draw_picture(picture(rng, channels=None))
    assert "<image" not in drawn
    assert '<rect width="56" height="40" fill="#000"/>' in drawn


def test_sizes_that_differ_are_refused(rng: np.random.Generator) -> None:
    shown = picture(rng)
    odd = Picture("worst", "p/p_1", "p", None, None, shown.picture, shown.reference[1:], shown.prediction[1:])
    with pytest.raises(InputError, match="p/p_1 differ in size"):
        draw_picture(odd)
