"""brainseg predict: one JSON line a slice, exit codes, what goes to which stream, and nothing written over."""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from predicting import names, tree

from brainseg_cli.data.phantom import patient_name
from brainseg_cli.io.embedded import read_about
from brainseg_cli.io.images import read_mask, read_probs, write_image

Program = Callable[..., Any]
FIELDS = [
    "image", "mask", "patient_id", "slice_index", "tumour", "area_px", "area_mm2", "max_prob", "mean_prob",
    "centroid_px", "box_px", "entropy", "disagreement", "ood", "seconds", "status",
]  # fmt: skip
MODULE = (sys.executable, "-m", "brainseg_cli")


@pytest.fixture
def images(tmp_path: Path, rng: np.random.Generator) -> Path:
    """Three images, s_2 before s_10."""
    for number in (1, 2, 10):
        write_image(tmp_path / "in" / f"s_{number}.png", rng.integers(0, 256, (24, 30, 3), dtype=np.uint8))
    return tmp_path / "in"


@pytest.fixture
def piped(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, bytes, str]]:
    """The program in this process with bytes on both sides: `piped(stdin, "predict", ...)`."""

    def call(stdin: bytes, *arguments: object, terminal: bool = False) -> tuple[int, bytes, str]:
        from brainseg_cli.cli.app import main

        out, err, code = io.TextIOWrapper(io.BytesIO(), encoding="ascii"), io.StringIO(), 0
        if terminal:
            monkeypatch.setattr(out, "isatty", lambda: True, raising=False)
        monkeypatch.setattr(sys, "argv", ["brainseg", *map(str, arguments), "--device", "cpu"])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        with warnings.catch_warnings(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                main()
            except SystemExit as stop:
                code = stop.code if isinstance(stop.code, int) else 0
        return code, out.buffer.getvalue(), err.getvalue()  # type: ignore[attr-defined]

    return call


def lines(out: str | bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.splitlines()]


def test_one_json_line_a_slice(brainseg: Program, run: Path, phantom: Path, tmp_path: Path) -> None:
    out = tmp_path / "masks"
    ended = brainseg("predict", phantom, "-m", run, "-o", out, "--device", "cpu")
    assert ended.code == 0 and "33 of 33 masks" in ended.err
    recorded = lines((out / "predictions.jsonl").read_text())
    assert len(recorded) == 33
    assert 0 < sum(told["seconds"] for told in lines(ended.out)) < 60
    for told, record in zip(lines(ended.out), recorded, strict=True):
        assert list(told) == FIELDS and told.pop("seconds") >= 0  # a batch that was done with the one before took none
        provenance = record.pop("provenance")
        assert told == record and len(provenance["image_sha256"]) == 64
        mask = read_mask(Path(record["mask"]))
        assert mask.sum() == record["area_px"]
        if record["tumour"]:
            top, left, bottom, right = record["box_px"]
            assert mask[top:bottom, left:right].sum() == record["area_px"]
            assert top <= record["centroid_px"][0] < bottom and left <= record["centroid_px"][1] < right
            assert provenance["options"]["threshold"] <= record["mean_prob"] <= record["max_prob"]
    assert '"area_mm2": null' in ended.out.splitlines()[0] and recorded[0]["patient_id"] == patient_name(0)


def test_the_order_is_a_persons(brainseg: Program, run: Path, images: Path, tmp_path: Path) -> None:
    ended = brainseg("predict", images, "-m", run / "model", "-o", tmp_path / "out", "-q", "--batch-size", "2")
    warned = "warning: 3 slices unlike what the model was trained on: "  # they are noise
    assert ended.code == 0 and ended.err.startswith(warned) and ended.err.count("\n") == 1
    assert all("head" in record["ood"] for record in lines(ended.out))
    assert [record["slice_index"] for record in lines(ended.out)] == [1, 2, 10]
    assert {record["patient_id"] for record in lines(ended.out)} == {None}


def test_the_model_may_be_named_by_the_environment(
    brainseg: Program, run: Path, other_run: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BRAINSEG_MODEL", str(run))
    monkeypatch.chdir(tmp_path)
    ended = brainseg("predict", "in/s_1.png", "--format", "tiff", "-v")
    assert ended.code == 0 and json.loads(ended.out)["mask"] == str(Path("masks", "s_1.tif"))
    assert "threshold" in ended.err
    monkeypatch.setenv("BRAINSEG_MODEL", f"{run}{os.pathsep}{other_run}")
    ended = brainseg("predict", "in/s_2.png", "--overwrite", "-q")
    assert ended.code == 0 and json.loads(ended.out)["disagreement"] is not None


def test_one_bad_file_ends_in_3_with_the_rest_done(brainseg: Program, run: Path, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (images / "s_2.png").write_bytes(b"broken")
    (images / "a\nb\x1b[31m.png").write_bytes(b"broken")
    arguments = ["predict", images, "-m", run, "-o", out, "--device", "cpu"]
    ended = brainseg(*arguments)
    assert ended.code == 3
    assert [record["status"] for record in lines(ended.out)] == ["failed", "ok", "failed", "ok"]
    assert sorted(path.name for path in out.iterdir()) == ["failures.jsonl", "predictions.jsonl", "s_1.png", "s_10.png"]
    odd, told = [line for line in ended.err.splitlines() if line.startswith("error: ")]
    assert told.count("s_2.png") == 1 and "2 of 4 masks" in ended.err
    assert "a\\nb\\x1b[31m.png" in odd and "\x1b" not in ended.err  # no command to a terminal
    failures = lines((out / "failures.jsonl").read_text())
    assert failures == [record for record in lines((out / "predictions.jsonl").read_text()) if record["mask"] is None]
    assert [Path(record["image"]).name for record in failures] == ["a\nb\x1b[31m.png", "s_2.png"]
    # what failed is all that is asked for again, by jq or so
    (images / "a\nb\x1b[31m.png").unlink()
    write_image(images / "s_2.png", np.zeros((24, 30, 3), np.uint8))
    ended = brainseg(*arguments, "--resume")
    assert ended.code == 0 and "3 of 3 masks" in ended.err and "2 unchanged" in ended.err
    assert [record.get("unchanged", False) for record in lines(ended.out)] == [True, False, True]
    assert [record["seconds"] is None for record in lines(ended.out)] == [True, False, True]
    assert not (out / "failures.jsonl").exists()


def test_nothing_but_bad_files_ends_in_1(brainseg: Program, run: Path, images: Path, tmp_path: Path) -> None:
    for path in images.iterdir():
        path.write_bytes(b"broken")
    ended = brainseg("predict", images, "-m", run, "-o", tmp_path / "out", "--device", "cpu")
    assert ended.code == 1 and len(ended.out.splitlines()) == 3 and "0 of 3 masks" in ended.err


def test_fail_fast_stops_at_the_first(brainseg: Program, run: Path, images: Path, tmp_path: Path) -> None:
    (images / "s_2.png").write_bytes(b"broken")
    arguments = ["predict", images, "-m", run, "-o", tmp_path / "out", "--device", "cpu", "--batch-size", "1"]
    ended = brainseg(*arguments, "--fail-fast")
    assert ended.code == 3 and [record["status"] for record in lines(ended.out)] == ["ok", "failed"]
    assert len(lines((tmp_path / "out" / "failures.jsonl").read_text())) == 1
    told = [record["mask"] for record in lines((tmp_path / "out" / "predictions.jsonl").read_text())]
    masks = [Path(mask).name for mask in told if mask is not None]  # s_10 was in work beside s_2, and may be done
    assert masks[0] == "s_1.png" and sorted(masks) == names(tmp_path / "out")
    ended = brainseg(*arguments[:-1], "1", "--resume", "--keep-going")
    assert ended.code == 3 and [record["status"] for record in lines(ended.out)] == ["ok", "failed", "ok"]


def test_nothing_is_written_over_unless_told(brainseg: Program, run: Path, images: Path, tmp_path: Path) -> None:
    arguments = ["predict", images / "s_1.png", "-m", run, "-o", tmp_path / "out", "--device", "cpu"]
    assert brainseg(*arguments).code == 0
    refused = brainseg(*arguments)
    assert (refused.code, refused.out) == (1, "") and "--overwrite" in refused.err and "--resume" in refused.err
    # other masks beside these would fit, but not their record
    arguments[1] = images / "s_2.png"
    before = tree(tmp_path / "out")
    refused = brainseg(*arguments)
    assert refused.code == 1 and "predictions.jsonl" in refused.err and tree(tmp_path / "out") == before
    refused = brainseg(*arguments, "--overwrite", "--resume")
    assert refused.code == 2 and "give one of them" in refused.err and tree(tmp_path / "out") == before
    assert brainseg(*arguments, "--overwrite").code == 0


def test_a_collision_is_refused_before_any_work(
    brainseg: Program, run: Path, images: Path, tmp_path: Path, rng: np.random.Generator
) -> None:
    write_image(images / "s_1.tif", rng.integers(0, 256, (24, 30, 3), dtype=np.uint8))
    ended = brainseg("predict", images, "-m", run, "-o", tmp_path / "out")
    assert (ended.code, ended.out) == (2, "") and "s_1.png" in ended.err and "s_1.tif" in ended.err
    ended = brainseg("predict", images, "-m", run, "-o", tmp_path / "out", "--name", "../{stem}")
    assert ended.code == 2 and "would leave the folder" in ended.err
    assert not (tmp_path / "out").exists()
    ended = brainseg("predict", images / "s_1.png", "-m", run, "-o", images, "--overwrite")
    assert ended.code == 2 and "is to be read" in ended.err
    ended = brainseg("predict", images, "-m", run, "-o", tmp_path / "out", "--name", "{name}", "--device", "cpu")
    assert ended.code == 0 and names(tmp_path / "out") == [
        f"s_{name}.png" for name in ("1.png", "1.tif", "10.png", "2.png")
    ]


def test_one_image_in_and_one_mask_out(
    piped: Callable[..., tuple[int, bytes, str]], run: Path, phantom: Path, tmp_path: Path
) -> None:
    image = phantom / patient_name(3) / f"{patient_name(3)}_3.tif"
    assert piped(b"", "predict", image, "-m", run, "-o", tmp_path / "out")[0] == 0
    filed = tmp_path / "out" / f"{patient_name(3)}_3.png"
    code, out, err = piped(image.read_bytes(), "predict", "-", "-m", run, "-o", "-", "-q")
    assert (code, err) == (0, "") and out == filed.read_bytes()
    code, out, _ = piped(b"", "predict", image, "-m", run, "-o", "-", "--format", "tiff", "-q")
    (tmp_path / "x.tif").write_bytes(out)
    assert code == 0 and (read_mask(tmp_path / "x.tif") == read_mask(filed)).all()
    assert read_about(tmp_path / "x.tif") == read_about(filed)
    code, out, _ = piped(image.read_bytes(), "predict", "-", "-m", run, "-o", tmp_path / "named", "--name", "{stem}_x")
    assert code == 0 and json.loads(out)["image"] == "-" and names(tmp_path / "named") == ["stdin_x.png"]
    for stdin, arguments, told, ends in (
        (b"", ["-"], "stdin: is empty", 1),
        (b"no image", ["-"], "cannot be decoded", 1),
        (b"", [phantom], "-o - is for one mask (there are 33 images)", 2),
        (b"", [image, "--json"], "would both go to stdout", 2),
        (image.read_bytes(), ["-", image], "stands alone", 2),
    ):
        code, out, err = piped(stdin, "predict", *arguments, "-m", run, "-o", "-")
        assert (code, out) == (ends, b"") and told in err
    code, out, err = piped(image.read_bytes(), "predict", "-", "-m", run, "-o", "-", terminal=True)
    assert (code, out) == (2, b"") and "stdout is a terminal" in err


def test_lists_of_names_that_are_no_text(
    piped: Callable[..., tuple[int, bytes, str]], run: Path, images: Path, tmp_path: Path
) -> None:
    odd = [b"\xff\xfe 1.png", "Åsa 患者\n2.png".encode()]
    for name in odd:
        (images / os.fsdecode(name)).write_bytes((images / "s_1.png").read_bytes())
    stdin = b"\0".join(os.fsencode(images) + b"/" + name for name in odd)
    arguments = ["predict", "--files0-from", "-", "-m", run, "-o", tmp_path / "out", "--relative-to", images]
    code, out, err = piped(stdin, *arguments)
    assert code == 0 and "2 of 2 masks" in err
    found = lines(out)
    assert [os.fsencode(Path(record["image"]).name) for record in found] == odd
    assert "患者" in out.decode()  # JSON is UTF-8, whatever the terminal's alphabet
    assert all(os.path.exists(record["mask"]) for record in found)  # noqa: PTH110
    code, _, err = piped(stdin, *arguments[:1], "--files-from", "-", *arguments[3:], "--resume")
    assert code == 1 and "is no list of a path a line" in err
    code, _, err = piped(b"", *arguments[:1], "--files0-from", "-", "-m", run, "-o", tmp_path / "none")
    assert code == 1 and "stdin: the list names no image" in err and not (tmp_path / "none").exists()


def test_the_summary(brainseg: Program, run: Path, phantom: Path, tmp_path: Path) -> None:
    folder = phantom / patient_name(3)
    ended = brainseg("predict", folder, "-m", run, "-o", tmp_path / "out", "--device", "cpu", "--json", "-q")
    told = json.loads(ended.out)
    recorded = lines((tmp_path / "out" / "predictions.jsonl").read_text())
    assert told["images"] == told["ok"] == 7 and told["failed"] == told["unchanged"] == 0
    assert told["with_tumour"] == sum(record["tumour"] for record in recorded)
    assert told["area_px"] == sum(record["area_px"] for record in recorded)
    assert told["predictions"] == str(tmp_path / "out" / "predictions.jsonl") and told["failures"] is None
    assert told["models"] == [str(run / "model")] and 0 < told["seconds"] < 60
    assert {record["provenance"]["runtime"] for record in recorded} == {told["runtime"]}
    (tmp_path / "broken.png").write_bytes(b"broken")
    ended = brainseg("predict", tmp_path / "broken.png", "-m", run, "-o", tmp_path / "no", "--device", "cpu", "--json")
    assert ended.code == 1 and json.loads(ended.out)["failures"] == str(tmp_path / "no" / "failures.jsonl")


def test_better_masks(brainseg: Program, run: Path, other_run: Path, phantom: Path, tmp_path: Path) -> None:
    folder = phantom / patient_name(3)
    for name, model in (("fold0", run), ("fold1", other_run)):
        (tmp_path / "kfold" / name).mkdir(parents=True)
        (tmp_path / "kfold" / name / "model").symlink_to(model / "model")
    options = [
        "--tta",
        "flips",
        "--largest-component",
        "--min-size",
        "4",
        "--fill-holes",
        "--volume",
        "--device",
        "cpu",
    ]
    spacing = ["--spacing", "0.5,2,5", "--probabilities", tmp_path / "maps", "--threshold", "0.5"]
    ended = brainseg("predict", folder, "-m", tmp_path / "kfold", "-o", tmp_path / "a", *options, *spacing)
    assert ended.code == 0 and len(names(tmp_path / "maps")) == 7
    both = brainseg(
        "predict", folder, "-m", run, "-m", other_run, "-o", tmp_path / "b", *options, *spacing[:2], *spacing[4:]
    )
    assert both.code == 0
    for one, other in zip(lines(ended.out), lines(both.out), strict=True):
        assert one["area_mm2"] == one["area_px"] * 1.0 and one["disagreement"] is not None
        assert {**one, "mask": 0, "seconds": 0} == {**other, "mask": 0, "seconds": 0}
        probs = read_probs(tmp_path / "maps" / Path(one["mask"]).name)
        assert round(float(probs.max()), 3) == pytest.approx(one["max_prob"], abs=1e-3)
    twice = brainseg("predict", folder, "-m", run, "-m", run / "model", "-o", tmp_path / "c", "--device", "cpu")
    assert twice.code == 2 and "the same model" in twice.err


def test_a_dry_run_loads_no_framework_and_writes_nothing(run: Path, phantom: Path, tmp_path: Path) -> None:
    code = "import sys; sys.argv = ['brainseg', *sys.argv[1:]]; from brainseg_cli.cli.app import main\n"
    code += "try:\n    main()\nfinally:\n    print(*sys.modules, file=sys.stderr)"
    arguments = ["predict", str(phantom), "-m", str(run), "-o", str(tmp_path / "out"), "--dry-run", "--volume"]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments, "--shard", "1/2"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0 and list(tmp_path.iterdir()) == []
    assert not {"torch", "segmentation_models_pytorch", "scipy", "pandas"} & set(done.stderr.split())
    planned = lines(done.stdout)
    assert 0 < len(planned) < 33 and {record["status"] for record in planned} == {"planned"}
    assert len({Path(record["image"]).parent for record in planned}) < 6  # patients are whole


def test_a_reader_that_leaves_ends_it_quietly(run: Path, phantom: Path, tmp_path: Path) -> None:
    command = 'find "$1" -name "*_?.tif" -print0 | "$0" -m brainseg_cli predict --files0-from - -m "$2" -o "$3"'
    command += ' --device cpu --batch-size 1 | head -1; echo "${PIPESTATUS[1]}"'
    done = subprocess.run(
        ["bash", "-c", command, sys.executable, str(phantom), str(run), str(tmp_path / "out")],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"PYTHONUNBUFFERED": ""},
    )
    line, code = done.stdout.splitlines()
    assert json.loads(line)["status"] == "ok"
    assert (code, done.stderr) == ("141", "")
    assert all(read_mask(path).shape == (40, 56) for path in (tmp_path / "out").rglob("*.png"))
    assert not [name for name in tree(tmp_path / "out") if name.endswith(".partial")]


def test_a_slow_producer_gets_each_record_before_it_sends_the_next_path(
    run: Path, phantom: Path, tmp_path: Path
) -> None:
    """And SIGTERM, while it is still writing, ends it at once, with what was done whole."""
    folder, out = phantom / patient_name(3), tmp_path / "out"
    # a test run started in the background inherits ignored signals
    command = [
        *MODULE,
        "predict",
        "--files-from",
        "-",
        "-m",
        run,
        "-o",
        out,
        "--relative-to",
        phantom,
        "--device",
        "cpu",
    ]
    with subprocess.Popen(
        list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as program:
        assert program.stdin and program.stdout and program.stderr
        for number in (2, 7, 1):
            program.stdin.write(f"{folder}/{folder.name}_{number}.tif\n")
            program.stdin.flush()
            record = json.loads(program.stdout.readline())
            assert record["slice_index"] == number and Path(record["mask"]).exists()
        started = time.monotonic()
        program.send_signal(signal.SIGTERM)
        assert program.wait(timeout=30) == 130 and time.monotonic() - started < 5
        (told,) = [line for line in program.stderr.read().splitlines() if line.startswith("error: ")]
        assert "interrupted: 3 of" in told and "--resume" in told
    assert len(lines((out / "predictions.jsonl").read_text())) == 3 == len(names(out))


def test_an_interrupt_says_how_to_go_on(
    brainseg: Program, run: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("brainseg_cli.predict.run.run", interrupt)
    arguments = ["predict", images / "s_1.png", "-m", run, "--device", "cpu", "-o"]
    ended = brainseg(*arguments, tmp_path / "out")
    told = f"error: interrupted: 0 of 1 masks are in {tmp_path}/out (the same command with --resume does the rest)\n"
    assert (ended.code, ended.out, ended.err) == (130, "", told)
    assert "with --resume instead of --overwrite" in brainseg(*arguments, tmp_path / "out", "--overwrite").err
    ended = brainseg(*arguments, "-")
    assert (ended.code, ended.err) == (130, "error: interrupted\n")  # nothing is kept


def test_a_stdout_that_is_closed_or_full(monkeypatch: pytest.MonkeyPatch) -> None:
    from brainseg_cli.cli.console import emit

    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(sys, "stdout", Full())
    with pytest.raises(OSError, match="stdout"):
        emit("x")
    monkeypatch.setattr(sys, "stdout", None)
    emit("x")
