"""The overlay use-case: which mask belongs to which image, what is written, and what a fault leaves standing."""

from pathlib import Path

import numpy as np
import pytest

from brainseg_cli.errors import InputError, OutputExistsError, UsageError
from brainseg_cli.figures.overlay import PREDICTION_COLOUR, REFERENCE_COLOUR, draw_overlay
from brainseg_cli.io.images import read_image, read_mask, write_image, write_mask
from brainseg_cli.overlay import overlay

SHAPE = (40, 56)


def put_image(folder: Path, *names: str, value: int = 60) -> None:
    for name in names:
        write_image(folder / name, np.full((*SHAPE, 3), value, np.uint8))


def put_mask(folder: Path, *names: str, side: int = 9, shape: tuple[int, int] = SHAPE) -> None:
    mask = np.zeros(shape, np.uint8)
    mask[3 : 3 + side, 5 : 5 + side] = 1
    for name in names:
        write_mask(folder / name, mask)


def tree(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def has(path: Path, colour: tuple[int, int, int]) -> bool:
    return bool((read_image(path) == colour).all(axis=-1).any())


def test_the_tree_is_mirrored_in_natural_order(tmp_path: Path) -> None:
    names = ["p/p_10", "p/p_2", "Åsa B/slice 1"]
    put_image(tmp_path / "in", *(f"{n}.tif" for n in names))
    put_mask(tmp_path / "masks", *(f"{n}.png" for n in names))
    (tmp_path / "masks" / "predictions.jsonl").write_text("{}\n")
    told: list[tuple[int, int, str]] = []
    out = tmp_path / "out"
    result = overlay(
        [str(tmp_path / "in")],
        tmp_path / "masks",
        out,
        progress=lambda done, total, what: told.append((done, total, what)),
    )
    assert tree(out) == ["p/p_10.png", "p/p_2.png", "Åsa B/slice 1.png"]
    written = [path.relative_to(out).as_posix() for path in result.written]
    assert sorted(written) == tree(out) and written.index("p/p_2.png") < written.index("p/p_10.png")
    assert result.failures == []
    assert [(done, total) for done, total, _ in told] == [(1, 3), (2, 3), (3, 3)]
    assert [what.removesuffix(".tif") for _, _, what in told] == [name.removesuffix(".png") for name in written]
    assert all(has(path, PREDICTION_COLOUR) and not has(path, REFERENCE_COLOUR) for path in result.written)


@pytest.mark.parametrize(
    ("prediction_side", "reference_side", "told"),
    [(9, 9, "dice 1.000"), (0, 9, "dice 0.000"), (0, 0, "both empty"), (6, 9, "dice 0.615")],  # 2*36 / (36+81)
)
def test_the_title_names_the_slice_and_its_dice(
    tmp_path: Path, prediction_side: int, reference_side: int, told: str
) -> None:
    put_image(tmp_path / "lgg", "p/p_7.tif")
    put_mask(tmp_path / "lgg", "p/p_7_mask.tif", side=reference_side)
    put_mask(tmp_path / "masks", "p/p_7.png", side=prediction_side)
    result = overlay([str(tmp_path / "lgg")], tmp_path / "masks", tmp_path / "out", reference=tmp_path / "lgg")
    expected = draw_overlay(
        read_image(tmp_path / "lgg/p/p_7.tif"),
        read_mask(tmp_path / "masks/p/p_7.png"),
        read_mask(tmp_path / "lgg/p/p_7_mask.tif"),
        title=f"p · slice 7 · {told}",
    )
    assert result.written == [tmp_path / "out/p/p_7.png"]
    np.testing.assert_array_equal(read_image(result.written[0]), expected)


def test_one_channel(tmp_path: Path) -> None:
    put_image(tmp_path / "in", "a.png")
    put_mask(tmp_path / "masks", "a.png")
    with pytest.raises(UsageError, match="no channel 3"):
        overlay([str(tmp_path / "in")], tmp_path / "masks", tmp_path / "out", channel=3)
    overlay([str(tmp_path / "in")], tmp_path / "masks", tmp_path / "out", channel=2)
    assert has(tmp_path / "out/a.png", (60, 60, 60))


def test_a_fault_of_one_input_is_named_and_the_others_are_drawn(tmp_path: Path) -> None:
    put_image(tmp_path / "in", "1.png", "2.png", "3.png", "5.png")
    (tmp_path / "in" / "4.png").write_bytes(b"not an image")
    put_mask(tmp_path / "masks", "1.png", "4.png", "5.png")
    put_mask(tmp_path / "masks", "3.png", shape=(20, 30))
    result = overlay([str(tmp_path / "in")], tmp_path / "masks", tmp_path / "out")
    assert tree(tmp_path / "out") == ["1.png", "5.png"]
    assert [path.name for path, _ in result.failures] == ["2.png", "3.png", "4.png"]
    reasons = [reason for _, reason in result.failures]
    assert "has no mask in" in reasons[0] and "masks" in reasons[0]
    assert "the prediction is 20x30 pixels" in reasons[1] and "the image 40x56" in reasons[1]
    assert "cannot be decoded" in reasons[2]


def test_a_reference_that_is_missing_or_of_another_size_fails_that_input(tmp_path: Path) -> None:
    put_image(tmp_path / "in", "1.png", "2.png")
    put_mask(tmp_path / "masks", "1.png", "2.png")
    put_mask(tmp_path / "reference", "2.png", shape=(20, 30))
    result = overlay([str(tmp_path / "in")], tmp_path / "masks", tmp_path / "out", reference=tmp_path / "reference")
    assert result.written == []
    assert "has no reference in" in result.failures[0][1]
    assert "the reference is 20x30 pixels" in result.failures[1][1]


def test_an_image_is_never_taken_for_its_own_mask(tmp_path: Path) -> None:
    put_image(tmp_path / "lgg", "p/p_1.tif", "p/p_2.tif", value=0)
    put_mask(tmp_path / "lgg", "p/p_1_mask.tif")
    result = overlay([str(tmp_path / "lgg")], tmp_path / "lgg", tmp_path / "out")
    assert tree(tmp_path / "out") == ["p/p_1.png"]
    assert "has no mask" in result.failures[0][1]


@pytest.mark.parametrize(("image", "mask"), [("study/p/p_1.tif", "p/p_1.png"), ("p/p_1.tif", "all/p/p_1_mask.png")])
def test_trees_that_start_at_another_height_are_matched(tmp_path: Path, image: str, mask: str) -> None:
    put_image(tmp_path / "in", image)
    put_mask(tmp_path / "masks", mask)
    result = overlay([str(tmp_path / "in")], tmp_path / "masks", tmp_path / "out")
    assert result.failures == [] and len(result.written) == 1


def test_a_match_that_is_not_certain_is_not_made(tmp_path: Path) -> None:
    put_image(tmp_path / "flat", "s_1.png")
    put_mask(tmp_path / "masks", "a/s_1.png", "b/s_1.png")
    result = overlay([str(tmp_path / "flat")], tmp_path / "masks", tmp_path / "out")
    assert "could belong to 2 files" in result.failures[0][1]

    put_image(tmp_path / "in", "a/s_1.png", "b/s_1.png")
    put_mask(tmp_path / "flat masks", "s_1.png")
    result = overlay([str(tmp_path / "in")], tmp_path / "flat masks", tmp_path / "out")
    assert result.written == [] and len(result.failures) == 2
    assert "one of several images" in result.failures[0][1]

    put_mask(tmp_path / "other patient", "c/s_1.png")
    result = overlay([str(tmp_path / "in")], tmp_path / "other patient", tmp_path / "out")
    assert result.written == [] and "has no mask" in result.failures[0][1]


def test_what_is_there_is_not_written_over_unless_asked(tmp_path: Path) -> None:
    put_image(tmp_path / "in", "1.png", "2.png")
    put_mask(tmp_path / "masks", "1.png", "2.png")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "2.png").write_bytes(b"mine")
    arguments = [str(tmp_path / "in")], tmp_path / "masks", tmp_path / "out"
    with pytest.raises(OutputExistsError, match=r"2\.png"):
        overlay(*arguments)
    assert tree(tmp_path / "out") == ["2.png"]  # refused before anything was drawn
    overlay(*arguments, overwrite=True)
    assert has(tmp_path / "out/2.png", PREDICTION_COLOUR)


def test_a_figure_never_replaces_what_it_is_made_from(tmp_path: Path) -> None:
    put_image(tmp_path / "in", "1.tif")
    put_mask(tmp_path / "masks", "1.png")
    before = (tmp_path / "masks/1.png").read_bytes()
    with pytest.raises(UsageError, match="drawn over"):
        overlay([str(tmp_path / "in")], tmp_path / "masks", tmp_path / "masks", overwrite=True)
    assert (tmp_path / "masks/1.png").read_bytes() == before


def test_requests_that_make_no_sense_are_refused_before_any_work(tmp_path: Path) -> None:
    put_image(tmp_path / "in", "1.tif", "1.png")
    put_mask(tmp_path / "masks", "1.png")
    with pytest.raises(UsageError, match="would both be written to"):
        overlay([str(tmp_path / "in")], tmp_path / "masks", tmp_path / "out")
    one = [str(tmp_path / "in/1.tif")]
    with pytest.raises(InputError, match="is not a folder"):
        overlay(one, tmp_path / "nowhere", tmp_path / "out")
    with pytest.raises(InputError, match="is not a folder"):
        overlay(one, tmp_path / "masks", tmp_path / "out", reference=tmp_path / "nowhere")
    with pytest.raises(OutputExistsError, match="is a file"):
        overlay(one, tmp_path / "masks", tmp_path / "in/1.png", overwrite=True)
    assert not (tmp_path / "out").exists()
