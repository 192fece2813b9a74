"""Going on: what was made from the same content, model and options is left alone, all else is made again."""

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from predicting import draw, make, paint, records, tree

from brainseg_cli.io.atomic import name_aside, write_bytes
from brainseg_cli.io.images import write_mask
from brainseg_cli.models.locate import find_bundle
from brainseg_cli.postprocess import Postprocess


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for number in (1, 2, 10):
        draw(tmp_path / "in" / "p" / f"p_{number}.png", (number, 1, number + 1, 9))
    return tmp_path / "in"


@pytest.fixture
def resume(run: Path, source: Path, tmp_path: Path) -> Callable[..., list[bool]]:
    """Go on in `out`; which of the three were left alone."""

    def go_on(model: Path = run, **options: Any) -> list[bool]:
        plan = make(model, tmp_path / "out", source, resume=True, **options)
        told = [record["status"] for record in make(model, tmp_path / "out", source, resume=True, **options).preview()]
        outcomes = list(paint(plan))
        found = [outcome.unchanged for outcome in outcomes]
        # what would be done is what was done, of those that can be done
        assert all((said == "unchanged") == left for said, left in zip(told, found, strict=True))
        assert all(outcome.seconds is None for outcome in outcomes if outcome.unchanged)
        return found

    return go_on


@pytest.fixture
def first(run: Path, source: Path, tmp_path: Path) -> dict[str, bytes]:
    """The tree of an undisturbed run in `out`."""
    list(paint(make(run, tmp_path / "out", source)))
    return tree(tmp_path / "out")


def test_content_counts_not_time(
    resume: Callable[..., list[bool]], first: dict[str, bytes], source: Path, tmp_path: Path
) -> None:
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.png")}
    for path in source.rglob("*.png"):
        os.utime(path, (time.time() + 1000,) * 2)
    assert resume() == [True] * 3 and tree(tmp_path / "out") == first
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.png")} == stamps  # not touched
    old = (source / "p" / "p_2.png").stat()
    draw(source / "p" / "p_2.png", (5, 5, 7, 7))
    os.utime(source / "p" / "p_2.png", ns=(old.st_atime_ns, old.st_mtime_ns))
    assert resume() == [True, False, True] and resume() == [True] * 3
    changed = [name for name, content in tree(tmp_path / "out").items() if first[name] != content]
    assert changed == ["p/p_2.png", "predictions.jsonl"]


def test_what_is_missing_or_damaged_is_made_to_the_same_tree(
    run: Path, source: Path, first: dict[str, bytes], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    (out / "p" / "p_1.png").unlink()
    whole = (out / "p" / "p_10.png").read_bytes()
    (out / "p" / "p_10.png").write_bytes(whole[: len(whole) - 30])  # what it says of itself is still there
    (out / "predictions.jsonl").write_bytes((out / "predictions.jsonl").read_bytes()[:100])  # as a kill may leave it
    (out / "failures.jsonl").write_text("older\n")
    for name in ("p/p_1.png", "predictions.jsonl", "failures.jsonl"):
        name_aside(out / name).write_bytes(b"half")
    unchanged = [outcome.unchanged for outcome in paint(make(run, out, source, resume=True))]
    assert unchanged == [False, True, False] and tree(out) == first


@pytest.mark.parametrize(
    "options",
    [
        {"threshold": 0.9},
        {"tta": "flips"},
        {"steps": Postprocess(min_size=3)},
        {"steps": Postprocess(fill_holes=True)},
        {"pixel_mm": (1.0, 1.0)},
    ],
)
def test_other_options_are_other_masks(
    resume: Callable[..., list[bool]], first: dict[str, bytes], options: dict[str, Any]
) -> None:
    assert resume(**options) == [False] * 3 and resume(**options) == [True] * 3
    assert resume() == [False] * 3


def test_another_model_makes_other_masks(
    resume: Callable[..., list[bool]], first: dict[str, bytes], run: Path, tmp_path: Path
) -> None:
    shutil.copytree(find_bundle(run), tmp_path / "copy")
    assert resume(tmp_path / "copy") == [True] * 3  # the same model, wherever it lies
    about = tmp_path / "copy" / "brainseg.json"
    about.write_text(about.read_text() + "\n")
    assert resume(tmp_path / "copy") == [False] * 3


def test_a_mask_of_somebody_elses_is_never_replaced(run: Path, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_mask(out / "p" / "p_2.png", np.ones((12, 16), np.uint8))
    mine = (out / "p" / "p_2.png").read_bytes()
    for inputs in ((source,), ()):
        listed = "\n".join(str(path) for path in sorted(source.rglob("*.png"))).encode()
        options: dict[str, Any] = (
            {} if inputs else {"stdin": listed, "files_from": "-", "relative_to": source.parent / "in"}
        )
        found = records(list(paint(make(run, out, *inputs, resume=True, **options))))
        told = {Path(record["image"]).name: record for record in found}
        assert told["p_2.png"]["status"] == "failed" and "was not made by brainseg" in told["p_2.png"]["error"]
        assert [record["status"] for record in found].count("ok") == 2
        where = out / "p" / "p_2.png"
        assert where.read_bytes() == mine
        assert (out / "failures.jsonl").exists()


def test_an_image_that_is_no_longer_readable_has_no_mask(
    run: Path, source: Path, first: dict[str, bytes], tmp_path: Path
) -> None:
    (source / "p" / "p_2.png").write_bytes(b"broken")
    found = records(list(paint(make(run, tmp_path / "out", source, resume=True))))
    assert [record["status"] for record in found] == ["ok", "failed", "ok"]
    assert not (tmp_path / "out" / "p" / "p_2.png").exists()


@pytest.mark.parametrize("kind", ["png", "npy"])
def test_a_mask_never_stands_beside_the_map_of_another_run(
    run: Path, source: Path, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, maps = tmp_path / "out", tmp_path / "maps"
    options: dict[str, Any] = {"maps": maps, "probabilities": kind}
    list(paint(make(run, out, source, **options)))
    first = tree(tmp_path)
    (maps / "p" / f"p_1.{kind}").unlink()
    assert [o.unchanged for o in paint(make(run, out, source, resume=True, **options))] == [False, True, True]
    assert tree(tmp_path) == first
    # another threshold, and the map can be written, its mask cannot
    (maps / "p" / f"p_2.{kind}").unlink()
    (maps / "p" / f"p_2.{kind}").mkdir()
    found = records(list(paint(make(run, out, source, resume=True, threshold=0.9, **options))))
    assert [record["status"] for record in found] == ["ok", "failed", "ok"]
    told = "cannot be written: Is a directory" if kind == "npy" else "is there and was not made by brainseg"
    assert found[1]["error"].startswith(f"{maps}/p/p_2.{kind}: {told}")
    assert (out / "p" / "p_2.png").exists() == (kind == "png")  # where nothing was begun nothing is taken away
    # the map is written, and it ends before the mask is
    assert (out / "p" / "p_1.png").exists()

    def write(path: Path, data: bytes) -> None:
        if path.is_relative_to(out):
            raise KeyboardInterrupt
        write_bytes(path, data)

    monkeypatch.setattr("brainseg_cli.predict.run.write_bytes", write)
    with pytest.raises(KeyboardInterrupt):
        list(paint(make(run, out, source, resume=True, threshold=0.1, **options)))
    assert not (out / "p" / "p_1.png").exists()


def test_records_of_what_was_left_alone_are_those_of_then(
    run: Path, source: Path, first: dict[str, bytes], tmp_path: Path
) -> None:
    before = (tmp_path / "out" / "predictions.jsonl").read_bytes()
    running = paint(make(run, tmp_path / "out", source, resume=True))
    next(running)
    assert (tmp_path / "out" / "predictions.jsonl").read_bytes().startswith(before)
    running.close()  # as a loop that is left
    assert (tmp_path / "out" / "predictions.jsonl").read_bytes() == before
    assert tree(tmp_path / "out") == first
