"""What is decided before any work: where each result goes, what is refused, what would be done."""

import io
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from predicting import draw, make, names, paint, records, tree

from brainseg_cli.errors import InputError, OutputExistsError, UsageError
from brainseg_cli.io.images import write_mask
from brainseg_cli.io.sources import Request, Shard, open_inputs
from brainseg_cli.models.bundle import write_info
from brainseg_cli.models.locate import find_bundle, read_info
from brainseg_cli.predict.plan import Places, make_plan
from brainseg_cli.predict.settings import Settings, is_made_alike


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Three slices of two patients."""
    for name in ("p/p_1.png", "p/p_2.png", "q/q_1.png"):
        draw(tmp_path / "in" / name, (1, 1, 4, 5))
    return tmp_path / "in"


def test_what_cannot_be_is_refused_and_nothing_written(run: Path, source: Path, tmp_path: Path) -> None:
    out, file = tmp_path / "out", tmp_path / "file"
    file.write_text("mine")
    draw(source / "p" / "p_1.tif")
    draw(tmp_path / "scan.png")
    one = source / "p" / "p_2.png"
    before = tree(tmp_path)
    with pytest.raises(UsageError, match=r"p_1\.(png|tif) and .*p_1\.(png|tif) would both be written to .*p_1\.png"):
        make(run, out, source)
    with pytest.raises(UsageError, match="would both be written"):
        make(run, out, source / "p" / "p_2.png", source / "q", template="all/x")
    with pytest.raises(InputError, match="is not there"):
        make(run, out, one, source / "nowhere.png")
    with pytest.raises(InputError, match="holds no model"):
        make(tmp_path, out, one)
    with pytest.raises(UsageError, match=r"scan\.png: has no patient_id, and --name"):
        make(run, out, tmp_path / "scan.png", template="{patient_id}")
    with pytest.raises(UsageError, match="give one of them"):
        make(run, out, one, overwrite=True, resume=True)
    with pytest.raises(UsageError, match="would lie in one folder"):
        make(run, out, one, maps=out / ".." / "out", probabilities="png")
    for places in ({"out": file}, {"out": out, "maps": file, "probabilities": "npy"}):
        with pytest.raises(OutputExistsError, match="file: is a file, a folder was to be written there"):
            make(run, places.pop("out"), one, **places)
    for inputs, told in (([source / "q", one], "there are 2 images"), ([], "there are any number of images")):
        with pytest.raises(UsageError, match=told):
            make(run, None, *inputs, **({} if inputs else {"stdin": b"a.png", "files_from": "-"}))
    assert tree(tmp_path) == before


def test_settings_that_cannot_be() -> None:
    for threshold in (-0.1, 1.1, float("nan")):
        with pytest.raises(UsageError, match=r"probabilities lie in \[0, 1\]"):
            Settings(threshold=threshold)
    for pixel_mm in ((0.0, 1.0), (1.0, float("nan")), (1.0, float("inf"))):
        with pytest.raises(UsageError, match="is not possible"):
            Settings(pixel_mm=pixel_mm)


def test_a_mask_never_replaces_an_image(run: Path, source: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(source)
    for out in (source, tmp_path / "link", source / ".." / "in"):
        for options in ({"overwrite": True}, {"resume": True}):
            with pytest.raises(UsageError, match="would be written over, and is to be read"):
                make(run, out, source, **options)
    with pytest.raises(UsageError, match="is to be read"):  # a map neither
        make(run, tmp_path / "out", source, maps=source, probabilities="png", overwrite=True)
    assert len(list(paint(make(run, source, source, mask_format="tiff")))) == 3  # p_1.tif beside p_1.png
    listed = "\n".join(map(str, (source / "p" / "p_1.png", source / "q" / "q_1.png"))).encode()
    growing = make(run, source, stdin=listed, files_from="-", relative_to=source, overwrite=True)
    assert [record["error"].count("is to be read") for record in records(list(paint(growing)))] == [1, 1]


def test_what_is_there_is_kept_unless_told(run: Path, source: Path, tmp_path: Path) -> None:
    out, maps = tmp_path / "out", tmp_path / "maps"
    write_mask(out / "p" / "p_2.png", np.ones((5, 5), np.uint8))
    before = tree(out)
    with pytest.raises(OutputExistsError, match=r"1 of 3 results .*--overwrite .*--resume"):
        make(run, out, source)
    (maps / "q").mkdir(parents=True)
    (maps / "q" / "q_1.npy").write_bytes(b"somebody's")
    with pytest.raises(OutputExistsError, match=r"q_1\.npy: 1 of 6 results"):
        make(run, tmp_path / "other", source, maps=maps, probabilities="npy")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "predictions.jsonl").touch()
    with pytest.raises(OutputExistsError, match=r"predictions\.jsonl: is already there"):
        make(run, tmp_path / "other", source)
    assert tree(out) == before
    assert len(list(paint(make(run, out, source, overwrite=True)))) == 3
    assert names(out) == ["p/p_1.png", "p/p_2.png", "q/q_1.png"]


def test_of_a_growing_list_a_fault_is_that_of_one_image(run: Path, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    draw(source / "p" / "p_1.tif")
    write_mask(out / "q" / "q_1.png", np.ones((5, 5), np.uint8))
    listed = ["p/p_1.png", "p/p_1.tif", "q/q_1.png", "p/p_2.png"]
    stdin = "\n".join(str(source / name) for name in listed).encode()
    plan = make(run, out, stdin=stdin, files_from="-", relative_to=source)
    found = records(list(paint(plan)))
    assert [record["status"] for record in found] == ["ok", "failed", "failed", "ok"]
    assert "would both be written" in found[1]["error"] and "is already there" in found[2]["error"]
    assert names(out) == ["p/p_1.png", "p/p_2.png", "q/q_1.png"]
    assert tree(out)["q/q_1.png"] != tree(out)["p/p_1.png"]  # the one that was there


def test_a_name_too_long_is_a_fault_of_one_image(run: Path, source: Path, tmp_path: Path) -> None:
    stdin = f"{'n' * 300}.png\n{source}/q/q_1.png\n".encode()
    for options in ({"stdin": stdin, "files_from": "-"}, {"files_from": str(tmp_path / "list")}):
        (tmp_path / "list").write_bytes(stdin)
        out = tmp_path / f"out{len(options)}"
        found = records(list(paint(make(run, out, relative_to=None, **options))))
        assert [record["status"] for record in found] == ["failed", "ok"]
        assert "File name too long" in found[0]["error"]


def test_no_two_shares_write_to_one_place(run: Path, source: Path, tmp_path: Path) -> None:
    draw(source / "p" / "p_2.tif")
    for part in range(1, 6):
        with pytest.raises(UsageError, match="would both be written"):
            make(run, tmp_path / "out", source, template="one", shard=Shard(part, 5))
    refused = 0
    for part in range(1, 6):
        try:
            make(run, tmp_path / "out", source, shard=Shard(part, 5))
        except UsageError:
            refused += 1
    assert refused == 5  # those too that own neither of the two


def test_shares_side_by_side_are_the_whole(run: Path, source: Path, tmp_path: Path) -> None:
    whole, shared = tmp_path / "whole", tmp_path / "shared"
    list(paint(make(run, whole, source)))
    lines: list[str] = []
    for part in range(1, 6):
        list(paint(make(run, shared, source, shard=Shard(part, 5))))
        lines += (shared / f"predictions-{part}-of-5.jsonl").read_text().splitlines()
    assert names(shared) == names(whole)
    assert all(tree(shared)[name] == tree(whole)[name] for name in names(whole))
    expected = (whole / "predictions.jsonl").read_text().replace(str(whole), str(shared)).splitlines()
    assert sorted(lines) == sorted(expected)


def test_what_would_be_done(run: Path, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    preview = list(make(run, out, source).preview())
    assert preview[0] == {
        "image": str(source / "p" / "p_1.png"), "mask": str(out / "p" / "p_1.png"), "status": "planned",
    }  # fmt: skip
    assert [record["status"] for record in preview] == ["planned"] * 3 and not out.exists()
    list(paint(make(run, out, source)))
    draw(source / "p" / "p_2.png", (0, 0, 2, 2))
    write_mask(out / "q" / "q_1.png", np.ones((12, 16), np.uint8))
    draw(source / "r" / "r_1.png")
    (source / "s_1.png").mkdir()
    listed = [*(str(path) for path in sorted(source.rglob("*.png"))), str(source / "nowhere.png")]
    before = tree(tmp_path)
    plan = make(run, out, stdin="\n".join(listed).encode(), files_from="-", relative_to=source, resume=True)
    told = {Path(record["image"]).name: record["status"] for record in plan.preview()}
    assert told == {
        "p_1.png": "unchanged", "p_2.png": "planned", "q_1.png": "failed", "r_1.png": "planned",
        "s_1.png": "planned", "nowhere.png": "planned",
    }  # fmt: skip
    assert tree(tmp_path) == before


def test_the_threshold_is_the_mean_of_the_models(run: Path, source: Path, tmp_path: Path) -> None:
    for name, threshold in (("fold0", 0.3), ("fold1", 0.6)):
        shutil.copytree(find_bundle(run), tmp_path / "k" / name / "model")
        path = tmp_path / "k" / name / "model"
        write_info(path, read_info(path).model_copy(update={"threshold": threshold}))
    plan = make(tmp_path / "k", tmp_path / "out", source)
    assert plan.threshold == pytest.approx(0.45)
    assert [bundle.path.parent.name for bundle in plan.bundles] == [
        "fold0",
        "fold1",
    ]
    assert len({bundle.sha256 for bundle in plan.bundles}) == 2
    assert make([tmp_path / "k" / "fold1", run], tmp_path / "out", source, threshold=0.2).threshold == 0.2


def test_provenance_tells_apart_all_that_a_mask_depends_on(run: Path, source: Path, tmp_path: Path) -> None:
    def tell(image: str = "a" * 64, volume: str | None = None, **options: object) -> dict[str, object]:
        plan = make(run, tmp_path / "out", source, **options)
        return plan.tell_provenance(image, volume_sha256=volume)

    base = tell()
    assert is_made_alike({"provenance": base | {"version": "0.0"}}, base)
    for other in (
        tell("b" * 64), tell(volume="c" * 64), tell(threshold=0.123), tell(tta="flips"), tell(probabilities="png"),
        tell(volume=None, pixel_mm=(1.0, 2.0)), base | {"model_sha256": ["d" * 64]},
    ):  # fmt: skip
        assert not is_made_alike({"provenance": other}, base)
    for nothing in (None, {}, {"provenance": None}, {"provenance": "x"}):
        assert not is_made_alike(nothing, base)


def test_the_list_may_be_read_by_the_plan_alone(run: Path, source: Path, tmp_path: Path) -> None:
    """One plan, one walk: nothing of it is held back for a second."""
    inputs = open_inputs(Request(files_from="-"), io.BytesIO(str(source / "q" / "q_1.png").encode()))
    plan = make_plan(inputs, [run], Places(tmp_path / "out"), Settings())
    assert len(list(plan.jobs())) == 1 and list(plan.jobs()) == []


@pytest.mark.parametrize("source", ["list", "-"])
def test_few_bytes_are_remembered_of_an_input(run: Path, tmp_path: Path, source: str) -> None:
    """A path alone is ten times what is kept, and a Path thirty times."""

    def plan(count: int) -> tuple[int, int]:
        """Bytes at the most, and jobs."""
        listed = "\n".join(f"scans/TCGA_{n // 100}_19990101/TCGA_{n // 100}_19990101_{n}.tif" for n in range(count))
        (tmp_path / "list").write_text(listed)
        request = Request(files_from=source if source == "-" else str(tmp_path / "list"))
        stdin = io.BytesIO(listed.encode())
        tracemalloc.start()
        try:
            jobs = make_plan(open_inputs(request, stdin), [run], Places(tmp_path / "out"), Settings()).jobs()
            total = sum(job.fault is None for job in jobs)
            return tracemalloc.get_traced_memory()[1], total
        finally:
            tracemalloc.stop()

    plan(2000)  # what is imported when it is first used
    (few, _), (many, total) = plan(500), plan(2000)
    assert total == 2000 and (many - few) / 1500 < 250
