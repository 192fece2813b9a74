"""A patient's slices taken together: post-processed in 3-D, by their numbers."""

import io
import threading
from pathlib import Path
from typing import Any

import pytest
from predicting import draw, make, paint, records, tree

from brainseg_cli.io.images import read_mask
from brainseg_cli.io.sources import Request, open_inputs
from brainseg_cli.postprocess import Postprocess
from brainseg_cli.predict.plan import Places, make_plan
from brainseg_cli.predict.settings import Settings
from brainseg_cli.types import Json

LARGEST = Postprocess(largest_component=True)
SPECK, BLOB = (1, 1, 2, 2), (6, 6, 9, 9)


def volume(run: Path, out: Path, *inputs: object, steps: Postprocess = LARGEST, **options: Any) -> list[Json]:
    return records(list(paint(make(run, out, *map(str, inputs), volume=True, steps=steps, **options), 2)))


def areas(found: list[Json]) -> list[int | None]:
    return [record.get("area_px") for record in found]


def test_what_touches_across_slices_only_is_one_piece(run: Path, tmp_path: Path) -> None:
    source = tmp_path / "in"
    # a speck that goes on in slice 2 by a corner, and grows in 10: 1 + 1 + 9 voxels; beside it a blob of 9 in slice 1
    draw(source / "p" / "p_1.png", SPECK, BLOB)
    draw(source / "p" / "p_2.png", (2, 2, 3, 3))
    draw(source / "p" / "p_3.png", (3, 3, 6, 6))
    found = volume(run, tmp_path / "out", source)
    assert areas(found) == [1, 1, 9]
    assert read_mask(tmp_path / "out" / "p" / "p_1.png")[1, 1] == 1
    slicewise = records(list(paint(make(run, tmp_path / "each", source, steps=LARGEST))))
    assert areas(slicewise) == [9, 1, 9]
    assert areas(volume(run, tmp_path / "size", source, steps=Postprocess(min_size=10))) == [1, 1, 9]


def test_nothing_touches_across_a_gap_and_numbers_not_order_count(run: Path, tmp_path: Path) -> None:
    source = tmp_path / "in"
    for number in (1, 2, 9, 10):
        draw(source / "p" / f"p_{number}.png", SPECK, *([(3, 3, 4, 5)] if number == 9 else []))
    assert areas(volume(run, tmp_path / "out", source, steps=Postprocess(min_size=3))) == [0, 0, 0, 0]
    assert areas(volume(run, tmp_path / "two", source, steps=Postprocess(min_size=2))) == [1, 1, 3, 1]
    listed = "\n".join(str(source / "p" / f"p_{number}.png") for number in (10, 2, 9, 1)).encode()
    turned = volume(run, tmp_path / "turned", stdin=listed, files_from="-", steps=Postprocess(min_size=2))
    assert areas(turned) == [1, 1, 3, 1]


def test_a_hole_is_closed_in_three_dimensions(run: Path, tmp_path: Path) -> None:
    source = tmp_path / "in" / "p"
    ring = ((2, 2, 3, 7), (6, 2, 7, 7), (2, 2, 7, 3), (2, 6, 7, 7))
    for number in (1, 2, 3):
        draw(source / f"p_{number}.png", *(ring if number == 2 else ((2, 2, 7, 7),)))
    assert areas(volume(run, tmp_path / "out", source, steps=Postprocess(fill_holes=True))) == [25, 25, 25]
    draw(source / "p_3.png", *ring)  # open at the end: no hole in 3-D
    found = volume(run, tmp_path / "open", source, steps=Postprocess(fill_holes=True))
    assert areas(found) == [25, 16, 16]


def test_patients_are_volumes_of_their_own_and_who_is_nobodys_is_alone(run: Path, tmp_path: Path) -> None:
    source = tmp_path / "in"
    draw(source / "a" / "x_1.png", SPECK)
    draw(source / "b" / "x_1.png", BLOB)
    draw(source / "other" / "a" / "x_1.png", SPECK, (4, 4, 6, 6))  # another a
    draw(source / "n" / "none.png", SPECK, BLOB)  # no number
    draw(source / "n" / "nothing.png", SPECK)
    found = {
        Path(record["image"]).relative_to(source).as_posix(): record for record in volume(run, tmp_path / "out", source)
    }
    assert {name: record["area_px"] for name, record in found.items()} == {
        "a/x_1.png": 1, "b/x_1.png": 9, "n/none.png": 9, "n/nothing.png": 1, "other/a/x_1.png": 4,
    }  # fmt: skip
    digests = {record["provenance"]["volume_sha256"] for record in found.values()}
    assert len(digests) == 4  # a/x_1 and n/nothing hold the same


def test_a_patient_that_comes_again_is_refused_from_there_on(run: Path, tmp_path: Path) -> None:
    for name in ("p_1", "p_2", "q_1"):
        draw(tmp_path / name[0] / f"{name}.png", SPECK)
    listed = "\n".join(str(tmp_path / name[0] / f"{name}.png") for name in ("p_1", "q_1", "p_2")).encode()
    found = volume(run, tmp_path / "out", stdin=listed, files_from="-")
    assert [record["status"] for record in found] == ["ok", "ok", "failed"]
    assert "p_2.png: comes after other patients' slices" in found[2]["error"]


@pytest.mark.parametrize("fault", ["size", "number"])
def test_two_sizes_or_a_number_twice_are_no_volume(run: Path, tmp_path: Path, fault: str) -> None:
    source = tmp_path / "in"
    draw(source / "p" / "p_1.png", SPECK)
    draw(
        source / "p" / ("p_2.png" if fault == "size" else "p_01.png"),
        SPECK,
        size=(12, 20) if fault == "size" else (12, 16),
    )
    draw(source / "q" / "q_1.png", SPECK)
    found = volume(run, tmp_path / "out", source)
    assert [record["status"] for record in found] == ["failed", "failed", "ok"]
    told = "differ in size" if fault == "size" else "have a number twice"
    assert all(f"the slices of its patient {told}: no volume" in record["error"] for record in found[:2])


def test_one_that_cannot_be_read_is_a_gap(run: Path, tmp_path: Path) -> None:
    source = tmp_path / "in"
    for number in (1, 2, 3):
        draw(source / "p" / f"p_{number}.png", SPECK)
    (source / "p" / "p_2.png").write_bytes(b"broken")
    found = volume(run, tmp_path / "out", source, steps=Postprocess(min_size=2))
    assert [record["status"] for record in found] == ["ok", "failed", "ok"] and areas(found) == [0, None, 0]


def test_a_change_in_one_slice_is_a_change_of_its_patient_alone(run: Path, tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    for name in ("p/p_1", "p/p_2", "q/q_1"):
        draw(source / f"{name}.png", SPECK)
    volume(run, out, source)
    before = tree(out)

    def resume() -> list[bool]:
        plan = make(run, out, source, volume=True, steps=LARGEST, resume=True)
        return [outcome.unchanged for outcome in paint(plan, 2)]

    assert resume() == [True] * 3 and tree(out) == before
    draw(source / "p" / "p_2.png", SPECK, BLOB)
    assert resume() == [False, False, True]
    assert not read_mask(out / "p" / "p_1.png").any()  # its own image is as it was
    assert resume() == [True] * 3
    (out / "p" / "p_1.png").unlink()
    assert resume() == [False, False, True]
    draw(source / "q" / "q_2.png", SPECK)  # a slice more
    assert resume() == [True, True, False, False]


def test_a_patient_of_a_growing_list_is_done_when_the_next_begins(run: Path, tmp_path: Path) -> None:
    for name in ("p_1", "p_2", "q_1"):
        draw(tmp_path / name[0] / f"{name}.png", SPECK)
    told: list[str] = []
    started = threading.Event()

    class Producer(io.RawIOBase):
        names = iter(("p_1", "p_2", "q_1", ""))

        def read(self, size: int = -1) -> bytes:
            name = next(self.names)
            if not name:
                assert started.wait(10)  # the first patient's records come while the list is open
            return f"{tmp_path}/{name[0]}/{name}.png\n".encode() if name else b""

    inputs = open_inputs(Request(files_from="-"), Producer())  # type: ignore[arg-type]
    for outcome in paint(make_plan(inputs, [run], Places(tmp_path / "out"), Settings(volume=True))):
        told.append(Path(outcome.record["image"]).stem)
        started.set()
    assert told == ["p_1", "p_2", "q_1"]


def test_a_volume_is_a_folder_however_it_is_named(run: Path, tmp_path: Path) -> None:
    source = tmp_path / "in" / "pat"
    draw(source / "slice_9.png", SPECK, BLOB)
    draw(source / "slice_10.png", (2, 2, 3, 3))
    draw(source / "slice_11.png", (3, 3, 6, 6))
    listed = "\n".join(str(source / f"slice_{n}.png") for n in (10, 11, 9)).encode()
    assert areas(volume(run, tmp_path / "a", source)) == [1, 1, 9]
    assert areas(volume(run, tmp_path / "b", tmp_path / "in")) == [1, 1, 9]
    found = volume(run, tmp_path / "c", stdin=listed, files_from="-", relative_to=source)
    assert areas(found) == [1, 9, 1]
    # and it is the same volume in any order: nothing is made again
    order = "\n".join(str(source / f"slice_{n}.png") for n in (9, 10, 11)).encode()
    plan = make(
        run, tmp_path / "c", stdin=order, files_from="-", relative_to=source, volume=True, steps=LARGEST, resume=True
    )
    assert [outcome.unchanged for outcome in paint(plan)] == [True] * 3


def test_a_mask_outlives_a_list_in_which_its_patient_comes_twice(run: Path, tmp_path: Path) -> None:
    source = tmp_path / "in"
    for name in ("p/p_1", "p/p_2", "q/q_1"):
        draw(source / f"{name}.png", SPECK)
    assert areas(volume(run, tmp_path / "out", source, relative_to=source)) == [1, 1, 1]
    before = (tmp_path / "out" / "p" / "p_2.png").read_bytes()
    listed = "\n".join(str(source / f"{name}.png") for name in ("p/p_1", "q/q_1", "p/p_2")).encode()
    found = volume(run, tmp_path / "out", stdin=listed, files_from="-", relative_to=source, resume=True)
    assert [record["status"] for record in found] == ["ok", "ok", "failed"]
    assert (tmp_path / "out" / "p" / "p_2.png").read_bytes() == before
