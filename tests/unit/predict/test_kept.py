"""What is never lost or believed: masks of unreadable images, records of other slices, maps and notes of others."""

import json
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from predicting import Painted, draw, make, paint, records, tree

from brainseg_cli.errors import UsageError
from brainseg_cli.io.embedded import encode_mask, read_about
from brainseg_cli.io.images import read_mask, write_image
from brainseg_cli.metrics.finding import describe_finding
from brainseg_cli.predict.recorded import FINDING


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for number in (1, 2, 3):
        draw(tmp_path / "in" / "p" / f"p_{number}.png", (number, 1, number + 1, 9))
    return tmp_path / "in"


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def go_on(run: Path, out: Path, source: Path, **options: Any) -> list[bool]:
    return [outcome.unchanged for outcome in paint(make(run, out, source, resume=True, **options))]


def test_a_mask_outlives_an_image_that_cannot_be_read(run: Path, source: Path, tmp_path: Path) -> None:
    out, listed = tmp_path / "out", "\n".join(str(path) for path in sorted(source.rglob("*.png"))).encode()
    options: dict[str, Any] = {"files_from": "-", "relative_to": source}
    list(paint(make(run, out, stdin=listed, **options)))
    before = {name: data for name, data in tree(out).items() if name.endswith(".png")}
    assert len(before) == 3
    (source / "p").rename(tmp_path / "gone")
    for how in ({"resume": True}, {"overwrite": True}):
        found = records(list(paint(make(run, out, stdin=listed, **options, **how))))
        assert [record["status"] for record in found] == ["failed"] * 3
        assert {name: data for name, data in tree(out).items() if name.endswith(".png")} == before
    (tmp_path / "gone").rename(source / "p")
    assert [o.unchanged for o in paint(make(run, out, stdin=listed, resume=True, **options))] == [True] * 3


def test_an_older_mask_does_not_stand_for_an_image_that_is_another_now(run: Path, source: Path, tmp_path: Path) -> None:
    list(paint(make(run, tmp_path / "out", source)))
    write_image(source / "p" / "p_2.png", np.zeros((12, 16), np.uint8))  # one channel, which Painted refuses
    found = records(list(paint(make(run, tmp_path / "out", source, resume=True))))
    assert [record["status"] for record in found] == ["ok", "failed", "ok"]
    assert not (tmp_path / "out" / "p" / "p_2.png").exists()


def test_a_run_on_some_keeps_the_records_of_the_others(run: Path, source: Path, tmp_path: Path) -> None:
    out, whole = tmp_path / "out", (source / "p" / "p_2.png").read_bytes()
    (source / "p" / "p_2.png").write_bytes(b"broken")
    list(paint(make(run, out, source)))
    assert [line["status"] for line in lines(out / "predictions.jsonl")] == ["ok", "failed", "ok"]
    assert [Path(line["image"]).name for line in lines(out / "failures.jsonl")] == ["p_2.png"]
    (source / "p" / "p_2.png").write_bytes(whole)
    again = str(source / "p" / "p_2.png").encode()
    list(paint(make(run, out, stdin=again, files_from="-", relative_to=source, resume=True)))
    assert not (out / "failures.jsonl").exists()
    undisturbed = tmp_path / "fresh" / "out"
    list(paint(make(run, undisturbed, source)))
    told = (undisturbed / "predictions.jsonl").read_text().replace(str(undisturbed), str(out))
    assert (out / "predictions.jsonl").read_text() == told


def test_records_say_what_stands_where_a_run_is_left(run: Path, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    list(paint(make(run, out, source)))
    for options in ({"overwrite": True}, {"resume": True}):
        running = paint(make(run, out, source, threshold=0.9, **options), 1)
        next(running)
        running.close()  # as Ctrl-C does
        told = lines(out / "predictions.jsonl")
        assert [Path(line["image"]).name for line in told] == ["p_1.png", "p_2.png", "p_3.png"]
        for line in told:
            about = read_about(Path(line["mask"]))
            assert about is not None and about["provenance"] == line["provenance"]
        assert told[0]["provenance"]["options"]["threshold"] == 0.9


def test_who_leaves_hears_of_what_was_written(run: Path, source: Path, tmp_path: Path) -> None:
    from brainseg_cli.predict.run import run as run_plan

    told: list[Any] = []
    running = run_plan(
        make(run, tmp_path / "out", source),
        Painted(),
        batch_size=1,
        on_left=told.append,  # type: ignore[arg-type]
    )
    outcomes = [next(running)]
    time.sleep(0.3)  # the others are made meanwhile
    running.close()
    written = sorted(str(path) for path in (tmp_path / "out").rglob("*.png"))
    assert len(written) == 3 and sorted(found.record["mask"] for found in [*outcomes, *told]) == written


def test_a_run_over_all_puts_them_in_its_order(run: Path, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    list(paint(make(run, out, source)))
    path = out / "predictions.jsonl"
    whole = path.read_bytes()
    first, *rest = whole.splitlines(keepends=True)
    path.write_bytes(b"".join(rest))  # an interrupt came between a mask and its record
    assert go_on(run, out, source) == [True] * 3 and path.read_bytes() == whole
    path.write_bytes(b"".join([*rest, first]))
    list(paint(make(run, out, source / "p" / "p_2.png", relative_to=source, resume=True)))
    assert path.read_bytes() == b"".join([*rest, first])  # of a part, it leaves the others where they are


def test_half_a_line_is_no_record(run: Path, source: Path, tmp_path: Path) -> None:
    list(paint(make(run, tmp_path / "out", source)))
    path = tmp_path / "out" / "predictions.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert go_on(run, tmp_path / "out", source) == [True] * 3 and path.read_bytes() == whole


@pytest.mark.parametrize("kind", ["png", "npy"])
def test_a_map_is_that_of_its_mask(run: Path, source: Path, tmp_path: Path, kind: str) -> None:
    options: dict[str, Any] = {"maps": tmp_path / "maps", "probabilities": kind}
    list(paint(make(run, tmp_path / "out", source, **options)))
    first = tree(tmp_path)
    path = tmp_path / "maps" / "p" / f"p_1.{kind}"
    path.write_bytes(path.read_bytes()[:-10])  # damaged
    other = {**options, "threshold": 0.9}
    plan = make(run, tmp_path / "other", source / "p" / "p_2.png", relative_to=source, overwrite=True, **other)
    list(paint(plan))  # another run's, in the same folder
    expected = [False, kind == "npy", True]  # these maps of a .npy are the same bytes
    assert go_on(run, tmp_path / "out", source, **options) == expected
    assert {name: data for name, data in tree(tmp_path).items() if not name.startswith("other")} == first


def test_a_map_of_somebody_elses_is_never_replaced(run: Path, source: Path, tmp_path: Path) -> None:
    write_image(tmp_path / "maps" / "p" / "p_2.png", np.zeros((4, 4), np.uint8))
    before = (tmp_path / "maps" / "p" / "p_2.png").read_bytes()
    options: dict[str, Any] = {"maps": tmp_path / "maps", "probabilities": "png", "resume": True}
    found = records(list(paint(make(run, tmp_path / "out", source, **options))))
    assert [record["status"] for record in found] == ["ok", "failed", "ok"]
    assert (tmp_path / "maps" / "p" / "p_2.png").read_bytes() == before


def test_a_note_is_believed_where_it_holds(run: Path, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    list(paint(make(run, out, source)))
    first = tree(out)
    path = out / "p" / "p_1.png"
    mask, about = read_mask(path), read_about(path)
    assert about is not None
    without = {name: value for name, value in about.items() if name != "tumour"}
    for note in (without, about | {"tumour": "no"}, about | {"area_px": True}, about | {"image": "x", "mask": "../y"}):
        path.write_bytes(encode_mask(mask, ".png", note))
        assert go_on(run, out, source) == [False, True, True] and tree(out) == first
    path.write_bytes(encode_mask(np.rot90(mask, 2), ".png", about))  # turned, as many pixels as before
    assert go_on(run, out, source) == [False, True, True] and tree(out) == first


def test_all_that_is_said_of_a_slice_is_looked_at(rng: np.random.Generator) -> None:
    probs = rng.random((4, 5), np.float32)
    assert [*describe_finding((probs > 0.5).astype(np.uint8), probs), "disagreement", "ood"] == list(FINDING)


def test_a_growing_list_writes_over_no_image_of_its_own(run: Path, tmp_path: Path) -> None:
    for name in ("a.png", "a_seg.png"):
        draw(tmp_path / name, (1, 1, 3, 3))
    image = cv2.imread(str(tmp_path / "a_seg.png"))
    for order in (("a.png", "a_seg.png"), ("a_seg.png", "a.png")):
        listed = "\n".join(str(tmp_path / name) for name in order).encode()
        options: dict[str, Any] = {"files_from": "-", "relative_to": tmp_path, "template": "{stem}_seg"}
        found = records(list(paint(make(run, tmp_path, stdin=listed, overwrite=True, **options))))
        assert "failed" in [record["status"] for record in found]
        assert (cv2.imread(str(tmp_path / "a_seg.png")) == image).all()


def test_shares_of_a_growing_list_keep_their_names(run: Path, source: Path, tmp_path: Path) -> None:
    from brainseg_cli.io.sources import Shard

    listed = "\n".join(map(str, source.rglob("*.png"))).encode()
    with pytest.raises(UsageError, match=r"growing list .* file first"):
        make(run, tmp_path / "out", stdin=listed, files_from="-", shard=Shard(1, 2), template="x_{stem}")


def test_a_model_is_named_once(run: Path, source: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="hold the same model"):
        make([run, run / "model"], tmp_path / "out", source)


def test_a_name_may_end_as_the_masks_do(run: Path, source: Path, tmp_path: Path) -> None:
    list(paint(make(run, tmp_path / "out", source, template="{stem}_mask.png")))
    assert (tmp_path / "out" / "p" / "p_1_mask.png").exists()
    with pytest.raises(UsageError, match=r"results end in \.png"):
        make(run, tmp_path / "other", source, template="{stem}.tif")
