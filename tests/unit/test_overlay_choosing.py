"""Which slices --only draws: by a report or by the masks, and as a report's own gallery has it."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from brainseg_cli.errors import InputError, UsageError
from brainseg_cli.io.images import write_image, write_mask
from brainseg_cli.io.inputs import Input
from brainseg_cli.io.sources import Request
from brainseg_cli.metrics.counts import Counts
from brainseg_cli.overlay import Look, Places, Sources, overlay
from brainseg_cli.overlay.choosing import Only, Report, choose, measure_masks, parse_only, rank
from brainseg_cli.overlay.matching import Failure, Slice
from brainseg_cli.report.pictures import choose_pictures

COUNTS = {
    "missed": Counts(0, 0, 9, 91),  # dice 0
    "alarm": Counts(0, 20, 0, 80),  # dice 0, more wrong, nothing to find
    "poor": Counts(5, 10, 10, 75),  # dice 1/3
    "fair": Counts(20, 5, 5, 70),  # dice 0.8
    "good": Counts(30, 1, 1, 68),
    "small": Counts(2, 0, 0, 98),  # dice 1, as the next
    "whole": Counts(40, 0, 0, 60),
    "empty": Counts(0, 0, 0, 100),
}


def at(name: str) -> Slice:
    return Slice(Input(Path(f"p/{name}.png"), Path(f"p/{name}.png")), Path("mask.png"))


def measure(item: Slice) -> Counts | None:
    return COUNTS.get(item.item.path.stem)


def names(found: Any) -> list[str]:
    return [item.item.path.stem if isinstance(item, Slice) else item.where for item in found]


@pytest.mark.parametrize(
    ("only", "expected"),
    [
        ("worst:1", ["alarm"]),
        ("worst:4", ["alarm", "missed", "poor", "fair"]),
        ("worst:99", ["alarm", "missed", "poor", "fair", "good", "whole", "small"]),
        ("best:3", ["whole", "small", "good"]),
        ("best:99", ["whole", "small", "good", "fair", "poor", "missed"]),
        ("median:2", ["fair", "good"]),
        ("median:3", ["poor", "fair", "good"]),
        ("median:99", ["missed", "poor", "fair", "good", "whole", "small"]),
        ("tumour", ["whole", "small", "good", "fair", "poor", "alarm", "missed"]),
    ],
)
def test_what_is_chosen_and_in_which_order(only: str, expected: list[str]) -> None:
    given = [at(name) for name in (*reversed(COUNTS), "unknown")]
    chosen = names(choose(given, parse_only(only), measure))
    if only == "worst:99" or only == "median:99":  # equals stay as they came
        assert chosen[:-2] == expected[:-2] and set(chosen[-2:]) == set(expected[-2:])
    else:
        assert chosen == expected


def test_tumour_is_chosen_as_it_comes() -> None:
    def produce() -> Any:
        yield at("good")
        yield at("empty")
        yield at("poor")
        raise AssertionError("asked for more than was needed")

    chosen = choose(produce(), Only("tumour"), measure)
    assert names([next(chosen), next(chosen)]) == ["good", "poor"]


def test_what_failed_is_passed_on() -> None:
    def fail(item: Slice) -> Counts | None:
        if item.item.path.stem == "poor":
            raise InputError("is odd")
        return measure(item)

    given = [at("good"), Failure("line 3", "is no JSON"), at("poor")]
    for only in ("tumour", "best:1"):
        found = list(choose(given, parse_only(only), fail))
        assert sorted(names(found)) == ["good", "line 3", "p/poor.png"]
        assert Failure("p/poor.png", "is odd") in found


@pytest.mark.parametrize(
    "text", ["", "worst", "worst:", "worst:0", "worst:-1", "worst:1.5", "tumour:3", "finest:2", "worst:1:2"]
)
def test_what_chooses_nothing(text: str) -> None:
    with pytest.raises(UsageError, match="worst:20"):
        parse_only(text)


@pytest.mark.parametrize("seed", range(5))
def test_worst_and_best_are_those_of_a_reports_gallery(seed: int) -> None:
    """Where no patient has many slices and none is wanted twice, which only a gallery minds."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 4, (40, 3)) * rng.integers(0, 2, (40, 3))  # many equals, many without tumour
    table = pd.DataFrame(counts, columns=["tp", "fp", "fn"])
    table["image"] = [f"p/{n}.png" for n in range(40)]
    table["patient_id"] = [f"p{n % 20}" for n in range(40)]
    with np.errstate(invalid="ignore"):
        table["dice"] = 2 * table["tp"] / (2 * table["tp"] + table["fp"] + table["fn"])
    gallery = choose_pictures(table, 8)
    measured = [
        (Slice(Input(Path(name), Path(name)), Path("m")), Counts(*row, 0))
        for name, row in zip(table["image"], counts.tolist(), strict=True)
        if sum(row)
    ]
    for kind in ("worst", "best"):
        expected = [image for shown, image in gallery if (shown == "best") == (kind == "best")]
        assert len(expected) == 8
        assert [str(item.item.path) for item, _ in rank(measured, kind, 8)] == expected


def test_masks_are_measured(tmp_path: Path) -> None:
    half = np.zeros((4, 6), np.uint8)
    half[:2] = 1
    write_mask(tmp_path / "prediction.png", half)
    write_mask(tmp_path / "reference.png", half.T[:4, :4].repeat(2, axis=1)[:, :6])
    item = Slice(Input(Path("x"), Path("x")), tmp_path / "prediction.png")
    assert measure_masks(item) == Counts(0, 12, 0, 12)
    both = measure_masks(Slice(item.item, item.prediction, tmp_path / "reference.png"))
    assert isinstance(both, Counts) and both.tp + both.fp == 12 and sum(both) == 24 and both.fn > 0
    with pytest.raises(InputError, match="no mask"):
        measure_masks(Slice(item.item, InputError("has no mask")))


# --- a report


def put_report(folder: Path, rows: dict[str, Counts]) -> Path:
    folder.mkdir(exist_ok=True)
    table = pd.DataFrame([{"image": name, "patient_id": "p", **counts._asdict()} for name, counts in rows.items()])
    table.to_csv(folder / "slices.csv", index=False)
    return folder


@pytest.mark.parametrize(
    ("reported", "relative"),
    [
        ("p/p_1.tif", "p/p_1.png"),  # of a run
        ("p/p_1", "p/p_1.png"),  # of two folders
        ("p/p_1", "home/data/p/p_1.png"),  # a list
        ("study/p/p_1.tif", "p/p_1.png"),
        ("p/1", "p/images/1.png"),
        ("p/v1.5", "p/v1.5.png"),
    ],
)
def test_a_slice_is_found_in_a_report(reported: str, relative: str, tmp_path: Path) -> None:
    report = Report(put_report(tmp_path, {reported: COUNTS["fair"], "q/p_9": COUNTS["poor"]}))
    assert report.measure(Slice(Input(Path("x"), Path(relative)), Path("m"))) == COUNTS["fair"]
    assert report.measure(Slice(Input(Path("x"), Path("p/other.png")), Path("m"))) is None
    assert (report.known, report.unknown) == (1, 1)
    report.check_known()


def test_a_slice_that_is_not_certain_is_not_chosen_by_another(tmp_path: Path) -> None:
    report = Report(put_report(tmp_path, {"a/s_1": COUNTS["fair"], "b/s_1": COUNTS["poor"], "s_2": COUNTS["good"]}))
    with pytest.raises(InputError, match="any of 2"):
        report.measure(Slice(Input(Path("x"), Path("s_1.png")), Path("m")))
    assert report.measure(Slice(Input(Path("x"), Path("a/s_2.png")), Path("m"))) == COUNTS["good"]
    with pytest.raises(InputError, match="one of several images"):
        report.measure(Slice(Input(Path("x"), Path("b/s_2.png")), Path("m")))


def test_a_report_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="that eval wrote"):
        Report(tmp_path / "nowhere")
    for text in (
        "",
        "image\n",
        "image,tp,fp,fn,tn\np/1,1,2,x,4\n",
        "image,tp,fp,fn,tn\np/1,1\n",
        "image,dice\np/1,0.5\n",
    ):
        (tmp_path / "slices.csv").write_text(text)
        if text in ("", "image\n"):  # a table without a slice knows none
            Report(tmp_path)
            continue
        with pytest.raises(InputError, match="is no table of slices"):
            Report(tmp_path)
    (tmp_path / "slices.csv").write_bytes(b"image,tp,fp,fn,tn\n\xff,1,2,3,4\n")
    with pytest.raises(InputError, match="is no table of slices"):
        Report(tmp_path)
    put_report(tmp_path, {"p/1.png": COUNTS["fair"], "p/1.tif": COUNTS["poor"]})
    with pytest.raises(InputError, match="p/1 twice"):
        Report(tmp_path)


def test_only_by_a_report_through_the_use_case(tmp_path: Path) -> None:
    """The masks on disk say otherwise; and of slices that are not wanted the masks may be missing."""
    for name in COUNTS:
        write_image(tmp_path / "in/p" / f"{name}.png", np.zeros((4, 6, 3), np.uint8))
    for name in ("missed", "poor", "empty"):
        write_mask(tmp_path / "masks/p" / f"{name}.png", np.zeros((4, 6), np.uint8))
    rows = {f"p/{name}.tif": COUNTS[name] for name in ("missed", "poor", "good", "empty")}
    report = put_report(tmp_path / "report", rows)

    def draw(only: str, out: str, given: Path = tmp_path / "in", **options: Any) -> Any:
        sources = Sources(Request((str(given),)), tmp_path / "masks", only=parse_only(only), report=report, **options)
        return overlay(sources, Places(tmp_path / out), Look(), None)  # type: ignore[arg-type]

    drawing = draw("worst:2", "worst")
    assert drawing.total == 2 and drawing.passed_over == {"masks in the list": 0, "images not in the report": 4}
    assert [outcome.figure.stem for outcome in drawing.run()] == ["missed", "poor"]
    found = list(draw("tumour", "tumour").run())
    assert sorted(outcome.figure.stem for outcome in found if outcome.figure) == ["missed", "poor"]
    assert [Path(where).stem for outcome in found for where, _ in outcome.failures] == ["good"]
    with pytest.raises(InputError, match="none of the 1 images"):
        draw("best:1", "none", tmp_path / "in/p/whole.png")
