"""The overlay use-case: which mask belongs to which image, what is written, and what a fault leaves standing."""

import io
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PILImage

from brainseg_cli.errors import DiskError, InputError, OutputExistsError, UsageError
from brainseg_cli.figures.overlay import PREDICTION_COLOUR, REFERENCE_COLOUR, draw_overlay
from brainseg_cli.figures.scene import FALSE_ALARM_COLOUR, HIT_COLOUR, MISSED_COLOUR, find_zoom, name_colours
from brainseg_cli.figures.sheet import draw_sheet
from brainseg_cli.figures.vector import draw_vector
from brainseg_cli.io.images import encode_image, read_image, read_mask, write_image, write_mask
from brainseg_cli.io.sources import Request, Shard
from brainseg_cli.overlay import Drawing, Look, Outcome, Places, Sources, overlay
from brainseg_cli.overlay import run as use_case
from brainseg_cli.overlay.choosing import parse_only

SHAPE = (40, 56)


def put_image(folder: Path, *names: str, value: int = 60) -> None:
    for name in names:
        write_image(folder / name, np.full((*SHAPE, 3), value, np.uint8))


def put_mask(folder: Path, *names: str, side: int = 9, shape: tuple[int, int] = SHAPE, at: int = 5) -> None:
    mask = np.zeros(shape, np.uint8)
    mask[3 : 3 + side, at : at + side] = 1
    for name in names:
        write_mask(folder / name, mask)


def tree(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def has(path: Path, colour: tuple[int, int, int]) -> bool:
    return bool((read_image(path) == colour).all(axis=-1).any())


def plan(
    inputs: list[Path] | None,
    masks: Path | None,
    out: Path | None,
    *,
    stdin: Any = b"",
    look: Look | None = None,
    form: Any = "figure",
    figure_format: Any = "png",
    template: str = "{stem}",
    overwrite: bool = False,
    only: str | None = None,
    request: Request | None = None,
    **sources: Any,
) -> Drawing:
    named = request or Request(tuple(map(str, inputs or ())))
    return overlay(
        Sources(named, masks, only=None if only is None else parse_only(only), **sources),
        Places(out, form, figure_format, template, overwrite),
        look or Look(),
        io.BytesIO(stdin) if isinstance(stdin, bytes) else stdin,
    )


def draw(*arguments: Any, **options: Any) -> tuple[list[str], list[tuple[str, str]]]:
    """The figures written, relative to their folder, and what failed."""
    out = arguments[2]
    outcomes = list(plan(*arguments, **options).run())
    written = [outcome.figure.relative_to(out).as_posix() for outcome in outcomes if outcome.figure is not None]
    return written, [(Path(where).name, reason) for outcome in outcomes for where, reason in outcome.failures]


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """in/, masks/ and reference/ of two patients, a of slices 1, 2, 10 and b of 1 and 2.

    By dice from the worst: b_1 is missed, a_2 a false alarm, a_10 0.615, b_2 0.790, a_1 without fault.
    """
    put_image(tmp_path / "in", "a/a_1.png", "a/a_2.png", "a/a_10.png", "b/b_1.png", "b/b_2.png")
    for name, predicted, reference in (
        ("a/a_1", 9, 9),
        ("a/a_2", 5, 0),
        ("a/a_10", 6, 9),
        ("b/b_1", 0, 9),
        ("b/b_2", 8, 9),
    ):
        put_mask(tmp_path / "masks", f"{name}.png", side=predicted)
        put_mask(tmp_path / "reference", f"{name}_mask.png", side=reference)
    return tmp_path


def lines(study: Path, *names: str, **more: Any) -> bytes:
    """predict's records of some slices."""
    records = [
        {
            "image": str(study / "in" / f"{name}.png"),
            "mask": str(study / "masks" / f"{name}.png"),
            "patient_id": name[0],
            "slice_index": int(name.rpartition("_")[2]),
            "tumour": True,
            "status": "ok",
        }
        | more
        for name in names
    ]
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


class Trickle(io.RawIOBase):
    """A pipe whose writer takes its time: each part is read in one go."""

    def __init__(self, parts: Iterator[bytes]) -> None:
        self.parts = parts

    def read(self, size: int = -1) -> bytes:
        return next(self.parts, b"")


# --- one figure a slice


def test_the_tree_is_mirrored_in_natural_order(tmp_path: Path) -> None:
    names = ["p/p_10", "p/p_2", "Åsa B/slice 1"]
    put_image(tmp_path / "in", *(f"{n}.tif" for n in names))
    put_mask(tmp_path / "masks", *(f"{n}.png" for n in names))
    (tmp_path / "masks" / "predictions.jsonl").write_text("{}\n")
    written, failures = draw([tmp_path / "in"], tmp_path / "masks", tmp_path / "out")
    assert tree(tmp_path / "out") == ["p/p_10.png", "p/p_2.png", "Åsa B/slice 1.png"] and failures == []
    assert sorted(written) == tree(tmp_path / "out") and written.index("p/p_2.png") < written.index("p/p_10.png")
    drawn = [tmp_path / "out" / name for name in written]
    assert all(has(path, PREDICTION_COLOUR) and not has(path, REFERENCE_COLOUR) for path in drawn)


@pytest.mark.parametrize(
    ("prediction_side", "reference_side", "told"),
    [
        (9, 9, "81 px · dice 1.000"),
        (0, 9, "0 px · dice 0.000"),
        (0, 0, "both empty"),
        (6, 9, "36 px · dice 0.615"),  # 2*36 / (36+81)
        (6, None, "36 px"),
    ],
)
def test_the_title_names_the_slice_its_area_and_its_dice(
    tmp_path: Path, prediction_side: int, reference_side: int | None, told: str
) -> None:
    put_image(tmp_path / "lgg", "p/p_7.tif")
    put_mask(tmp_path / "masks", "p/p_7.png", side=prediction_side)
    reference = None
    if reference_side is not None:
        put_mask(tmp_path / "lgg", "p/p_7_mask.tif", side=reference_side)
        reference = tmp_path / "lgg"
    draw([tmp_path / "lgg"], tmp_path / "masks", tmp_path / "out", reference=reference)
    masks = [
        read_image(tmp_path / "lgg/p/p_7.tif"),
        read_mask(tmp_path / "masks/p/p_7.png"),
        None if reference is None else read_mask(tmp_path / "lgg/p/p_7_mask.tif"),
    ]
    drawn = read_image(tmp_path / "out/p/p_7.png")
    np.testing.assert_array_equal(drawn, draw_overlay(*masks, title=f"p · slice 7 · {told}"))
    draw([tmp_path / "lgg"], tmp_path / "masks", tmp_path / "bare", reference=reference, look=Look(label=False))
    np.testing.assert_array_equal(read_image(tmp_path / "bare/p/p_7.png"), draw_overlay(*masks))


def test_how_it_looks(study: Path) -> None:
    one, masks, reference = [study / "in/a/a_10.png"], study / "masks", study / "reference"
    shown = read_image(one[0]), read_mask(study / "masks/a/a_10.png"), read_mask(study / "reference/a/a_10_mask.png")
    options: dict[str, Any] = {"style": "errors", "alpha": 0.9, "channel": 1, "zoom": True}
    draw(one, masks, study / "png", reference=reference, look=Look(**options, label=False))
    expected = draw_overlay(*shown, **options)
    np.testing.assert_array_equal(read_image(study / "png/a_10.png"), expected)
    for name in ("svg", "pdf"):
        look = Look(**options, label=False)
        assert draw(one, masks, study / name, reference=reference, look=look, figure_format=name)[0] == [f"a_10.{name}"]
        assert (study / name / f"a_10.{name}").read_bytes() == draw_vector(*shown, figure_format=name, **options)
    with pytest.raises(UsageError, match="no channel 3"):
        draw(one, masks, study / "out", look=Look(channel=3))
    with pytest.raises(UsageError, match="--reference"):
        draw(one, masks, study / "out", look=Look(style="errors"))
    with pytest.raises(UsageError, match="alpha"):
        draw(one, masks, study / "out", look=Look(alpha=0))
    assert not (study / "out").exists()


def test_names_by_a_template(study: Path) -> None:
    written, _ = draw([study / "in"], study / "masks", study / "out", template="{patient_id}-{slice_index:03d}")
    assert written == ["a/a-001.png", "a/a-002.png", "a/a-010.png", "b/b-001.png", "b/b-002.png"]
    with pytest.raises(UsageError, match="would both be written to"):
        draw([study / "in"], study / "masks", study / "flat", template="{slice_index}/x")
    with pytest.raises(UsageError, match="leave the folder"):
        draw([study / "in"], study / "masks", study / "flat", template="../{stem}")
    with pytest.raises(UsageError, match="there is no"):
        draw([study / "in"], study / "masks", study / "flat", template="{nonsense}")
    assert not (study / "flat").exists()


# --- what fails


def test_a_fault_of_one_input_is_named_and_the_others_are_drawn(tmp_path: Path) -> None:
    put_image(tmp_path / "in", "1.png", "2.png", "3.png", "5.png")
    (tmp_path / "in" / "4.png").write_bytes(b"not an image")
    put_mask(tmp_path / "masks", "1.png", "4.png", "5.png")
    put_mask(tmp_path / "masks", "3.png", shape=(20, 30))
    written, failures = draw([tmp_path / "in"], tmp_path / "masks", tmp_path / "out")
    assert written == tree(tmp_path / "out") == ["1.png", "5.png"]
    assert [name for name, _ in failures] == ["2.png", "3.png", "4.png"]
    reasons = [reason for _, reason in failures]
    assert "has no mask in" in reasons[0] and "masks" in reasons[0]
    assert "the prediction is 20x30 pixels" in reasons[1] and "the image 40x56" in reasons[1]
    assert "cannot be decoded" in reasons[2]


def test_a_reference_that_is_missing_or_of_another_size_fails_that_input(tmp_path: Path) -> None:
    put_image(tmp_path / "in", "1.png", "2.png")
    put_mask(tmp_path / "masks", "1.png", "2.png")
    put_mask(tmp_path / "reference", "2.png", shape=(20, 30))
    written, failures = draw([tmp_path / "in"], tmp_path / "masks", tmp_path / "out", reference=tmp_path / "reference")
    assert written == [] and not (tmp_path / "out").exists()
    assert "has no reference in" in failures[0][1]
    assert "the reference is 20x30 pixels" in failures[1][1]


def test_a_figure_that_cannot_be_written_fails_alone_but_a_full_disk_ends_it(
    study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (study / "out").mkdir()
    (study / "out" / "a").write_text("where a folder should be")
    written, failures = draw([study / "in"], study / "masks", study / "out")
    assert written == ["b/b_1.png", "b/b_2.png"]
    assert [name for name, _ in failures] == ["a_1.png", "a_2.png", "a_10.png"] and "cannot be written" in failures[0][
        1
    ]

    def fill(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(use_case, "write_bytes", fill)
    with pytest.raises(DiskError, match="No space left"):
        draw([study / "in"], study / "masks", study / "full")


def test_an_image_is_never_taken_for_its_own_mask(tmp_path: Path) -> None:
    put_image(tmp_path / "lgg", "p/p_1.tif", "p/p_2.tif", value=0)
    put_mask(tmp_path / "lgg", "p/p_1_mask.tif")
    listed = "\n".join(str(tmp_path / "lgg" / "p" / f"p_{n}.tif") for n in (1, 2)).encode()
    for number, options in enumerate(({}, {"stdin": listed, "request": Request(files_from="-")})):
        out = tmp_path / f"out{number}"
        _, failures = draw([tmp_path / "lgg"], tmp_path / "lgg", out, **options)
        assert [Path(name).name for name in tree(out)] == ["p_1.png"]
        assert [name for name, reason in failures if "has no mask" in reason] == ["p_2.tif"]


@pytest.mark.parametrize(("image", "mask"), [("study/p/p_1.tif", "p/p_1.png"), ("p/p_1.tif", "all/p/p_1_mask.png")])
def test_trees_that_start_at_another_height_are_matched(tmp_path: Path, image: str, mask: str) -> None:
    put_image(tmp_path / "in", image)
    put_mask(tmp_path / "masks", mask)
    written, failures = draw([tmp_path / "in"], tmp_path / "masks", tmp_path / "out")
    assert failures == [] and len(written) == 1


def test_a_match_that_is_not_certain_is_not_made(tmp_path: Path) -> None:
    put_image(tmp_path / "flat", "s_1.png")
    put_mask(tmp_path / "masks", "a/s_1.png", "b/s_1.png")
    _, failures = draw([tmp_path / "flat"], tmp_path / "masks", tmp_path / "out")
    assert "could belong to 2 files" in failures[0][1]

    put_image(tmp_path / "in", "a/s_1.png", "b/s_1.png")
    put_mask(tmp_path / "flat masks", "s_1.png")
    written, failures = draw([tmp_path / "in"], tmp_path / "flat masks", tmp_path / "out")
    assert written == [] and len(failures) == 2
    assert "one of several images" in failures[0][1]

    put_mask(tmp_path / "other patient", "c/s_1.png")
    written, failures = draw([tmp_path / "in"], tmp_path / "other patient", tmp_path / "out")
    assert written == [] and "has no mask" in failures[0][1]


def test_of_a_growing_list_the_first_gets_the_mask_that_several_could_have(tmp_path: Path) -> None:
    put_image(tmp_path / "in", "a/s_1.png", "b/s_1.png")
    put_mask(tmp_path / "masks", "s_1.png")
    listed = f"{tmp_path}/in/a/s_1.png\n{tmp_path}/in/b/s_1.png\n".encode()
    request = Request(files_from="-", relative_to=tmp_path / "in")
    written, failures = draw(None, tmp_path / "masks", tmp_path / "out", request=request, stdin=listed)
    assert written == ["a/s_1.png"] and "one of several images" in failures[0][1]


def test_one_mask_for_one_image(study: Path) -> None:
    one, mask = [study / "in/a/a_1.png"], study / "masks/b/b_2.png"
    assert draw(one, mask, study / "out", reference=study / "reference/a/a_1_mask.png")[0] == ["a_1.png"]
    assert has(study / "out/a_1.png", REFERENCE_COLOUR)
    with pytest.raises(UsageError, match="is one mask"):
        draw([study / "in"], mask, study / "other")
    with pytest.raises(UsageError, match="is one mask"):
        draw(None, mask, study / "other", request=Request(files_from="-"), stdin=b"x.png\n")


# --- what is there


def test_what_is_there_is_not_written_over_unless_asked(tmp_path: Path) -> None:
    put_image(tmp_path / "in", "1.png", "2.png")
    put_mask(tmp_path / "masks", "1.png", "2.png")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "2.png").write_bytes(b"mine")
    arguments = [tmp_path / "in"], tmp_path / "masks", tmp_path / "out"
    with pytest.raises(OutputExistsError, match=r"2\.png"):
        draw(*arguments)
    assert tree(tmp_path / "out") == ["2.png"]  # refused before anything was drawn
    listed = f"{tmp_path}/in/2.png\n{tmp_path}/in/1.png\n".encode()
    request = Request(files_from="-", relative_to=tmp_path / "in")
    written, failures = draw(*arguments, request=request, stdin=listed)
    assert written == ["1.png"] and [name for name, _ in failures] == ["2.png"] and "--overwrite" in failures[0][1]
    assert (tmp_path / "out" / "2.png").read_bytes() == b"mine"
    draw(*arguments, overwrite=True)
    assert has(tmp_path / "out/2.png", PREDICTION_COLOUR)


def test_a_figure_never_replaces_what_it_is_made_from(study: Path) -> None:
    before = {name: (study / name).read_bytes() for name in tree(study)}
    listed = f"{study}/in/a/a_1.png\n".encode()
    growing: dict[str, Any] = {"request": Request(files_from="-", relative_to=study / "in"), "stdin": listed}
    for folder in ("in", "masks", "reference"):
        options: dict[str, Any] = {"overwrite": True, "reference": study / "reference"}
        options["template"] = "{stem}_mask" if folder == "reference" else "{stem}"
        with pytest.raises(UsageError, match="drawn over"):
            draw([study / "in"], study / "masks", study / folder, **options)
        written, failures = draw(None, study / "masks", study / folder, **options, **growing)
        assert written == [] and "drawn over" in failures[0][1]
    # nor another slice's mask, which is not read yet
    written, failures = draw(None, study / "masks", study / "masks", overwrite=True, template="{stem}0", **growing)
    assert written == [] and "drawn over" in failures[0][1]
    assert {name: (study / name).read_bytes() for name in tree(study)} == before


def test_requests_that_make_no_sense_are_refused_before_any_work(study: Path) -> None:
    put_image(study / "twice", "1.tif", "1.png")
    put_mask(study / "masks", "1.png")
    out, masks = study / "out", study / "masks"
    with pytest.raises(UsageError, match="would both be written to"):
        draw([study / "twice"], masks, out)
    one = [study / "in/a/a_1.png"]
    with pytest.raises(InputError, match="is not a folder"):
        draw(one, study / "nowhere", out)
    with pytest.raises(InputError, match="is not a folder"):
        draw(one, masks, out, reference=study / "nowhere")
    with pytest.raises(OutputExistsError, match="is a file"):
        draw(one, masks, one[0], overwrite=True)
    with pytest.raises(UsageError, match="no masks were named"):
        draw(one, None, out)
    with pytest.raises(UsageError, match="--only"):
        draw(one, masks, out, report=study)
    for options in ({"only": "worst:3"}, {"only": "median:1"}):
        with pytest.raises(UsageError, match="--report or --reference"):
            draw(one, masks, out, **options)
    for form in ("sheet", "gif"):
        with pytest.raises(UsageError, match="do not go together"):
            draw(one, masks, out, form=form, figure_format="svg")
    for inputs, given, request in (
        (one, None, None),
        (None, masks, None),
        (None, None, Request(files_from="x")),
        (None, None, Request(files0_from="-")),
    ):
        with pytest.raises(UsageError, match="--from-jsonl"):
            draw(inputs, given, out, request=request, records="-")
    assert not out.exists()


# --- lists and records


def test_a_growing_list_is_drawn_as_it_comes(study: Path) -> None:
    names, seen = ["b/b_2.png", "a/a_10.png"], threading.Event()

    def produce() -> Iterator[bytes]:
        yield f"{study}/in/{names[0]}\n".encode()
        assert seen.wait(20)  # the first figure is told before the second image is
        yield f"{study}/in/{names[1]}\n".encode()

    request = Request(files_from="-", relative_to=study / "in")
    drawing = plan(None, study / "masks", study / "out", request=request, stdin=Trickle(produce()))
    assert drawing.total is None
    for name, outcome in zip(names, drawing.run(), strict=True):
        assert outcome.figure == study / "out" / name and outcome.figure.exists() and not outcome.failures
        seen.set()


def test_records_name_images_and_masks(study: Path) -> None:
    (study / "elsewhere").mkdir()
    (study / "masks/a/a_1.png").rename(study / "elsewhere/any name.png")
    told = lines(study, "a/a_1", mask=str(study / "elsewhere/any name.png"), patient_id="Åsa", slice_index=77)
    told += lines(study, "b/b_1", "b/b_2")
    (study / "lines.jsonl").write_bytes(told)
    for source, stdin in (("-", told), (str(study / "lines.jsonl"), b"")):
        out = study / f"out {len(stdin)}"
        written, failures = draw(None, None, out, records=source, stdin=stdin, reference=study / "reference")
        inner = (study / "in").relative_to("/").as_posix()
        assert written == [f"{inner}/a/a_1.png", f"{inner}/b/b_1.png", f"{inner}/b/b_2.png"] and failures == []
        expected = draw_overlay(
            read_image(study / "in/a/a_1.png"),
            read_mask(study / "elsewhere/any name.png"),
            read_mask(study / "reference/a/a_1_mask.png"),
            title="Åsa · slice 77 · 81 px · dice 1.000",
        )
        np.testing.assert_array_equal(read_image(out / written[0]), expected)


def test_what_is_no_record_fails_by_its_line_and_what_failed_is_passed_over(study: Path) -> None:
    bad: list[Any] = [
        b"{broken",
        b"[1]",
        b'{"image": "x.png"}',
        b"\xff\xfe",
        b"[" * 100_000,
        lines(study, "a/a_2", mask=None),
        lines(study, "a/a_2", image=""),
        lines(study, "a/a_2", image="a\0b"),
        lines(study, "a/a_2", patient_id=3),
        lines(study, "a/a_2", slice_index="3"),
        lines(study, "a/a_2", slice_index=True),
    ]
    told = lines(study, "a/a_1") + b"\n" + lines(study, "b/b_1", status="failed", mask=None)
    told += b"".join(line.strip() + b"\n" for line in bad) + lines(study, "b/b_2").rstrip()
    drawing = plan(None, None, study / "out", records="-", stdin=told)
    outcomes = list(drawing.run())
    assert [o.figure.name for o in outcomes if o.figure] == ["a_1.png", "b_2.png"]
    failures = [failure for outcome in outcomes for failure in outcome.failures]
    assert [failure.where for failure in failures] == [f"stdin, line {4 + n}" for n in range(len(bad))]
    assert [failure.reason for failure in failures[:3]] == [
        "is no JSON",
        "is no record of predict: it has no status",
        "is no record of predict: it has no status",
    ]
    assert failures[5].reason == "names no mask" and failures[6].reason == "names no image"
    assert drawing.passed_over == {"records without a mask": 1}
    with pytest.raises(InputError, match="holds no record"):
        draw(None, None, study / "none", records="-", stdin=b"\n\n")


def test_records_write_nothing_outside_the_folder(study: Path) -> None:
    before = tree(study)
    name = "../" * 3 + str(study / "in/a/a_1.png").lstrip("/")  # there is no such image, unless seen from this deep
    climbing = [
        lines(study, "a/a_1", image=each, patient_id="../../..") for each in (name, str(study / "in/../in/a/a_1.png"))
    ]
    out = study / "deep" / "out"
    for form in ("figure", "sheet"):
        for told in climbing:
            draw(None, None, out, records="-", stdin=told, form=form)
            _, failures = draw(None, None, out, records="-", stdin=told, form=form, template="{patient_id}/x")
            assert "leave the folder" in failures[0][1]
    inner = (study / "in").relative_to("/").as_posix()
    assert tree(out) == sorted([f"{inner}/a.png", f"{inner}/a/a_1.png"])
    assert [name for name in tree(study) if not name.startswith("deep/out/")] == before


def test_lists_and_records_are_chosen_from_alike(study: Path) -> None:
    names = ["a/a_1", "a/a_2", "a/a_10", "b/b_1", "b/b_2"]
    listed = "".join(f"{study}/in/{name}.png\n" for name in names).encode()
    chooser = Request(include=("*/a/*",), exclude=("*_2.png",), relative_to=study)
    by_list, _ = draw(None, study / "masks", study / "1", request=replace(chooser, files_from="-"), stdin=listed)
    by_record, _ = draw(None, None, study / "2", request=chooser, records="-", stdin=lines(study, *names))
    assert by_list == by_record == ["in/a/a_1.png", "in/a/a_10.png"]
    shares = [
        draw(
            None,
            None,
            study / f"s{part}",
            request=Request(shard=Shard(part, 2)),
            records="-",
            stdin=lines(study, *names),
        )
        for part in (1, 2)
    ]
    assert sorted(Path(name).stem for written, _ in shares for name in written) == sorted(name[2:] for name in names)


# --- one file a patient


def test_a_contact_sheet_a_patient(study: Path) -> None:
    written, failures = draw(
        [study / "in"], study / "masks", study / "out", reference=study / "reference", form="sheet"
    )
    assert written == ["a.png", "b.png"] and failures == []

    def tile(name: str, title: str) -> Any:
        masks = read_mask(study / f"masks/{name}.png"), read_mask(study / f"reference/{name}_mask.png")
        return draw_overlay(read_image(study / f"in/{name}.png"), *masks, title=title, legend=False, min_side=256)

    tiles = [
        tile("a/a_1", "slice 1 · dice 1.000"),
        tile("a/a_2", "slice 2 · dice 0.000"),
        tile("a/a_10", "slice 10 · dice 0.615"),
    ]
    expected = draw_sheet(tiles, columns=2, title="a · 3 slices", legend=name_colours("contour"))
    np.testing.assert_array_equal(read_image(study / "out/a.png"), expected)


def test_an_animation_a_patient(study: Path) -> None:
    written, _ = draw([study / "in"], study / "masks", study / "out", form="gif")
    assert written == ["a.gif", "b.gif"]
    with PILImage.open(study / "out/a.gif") as gif:
        assert gif.n_frames == 3
        first = np.array(gif.convert("RGB"))
    title = "a · slice 1 · 81 px"
    frame = draw_overlay(
        read_image(study / "in/a/a_1.png"), read_mask(study / "masks/a/a_1.png"), title=title, min_side=512
    )
    assert first.shape == frame.shape and (np.abs(first.astype(int) - frame) < 24).mean() > 0.99
    assert (first == PREDICTION_COLOUR).all(axis=-1).any()


def test_a_patient_zooms_to_one_window(study: Path) -> None:
    put_mask(study / "masks", "a/a_2.png", side=5, at=20)
    look = Look(zoom=True, label=False)
    draw([study / "in/a"], study / "masks", study / "out", form="gif", look=look)
    masks = [read_mask(study / f"masks/a/a_{n}.png") for n in (1, 2, 10)]
    box = find_zoom(masks)
    assert (
        masks[0][box].shape < SHAPE and masks[0][box].sum() == masks[0].sum() and masks[1][box].sum() == masks[1].sum()
    )
    image = read_image(study / "in/a/a_1.png")
    expected = [draw_overlay(image[box], mask[box], min_side=512) for mask in masks]
    with PILImage.open(study / "out/a.gif") as gif:
        assert gif.size == (expected[0].shape[1], expected[0].shape[0])
        for at, frame in enumerate(expected):
            gif.seek(at)
            np.testing.assert_array_equal(np.array(gif.convert("RGB")) == PREDICTION_COLOUR, frame == PREDICTION_COLOUR)


def test_the_window_holds_what_was_missed_too(study: Path) -> None:
    put_mask(study / "reference", "b/b_1_mask.png", side=5, at=40)
    look = Look(zoom=True, label=False)
    draw([study / "in/b"], study / "masks", study / "out", form="gif", reference=study / "reference", look=look)
    with PILImage.open(study / "out/b.gif") as gif:
        first = np.array(gif.convert("RGB"))
    assert (first[:300] == REFERENCE_COLOUR).all(axis=-1).any()  # in the slice, not in the legend


def test_patients_whose_slices_are_mixed_in_a_list_that_is_whole(study: Path) -> None:
    (study / "lines").write_bytes(lines(study, "b/b_1", "a/a_1", "b/b_2", "a/a_10", "a/a_2"))
    written, failures = draw(None, None, study / "out", records=str(study / "lines"), form="sheet")
    assert [Path(name).name for name in written] == ["b.png", "a.png"] and failures == []
    draw([study / "in"], study / "masks", study / "tree", form="sheet")
    for name in written:
        assert (study / "out" / name).read_bytes() == (study / "tree" / Path(name).name).read_bytes()


def test_a_slice_that_fails_is_not_on_its_patients_sheet(study: Path) -> None:
    (study / "in/a/a_2.png").write_bytes(b"broken")
    (study / "masks/a/a_10.png").unlink()
    put_mask(study / "masks", "b/b_1.png", "b/b_2.png", shape=(60, 80))
    for look in (Look(), Look(zoom=True)):
        out = study / str(look.zoom)
        written, failures = draw([study / "in"], study / "masks", out, form="sheet", look=look)
        assert written == ["a.png"] and sorted(name for name, _ in failures) == [
            "a_10.png",
            "a_2.png",
            "b_1.png",
            "b_2.png",
        ]
        assert all("60x80" in reason for name, reason in failures if name.startswith("b"))
    one = draw_overlay(
        read_image(study / "in/a/a_1.png"),
        read_mask(study / "masks/a/a_1.png"),
        min_side=256,
        legend=False,
        title="slice 1 · 81 px",
    )
    assert read_image(study / "False/a.png").shape[1] == draw_sheet([one], columns=1, title="a").shape[1]


def test_patients_are_folders_wherever_they_lie(tmp_path: Path) -> None:
    for name in ("x/p/1.png", "x/p/2.png", "y/p/1.png", "x/p.v2/1.png"):
        put_image(tmp_path / "in", name)
        put_mask(tmp_path / "masks", name)
    written, _ = draw([tmp_path / "in"], tmp_path / "masks", tmp_path / "out", form="sheet")
    assert sorted(written) == ["x/p.png", "x/p.v2.png", "y/p.png"]
    assert draw([tmp_path / "in/x/p.v2"], tmp_path / "masks/x/p.v2", tmp_path / "one", form="gif")[0] == ["p.v2.gif"]
    renamed, _ = draw(
        [tmp_path / "in/x"], tmp_path / "masks", tmp_path / "named", form="sheet", template="s_{patient_id}"
    )
    assert sorted(renamed) == ["s_p.png", "s_p.v2.png"]
    with pytest.raises(UsageError, match="no slice_index"):
        draw([tmp_path / "in"], tmp_path / "masks", tmp_path / "bad", form="sheet", template="{slice_index}")


def test_patients_of_a_growing_list_are_done_as_their_folder_ends(study: Path) -> None:
    seen = threading.Event()

    def produce() -> Iterator[bytes]:
        yield lines(study, "a/a_10", "a/a_1") + b"broken\n" + lines(study, "a/a_2", "b/b_1")
        assert seen.wait(20)
        yield lines(study, "b/b_2", "a/a_1")

    drawing = plan(None, None, study / "out", records="-", stdin=Trickle(produce()), form="sheet")
    found = []
    for outcome in drawing.run():
        found.append(outcome)
        if outcome.figure and outcome.figure.name == "a.png":
            seen.set()
    assert [outcome.figure and outcome.figure.name for outcome in found] == [None, "a.png", "b.png", None]
    assert found[0].failures[0].where == "stdin, line 3" and "comes after other patients" in found[3].failures[0].reason
    draw([study / "in/a"], study / "masks", study / "sorted", form="sheet")
    (drawn,) = (path for path in (study / "out").rglob("a.png"))
    assert drawn.read_bytes() == (study / "sorted/a.png").read_bytes()  # in a person's order, however they came


def test_too_many_slices_for_one_file_are_refused(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("brainseg_cli.overlay.plan.MOST_SLICES", 2)
    with pytest.raises(InputError, match="3 slices, too many for one gif"):
        draw([study / "in"], study / "masks", study / "out", form="gif")
    assert draw([study / "in/b"], study / "masks", study / "out", form="gif")[0] == ["b.gif"]


# --- stdout, and what would be done


def test_one_figure_for_stdout(study: Path) -> None:
    image = (study / "in/a/a_10.png").read_bytes()
    (outcome,) = plan([Path("-")], study / "masks/a/a_10.png", None, stdin=image).run()
    expected = draw_overlay(
        read_image(study / "in/a/a_10.png"), read_mask(study / "masks/a/a_10.png"), title="stdin · 36 px"
    )
    assert outcome == Outcome(Path("-"), [], encode_image(expected, ".png"))
    (sheet,) = plan([study / "in/a"], study / "masks", None, form="sheet").run()
    draw([study / "in/a"], study / "masks", study / "out", form="sheet")
    assert sheet.data == (study / "out/a.png").read_bytes()
    for options in ({}, {"form": "sheet"}, {"only": "best:2", "reference": study / "reference"}):
        with pytest.raises(UsageError, match="one figure"):
            plan([study / "in"], study / "masks", None, **options)
    with pytest.raises(UsageError, match="there are 2"):
        plan(None, None, None, records="-", stdin=lines(study, "a/a_1", "a/a_2"))
    (worst,) = plan([study / "in"], study / "masks", None, only="worst:1", reference=study / "reference").run()
    assert worst.data and worst.figure == Path("-")


def test_a_preview_writes_nothing(study: Path) -> None:
    (study / "masks/a/a_2.png").unlink()
    drawing = plan([study / "in"], study / "masks", study / "out", form="sheet")
    assert drawing.total == 2
    (a, b) = drawing.preview()
    assert (a.figure, b.figure) == (study / "out/a.png", study / "out/b.png")
    assert [Path(failure.where).name for failure in a.failures] == ["a_2.png"] and b.failures == []
    assert not (study / "out").exists()


def test_colours_of_errors(study: Path) -> None:
    draw([study / "in"], study / "masks", study / "out", reference=study / "reference", look=Look(style="errors"))
    shown = {
        path.stem: [has(path, colour) for colour in (HIT_COLOUR, MISSED_COLOUR, FALSE_ALARM_COLOUR)]
        for path in (study / "out").rglob("*.png")
    }
    assert set(shown) == {"a_1", "a_2", "a_10", "b_1", "b_2"}
    # all three are in every legend, so the slice above it is what counts
    for name, (hit, missed, alarm) in {
        "a_1": (True, False, False),
        "a_2": (False, False, True),
        "a_10": (True, True, False),
        "b_1": (False, True, False),
    }.items():
        picture = read_image(next((study / "out").rglob(f"{name}.png")))[:480]
        found = [(picture == colour).all(axis=-1).any() for colour in (HIT_COLOUR, MISSED_COLOUR, FALSE_ALARM_COLOUR)]
        assert found == [hit, missed, alarm], name
