"""predict: a mask for every image, at its own size and place; nothing lost, nothing written over."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from brainseg_cli.data.phantom import patient_name
from brainseg_cli.errors import InputError, OutputExistsError, UsageError
from brainseg_cli.io.images import read_image, read_mask, write_image, write_mask
from brainseg_cli.models.bundle import load_bundle
from brainseg_cli.predict import Prediction, plan
from brainseg_cli.types import Json

FIELDS = [
    "image", "mask", "patient_id", "slice_index", "tumour", "area_px", "area_mm2", "max_prob", "seconds", "status",
]  # fmt: skip


def predict(run: Path, out: Path, *inputs: Path | str, **options: object) -> list[Json]:
    return list(plan([str(name) for name in inputs], run, out, device_name="cpu", **options).run())  # type: ignore[arg-type]


def tree(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def noise(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.integers(0, 256, shape, dtype=np.uint8)


def test_the_tree_is_mirrored_and_masks_are_no_input(run: Path, phantom: Path, tmp_path: Path) -> None:
    records = predict(run, tmp_path / "masks", phantom)
    images = sorted(path for path in phantom.rglob("*.tif") if not path.stem.endswith("_mask"))
    assert len(records) == len(images) == 33
    assert tree(tmp_path / "masks") == [path.relative_to(phantom).with_suffix(".png").as_posix() for path in images]
    for record in records:
        assert list(record) == FIELDS and record["status"] == "ok" and record["area_mm2"] is None
        assert record["patient_id"] == Path(record["image"]).parent.name
        assert Path(record["image"]).stem == f"{record['patient_id']}_{record['slice_index']}"
        mask = read_mask(Path(record["mask"]))
        assert mask.shape == (40, 56)
        assert record["area_px"] == mask.sum() and record["tumour"] == bool(mask.any())
        assert 0 <= record["max_prob"] <= 1 and (record["max_prob"] >= 0.5) == record["tumour"]
        assert 0 < record["seconds"] < 60
    assert any(record["tumour"] for record in records)
    order = [(record["patient_id"], record["slice_index"]) for record in records]
    assert order == sorted(order)  # 2 before 10, folder by folder


def test_batches_do_not_change_a_mask(run: Path, phantom: Path, tmp_path: Path) -> None:
    folder = phantom / patient_name(3)
    for name, size in (("one", 1), ("five", 5), ("all", 100)):
        predict(run, tmp_path / name, folder, batch_size=size)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "five" / path.name).read_bytes()
        assert path.read_bytes() == (tmp_path / "all" / path.name).read_bytes()


@pytest.mark.parametrize(("mask_format", "suffix"), [("png", ".png"), ("tiff", ".tif")])
def test_masks_are_0_and_255_at_the_images_own_size(
    run: Path, tmp_path: Path, rng: np.random.Generator, mask_format: str, suffix: str
) -> None:
    shapes = {"a": (40, 56, 3), "b": (64, 33, 3), "c": (21, 90), "d": (32, 32, 3)}
    for name, shape in shapes.items():
        write_image(tmp_path / "in" / f"{name}.png", noise(rng, *shape))
    records = predict(run, tmp_path / "out", tmp_path / "in", mask_format=mask_format)
    for name, shape in shapes.items():
        mask = read_image(tmp_path / "out" / f"{name}{suffix}")
        assert mask.shape == (*shape[:2], 1) and set(np.unique(mask)) <= {0, 255}
    found = np.concatenate([read_mask(Path(record["mask"])).ravel() for record in records])
    assert 0 < found.sum() < found.size


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
    for number in (1, 2, 3, 4, 5, 6):
        write_image(tmp_path / "in" / f"s_{number}.png", noise(rng, 30, 30, 3))
    (tmp_path / "in" / "s_2.png").write_bytes(b"broken")
    (tmp_path / "in" / "s_6.png").write_bytes(b"")
    (tmp_path / "out" / "s_4.png").mkdir(parents=True)  # cannot be written there
    (tmp_path / "out" / "s_6.png").write_bytes(b"an older mask, not to be taken for this one")
    records = predict(run, tmp_path / "out", tmp_path / "in", batch_size=2, overwrite=True)
    assert [record["status"] for record in records] == ["ok", "failed", "ok", "failed", "ok", "failed"]
    for record in records:
        if record["status"] == "failed":
            assert list(record) == ["image", "mask", "patient_id", "slice_index", "status", "error"]
            assert record["mask"] is None and "\n" not in record["error"]
    assert "cannot be decoded" in records[1]["error"] and "is empty" in records[5]["error"]
    assert tree(tmp_path / "out") == ["s_1.png", "s_3.png", "s_5.png"]


def test_nothing_is_written_before_it_is_known_to_fit(run: Path, tmp_path: Path, rng: np.random.Generator) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    for name in ("a.png", "a.tif", "b.png"):
        write_image(source / name, noise(rng, 20, 24, 3))
    with pytest.raises(UsageError, match=r"a\.png.*a\.tif|a\.tif.*a\.png"):
        plan([str(source)], run, out)
    with pytest.raises(InputError, match="is not there"):
        plan([str(source / "b.png"), str(source / "c.png")], run, out)
    with pytest.raises(UsageError, match="no input"):
        plan([], run, out)
    with pytest.raises(InputError, match="holds no model"):
        plan([str(source / "b.png")], tmp_path, out)
    with pytest.raises(UsageError, match="no device"):
        plan([str(source / "b.png")], run, out, device_name="gpu")
    assert not out.exists()


def test_a_mask_never_replaces_an_image(run: Path, tmp_path: Path, rng: np.random.Generator) -> None:
    write_image(tmp_path / "in" / "b.png", noise(rng, 20, 24, 3))
    (tmp_path / "link").symlink_to(tmp_path / "in")
    for out in (tmp_path / "in", tmp_path / "link", tmp_path / "in" / ".." / "in"):
        with pytest.raises(UsageError, match="would replace an input"):
            plan([str(tmp_path / "in")], run, out, overwrite=True)
    assert len(predict(run, tmp_path / "in", tmp_path / "in", mask_format="tiff")) == 1  # b.tif beside b.png


def test_masks_that_are_there_are_kept_unless_told(run: Path, tmp_path: Path, rng: np.random.Generator) -> None:
    for name in ("a.png", "b.png"):
        write_image(tmp_path / "in" / name, noise(rng, 20, 24, 3))
    write_mask(tmp_path / "out" / "b.png", np.ones((5, 5), np.uint8))
    before = (tmp_path / "out" / "b.png").read_bytes()
    with pytest.raises(OutputExistsError, match=r"1 of 2 masks .*--overwrite"):
        plan([str(tmp_path / "in")], run, tmp_path / "out")
    assert tree(tmp_path / "out") == ["b.png"] and (tmp_path / "out" / "b.png").read_bytes() == before
    predict(run, tmp_path / "out", tmp_path / "in", overwrite=True)
    assert read_mask(tmp_path / "out" / "b.png").shape == (20, 24)


def test_names_with_spaces_and_letters_of_any_script(run: Path, tmp_path: Path, rng: np.random.Generator) -> None:
    names = ["Åsa B/slice 1.png", "患者 7/7_2.tif", "a[1]/x*y.jpeg.png"]
    for name in names:
        write_image(tmp_path / "in" / name, noise(rng, 20, 24, 3))
    records = predict(run, tmp_path / "out", tmp_path / "in")
    assert {record["image"] for record in records} == {str(tmp_path / "in" / name) for name in names}
    assert tree(tmp_path / "out") == sorted(str(Path(name).with_suffix(".png")) for name in names)


def test_several_inputs_and_a_glob(run: Path, phantom: Path, tmp_path: Path) -> None:
    one, other = (phantom / patient_name(number) for number in (0, 3))
    records = predict(run, tmp_path / "both", one, other / f"{other.name}_2.tif", one / f"{one.name}_1.tif")
    assert len(records) == 6  # a file named twice is done once
    assert f"{other.name}/{other.name}_2.png" in tree(tmp_path / "both")
    globbed = predict(run, tmp_path / "glob", f"{phantom}/*/*_2.tif")
    assert len(globbed) == 6 and {record["slice_index"] for record in globbed} == {2}


def test_memory_holds_two_batches(run: Path, tmp_path: Path, rng: np.random.Generator) -> None:
    for number in range(12):
        write_image(tmp_path / "in" / f"s_{number}.png", noise(rng, 20, 24, 3))
    prediction = plan([str(tmp_path / "in")], run, tmp_path / "out", batch_size=2, device_name="cpu")
    assert isinstance(prediction, Prediction) and not (tmp_path / "out").exists()
    running = prediction.run()
    assert Path(next(running)["mask"]).exists()  # on disk when it is told
    (tmp_path / "in" / "s_11.png").unlink()  # not read yet: the third batch is not begun
    assert len(tree(tmp_path / "out")) <= 2
    assert [record["status"] for record in running] == ["ok"] * 10 + ["failed"]


def test_an_image_of_other_channels_fails_alone(run: Path, tmp_path: Path, rng: np.random.Generator) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(run / "model", bundle)
    from brainseg_cli.config import ModelConfig
    from brainseg_cli.models.build import build_model
    from brainseg_cli.models.bundle import save_bundle

    grey = build_model(ModelConfig(encoder="tu-test_resnet", decoder_channels=(16, 8, 8)), 1)
    save_bundle(bundle, grey, load_bundle(run)[1].model_copy(update={"channel_names": ["grey"]}))
    write_image(tmp_path / "in" / "s_1.png", noise(rng, 20, 24, 3))
    write_image(tmp_path / "in" / "s_2.png", noise(rng, 20, 24))
    records = predict(bundle, tmp_path / "out", tmp_path / "in")
    assert [record["status"] for record in records] == ["failed", "ok"]
    assert "3 channels, the model takes 1" in records[0]["error"]
