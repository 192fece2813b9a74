"""Images to masks: at their own size and place, one record each, nothing lost, whatever the batches."""

import errno
import hashlib
import os
import shutil
import time
import tracemalloc
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from predicting import Painted, draw, make, names, paint, records, segment, tree

from brainseg_cli.data.phantom import patient_name
from brainseg_cli.errors import DiskError
from brainseg_cli.io.atomic import write_bytes
from brainseg_cli.io.embedded import read_about
from brainseg_cli.io.images import encode_image, read_image, read_mask, read_probs, write_image
from brainseg_cli.io.lines import LinesWriter
from brainseg_cli.models.bundle import load_bundle, save_bundle
from brainseg_cli.models.locate import find_bundle, open_bundle
from brainseg_cli.postprocess import Postprocess
from brainseg_cli.types import Json

FINDING = [
    "tumour", "area_px", "area_mm2", "max_prob", "mean_prob", "centroid_px", "box_px", "entropy", "disagreement",
    "ood",
]  # fmt: skip
FIELDS = ["image", "mask", "patient_id", "slice_index", *FINDING, "status", "provenance"]
FAILED = ["image", "mask", "patient_id", "slice_index", "status", "error"]


def predict(run: Path, out: Path, *inputs: Path | str, batch_size: int = 16, **options: Any) -> list[Json]:
    return records(segment(make(run, out, *inputs, **options), batch_size))


def noise(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.integers(0, 256, shape, dtype=np.uint8)


def test_the_tree_is_mirrored_and_each_mask_says_what_it_is(run: Path, phantom: Path, tmp_path: Path) -> None:
    out = tmp_path / "masks"
    outcomes = segment(make(run, out, phantom))
    images = sorted(path for path in phantom.rglob("*.tif") if not path.stem.endswith("_mask"))
    assert len(outcomes) == len(images) == 33
    assert names(out) == [path.relative_to(phantom).with_suffix(".png").as_posix() for path in images]
    for record, seconds, unchanged, mask_bytes in outcomes:
        assert list(record) == FIELDS and record["status"] == "ok" and record["area_mm2"] is None
        assert 0 < seconds < 60 and not unchanged and mask_bytes is None
        assert record["patient_id"] == Path(record["image"]).parent.name
        assert Path(record["image"]).stem == f"{record['patient_id']}_{record['slice_index']}"
        mask = read_mask(Path(record["mask"]))
        assert mask.shape == (40, 56)
        assert record["area_px"] == mask.sum() and record["tumour"] == bool(mask.any())
        assert 0 <= record["max_prob"] <= 1 and 0 < record["entropy"] <= 1 and record["disagreement"] is None
        about = read_about(Path(record["mask"]))
        assert about == {name: record[name] for name in [*FINDING, "provenance"]}
        assert about["provenance"]["model_sha256"] == [open_bundle(find_bundle(run), verify=False).sha256]
        assert about["provenance"]["options"]["threshold"] == load_bundle(run)[1].threshold
    assert any(record["tumour"] for record, *_ in outcomes)
    order = [(record["patient_id"], record["slice_index"]) for record, *_ in outcomes]
    assert order == sorted(order)  # 2 before 10, folder by folder


def test_nothing_depends_on_the_batches_or_on_how_the_list_comes(run: Path, phantom: Path, tmp_path: Path) -> None:
    """Bit for bit, in maps of floats too: what went together with what must not show in a run that was resumed."""
    folder = phantom / patient_name(3)
    options = {"probabilities": "npy", "relative_to": phantom}
    for name, size in (("one", 1), ("three", 3), ("all", 100)):
        predict(run, tmp_path / name / "m", folder, batch_size=size, maps=tmp_path / name / "p", **options)
    listed = "\n".join(record["image"] for record in make(run, tmp_path / "x", folder).preview()).encode()
    predict(run, tmp_path / "list" / "m", stdin=listed, files_from="-", maps=tmp_path / "list" / "p", **options)
    whole = tree(tmp_path / "all")
    assert len(whole) == 7 + 7 + 1
    for name in ("one", "three", "list"):
        other = tree(tmp_path / name)
        assert other.keys() == whole.keys()
        assert [key for key in whole if not key.endswith(".jsonl") and other[key] != whole[key]] == []


@pytest.mark.parametrize(("mask_format", "suffix"), [("png", ".png"), ("tiff", ".tif")])
def test_masks_are_0_and_255_at_the_images_own_size(
    run: Path, tmp_path: Path, rng: np.random.Generator, mask_format: str, suffix: str
) -> None:
    shapes = {"a": (40, 56, 3), "b": (64, 33, 3), "c": (21, 90), "d": (32, 32, 3)}
    for name, shape in shapes.items():
        write_image(tmp_path / "in" / f"{name}.png", noise(rng, *shape))
    found = predict(run, tmp_path / "out", tmp_path / "in", mask_format=mask_format)
    for name, shape in shapes.items():
        mask = read_image(tmp_path / "out" / f"{name}{suffix}")
        assert mask.shape == (*shape[:2], 1) and set(np.unique(mask)) <= {0, 255}
    pixels = np.concatenate([read_mask(Path(record["mask"])).ravel() for record in found])
    assert 0 < pixels.sum() < pixels.size
    assert all(read_about(Path(record["mask"])) for record in found)


def test_the_threshold_is_the_bundles_unless_said(run: Path, phantom: Path, tmp_path: Path) -> None:
    image = phantom / patient_name(3) / f"{patient_name(3)}_3.tif"
    areas = [predict(run, tmp_path / str(t), image, threshold=t)[0]["area_px"] for t in (0.0, 0.3, 0.5, 1.0)]
    assert areas == sorted(areas, reverse=True) and areas[0] == 40 * 56 > areas[-1]
    chosen = load_bundle(run)[1].threshold
    usual, asked = (
        predict(run, tmp_path / str(name), image, threshold=t)[0] for name, t in (("u", None), ("a", chosen))
    )
    assert usual["area_px"] == asked["area_px"] != areas[2]


def test_a_bad_file_among_many_is_named_and_the_rest_is_done(
    run: Path, tmp_path: Path, rng: np.random.Generator
) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    for number in (1, 2, 3, 4, 5, 6):
        draw(source / f"s_{number}.png", (2, 2, 5, 5))
    (source / "s_2.png").write_bytes(b"broken")
    (source / "s_6.png").write_bytes(b"")
    (out / "s_4.png").mkdir(parents=True)  # cannot be written there
    (out / "s_6.png").write_bytes(b"an older mask, not to be taken for this one")
    found = records(list(paint(make(run, out, source, overwrite=True), 2)))
    assert [record["status"] for record in found] == ["ok", "failed", "ok", "failed", "ok", "failed"]
    for record in found:
        if record["status"] == "failed":
            assert list(record) == FAILED and record["mask"] is None and "\n" not in record["error"]
    assert "s_2.png: cannot be decoded" in found[1]["error"] and "s_6.png: is empty" in found[5]["error"]
    assert found[3]["error"] == f"{out}/s_4.png: cannot be written: Is a directory (give another place)"
    assert names(out) == ["s_1.png", "s_3.png", "s_5.png"]
    failures = (out / "failures.jsonl").read_text().splitlines()
    lines = (out / "predictions.jsonl").read_text().splitlines()
    assert len(lines) == 6 and failures == [lines[1], lines[3], lines[5]]
    for name in ("s_2.png", "s_6.png"):
        draw(source / name, (2, 2, 5, 5))
    (out / "s_4.png").rmdir()
    assert len(list(paint(make(run, out, source, resume=True)))) == 6
    assert not (out / "failures.jsonl").exists() and len(names(out)) == 6


def test_names_with_spaces_lines_and_letters_of_any_script(run: Path, tmp_path: Path) -> None:
    odd = ["Åsa B/slice 1.png", "患者 7/7_2.tif", "a[1]/x*y.jpeg.png", "b\n/c\n1.png", "\udcff\udcfe/é_3.png"]
    for name in odd:
        draw(tmp_path / "in" / name, (1, 1, 3, 3))
    found = records(list(paint(make(run, tmp_path / "out", tmp_path / "in"))))
    assert {record["image"] for record in found} == {str(tmp_path / "in" / name) for name in odd}
    assert names(tmp_path / "out") == sorted(str(Path(name).with_suffix(".png")) for name in odd)
    assert len((tmp_path / "out" / "predictions.jsonl").read_text(encoding="utf-8").splitlines()) == len(odd)


def test_several_inputs_and_a_glob(run: Path, phantom: Path, tmp_path: Path) -> None:
    one, other = (phantom / patient_name(number) for number in (0, 3))
    found = records(
        list(paint(make(run, tmp_path / "both", one, other / f"{other.name}_2.tif", one / f"{one.name}_1.tif")))
    )
    assert len(found) == 6  # a file named twice is done once
    assert f"{other.name}/{other.name}_2.png" in tree(tmp_path / "both")
    globbed = records(list(paint(make(run, tmp_path / "glob", f"{phantom}/*/*_2.tif"))))
    assert len(globbed) == 6 and {record["slice_index"] for record in globbed} == {2}


def test_what_is_unlike_the_training_is_in_the_record_and_in_the_mask(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw(tmp_path / "in" / "s_1.png", (1, 1, 3, 3))
    monkeypatch.setattr(Painted, "find_unlike", lambda *_: ["intensity"])
    (first,) = records(list(paint(make(run, tmp_path / "out", tmp_path / "in"))))
    monkeypatch.setattr(Painted, "find_unlike", lambda *_: pytest.fail("it was looked at again"))
    (again,) = records(list(paint(make(run, tmp_path / "out", tmp_path / "in", resume=True))))
    assert first["ood"] == again["ood"] == ["intensity"]


def test_records_are_written_as_they_come_and_little_is_read_ahead(run: Path, tmp_path: Path) -> None:
    for number in range(40):
        draw(tmp_path / "in" / f"s_{number}.png", (1, 1, 3, 3))
    plan = make(run, tmp_path / "out", tmp_path / "in")
    assert not (tmp_path / "out").exists()
    running = paint(plan, 2)
    assert Path(next(running).record["mask"]).exists()  # on disk when it is told
    assert len((tmp_path / "out" / "predictions.jsonl").read_text().splitlines()) == 1
    time.sleep(0.3)
    (tmp_path / "in" / "s_39.png").unlink()  # not read yet
    assert len(names(tmp_path / "out")) <= 12  # a few batches of two are on their way
    assert [outcome.record["status"] for outcome in running] == ["ok"] * 38 + ["failed"]


def test_memory_does_not_grow_with_the_number_of_slices(run: Path, tmp_path: Path) -> None:
    draw(tmp_path / "in" / "one.png", (1, 1, 9, 9), size=(96, 96))
    for number in range(400):
        (tmp_path / "in" / f"s_{number}.png").hardlink_to(tmp_path / "in" / "one.png")

    def peak(pattern: str, out: str) -> int:
        running = paint(make(run, tmp_path / out, f"{tmp_path}/in/{pattern}"), 4)
        tracemalloc.start()
        try:
            for _ in running:
                pass
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    few, many = peak("s_[1-3]?.png", "few"), peak("s_*.png", "many")
    assert len(names(tmp_path / "few")) == 30 and len(names(tmp_path / "many")) == 400
    assert many < few + 3_000_000  # 400 slices and their probabilities would be 25 MB; how many wait varies


def test_an_image_of_other_channels_fails_alone(run: Path, tmp_path: Path, rng: np.random.Generator) -> None:
    from brainseg_cli.config import ModelConfig
    from brainseg_cli.models.build import build_model

    bundle = tmp_path / "bundle"
    shutil.copytree(run / "model", bundle)
    grey = build_model(ModelConfig(encoder="tu-test_resnet", decoder_channels=(16, 8, 8)), 1)
    save_bundle(bundle, grey, load_bundle(run)[1].model_copy(update={"channel_names": ["grey"]}))
    write_image(tmp_path / "in" / "s_1.png", noise(rng, 20, 24, 3))
    write_image(tmp_path / "in" / "s_2.png", noise(rng, 20, 24))
    found = predict(bundle, tmp_path / "out", tmp_path / "in")
    assert [record["status"] for record in found] == ["failed", "ok"]
    assert "3 channels, the model takes 1" in found[0]["error"]


@pytest.mark.parametrize("kind", ["png", "npy"])
def test_maps_of_probabilities_read_back(run: Path, tmp_path: Path, kind: str) -> None:
    ramp = np.linspace(0, 255, 12 * 16).astype(np.uint8).reshape(12, 16)
    write_image(tmp_path / "in" / "p" / "p_1.png", np.dstack([ramp] * 3))
    draw(tmp_path / "in" / "p" / "p_2.png")
    maps = tmp_path / "maps"
    list(paint(make(run, tmp_path / "out", tmp_path / "in", maps=maps, probabilities=kind, threshold=0.25)))
    assert names(maps) == [f"p/p_1.{kind}", f"p/p_2.{kind}"]
    probs = read_probs(maps / "p" / f"p_1.{kind}")
    assert probs.dtype == np.float32 and np.abs(probs - ramp / 255).max() <= (0 if kind == "npy" else 1 / 131070) + 1e-7
    assert (read_mask(tmp_path / "out" / "p" / "p_1.png") == (probs >= 0.25)).all()
    assert not read_probs(maps / "p" / f"p_2.{kind}").any()
    if kind == "png":
        assert cv2.imread(str(maps / "p" / "p_1.png"), cv2.IMREAD_UNCHANGED).dtype == np.uint16
        about = read_about(maps / "p" / "p_1.png")
        mask_about = read_about(tmp_path / "out" / "p" / "p_1.png")
        assert about is not None and mask_about is not None
        own = mask_about["provenance"].pop("probabilities_sha256")
        assert about == mask_about and own == hashlib.sha256((maps / "p" / "p_1.png").read_bytes()).hexdigest()


def test_steps_are_done_slice_by_slice_and_told(run: Path, tmp_path: Path) -> None:
    draw(tmp_path / "in" / "s_1.png", (1, 1, 5, 5), (8, 8, 10, 10), (0, 14, 1, 15))
    image = read_image(tmp_path / "in" / "s_1.png").copy()
    image[2, 2] = 0  # a hole
    write_image(tmp_path / "in" / "s_1.png", image)
    areas = {
        steps: records(list(paint(make(run, tmp_path / str(number), tmp_path / "in", steps=steps))))[0]["area_px"]
        for number, steps in enumerate(
            [Postprocess(), Postprocess(fill_holes=True), Postprocess(min_size=2), Postprocess(largest_component=True)]
        )
    }
    assert list(areas.values()) == [15 + 4 + 1, 16 + 4 + 1, 15 + 4, 15]
    told = read_about(tmp_path / "2" / "s_1.png")
    assert told is not None and told["provenance"]["options"]["min_size"] == 2


def test_areas_in_millimetres(run: Path, tmp_path: Path) -> None:
    draw(tmp_path / "in" / "s_1.png", (1, 1, 5, 5))
    (outcome,) = paint(make(run, tmp_path / "out", tmp_path / "in", pixel_mm=(0.5, 2.5)))
    assert outcome.record["area_mm2"] == 20.0 and outcome.record["provenance"]["options"]["pixel_mm"] == [0.5, 2.5]


def test_one_mask_for_stdout_is_the_files(run: Path, phantom: Path, tmp_path: Path) -> None:
    image = phantom / patient_name(3) / f"{patient_name(3)}_3.tif"
    (filed,) = segment(make(run, tmp_path / "out", image))
    (piped,) = segment(make(run, None, "-", stdin=image.read_bytes()))
    assert piped.mask == Path(filed.record["mask"]).read_bytes() and filed.mask is None
    assert piped.record["image"] == "-" and piped.record["mask"] is None
    assert piped.record["area_px"] == filed.record["area_px"]
    (named,) = segment(make(run, tmp_path / "named", "-", stdin=image.read_bytes(), template="{stem}_mask"))
    assert Path(named.record["mask"]).name == "stdin_mask.png"
    (broken,) = paint(make(run, None, "-", stdin=b"no image"))
    assert broken.mask is None and broken.record["status"] == "failed" and broken.record["error"].count("decoded") == 1


def test_views_and_several_models_are_averaged(run: Path, other_run: Path, phantom: Path, tmp_path: Path) -> None:
    folder = phantom / patient_name(3)

    def probabilities(name: str, models: object, **options: Any) -> list[np.ndarray]:
        found = segment(
            make(models, tmp_path / name, folder, maps=tmp_path / f"{name}-p", probabilities="npy", **options)
        )  # type: ignore[arg-type]
        both = isinstance(models, list) and len(models) == 2
        for record in records(found):
            assert len(record["provenance"]["model_sha256"]) == 1 + both
            assert (0 <= record["disagreement"] <= 1) if both else record["disagreement"] is None
        return [np.load(path) for path in sorted((tmp_path / f"{name}-p").rglob("*.npy"))]

    one, other = probabilities("one", run), probabilities("other", other_run)
    both = probabilities("both", [run, other_run])
    assert all(np.allclose((a + b) / 2, mean, atol=1e-6) for a, b, mean in zip(one, other, both, strict=True))
    assert any(
        record["disagreement"] > 0
        for record in map(read_about, (tmp_path / "both").rglob("*.png"))
        if record is not None
    )
    flips, d4 = probabilities("flips", run, tta="flips"), probabilities("d4", run, tta="d4")
    assert not np.array_equal(one[2], flips[2]) and not np.array_equal(flips[2], d4[2])
    # a slice seen mirrored gets the mirrored probabilities: that is what averaging over views is for
    data = encode_image(read_image(next(folder.glob("*_3.tif")))[:, ::-1], ".png")
    away = []
    for tta, usual in (("none", one[2]), ("flips", flips[2])):
        maps = tmp_path / f"mirrored-{tta}"
        options = {"maps": maps, "probabilities": "npy", "tta": tta}
        assert segment(make(run, tmp_path / f"m-{tta}", "-", stdin=data, **options))[0].record["status"] == "ok"
        away.append(np.abs(np.load(maps / "stdin.npy")[:, ::-1] - usual).max())
    assert away[1] < away[0] / 20


def test_a_full_disk_ends_it_and_says_where(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it is that finds no room: a mask, a record, a failure's record."""
    for number in range(6):
        draw(tmp_path / "in" / f"s_{number}.png", (1, 1, 3, 3))
    (tmp_path / "in" / "s_1.png").write_bytes(b"broken")
    really_write, really_write_line = write_bytes, LinesWriter.write

    def check(out: str, name: str, done: int) -> None:
        """`name` finds no room; `done` records were told before."""

        def write(path: Path, data: bytes) -> None:
            if path.name == name:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            really_write(path, data)

        def write_line(self: LinesWriter, record: Json) -> None:
            if self.path.name == name:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            really_write_line(self, record)

        monkeypatch.setattr("brainseg_cli.predict.run.write_bytes", write)
        monkeypatch.setattr(LinesWriter, "write", write_line)
        told: list[Any] = []
        with pytest.raises(DiskError, match=rf"{name}: cannot be written: No space left .*--resume"):
            for outcome in paint(make(run, tmp_path / out, tmp_path / "in"), 2):
                told.append(outcome)
        assert len(told) == done

    check("a", "s_3.png", 3)
    check("b", "predictions.jsonl", 0)
    check("c", "failures.jsonl", 1)
