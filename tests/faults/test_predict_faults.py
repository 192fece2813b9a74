"""predict where the world goes wrong in the middle: it is killed, interrupted, the disk is full or read-only."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from predicting import names, tree

from brainseg_cli.data.phantom import patient_name
from brainseg_cli.io.images import read_mask

Program = Callable[..., Any]

DRIVER = '''
"""Runs `brainseg predict ...` again and again, each in a process of its own, PyTorch loaded once for all of them, and
sends each a signal at a random moment: argv is out, the signals ("0" lets it end), and the program's arguments."""
import json, os, random, signal, sys, time
from pathlib import Path
import brainseg_cli.predict.run as pipeline
from brainseg_cli.cli.app import main

write = pipeline.write_bytes

def write_slowly(*given):  # so that there is a middle to be killed in, however busy the machine is
    time.sleep(0.01)
    write(*given)

pipeline.write_bytes = write_slowly
signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run in the background has it ignored
moments = random.Random(20240229)
out, signals, arguments = Path(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3:]
for number in signals:
    before = len(list(out.rglob("*.png")))
    child = os.fork()
    if not child:
        os.dup2(os.open(f"{out}.out", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
        os.dup2(os.open(f"{out}.err", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
        sys.argv = ["brainseg", "predict", *arguments, *(["--resume"] if out.exists() else [])]
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code or 0
        sys.stdout.flush()
        os._exit(code)
    ended = 0
    if number:
        wanted = before + moments.randint(1, 3)
        while len(list(out.rglob("*.png"))) < wanted and not (ended := os.waitpid(child, os.WNOHANG)[0]):
            time.sleep(0.0005)
        time.sleep(moments.uniform(0, 0.004))
        if not ended:
            os.kill(child, number)
    status = os.waitpid(child, 0)[1] if not ended else 0
    masks = {path.relative_to(out).as_posix(): path.read_bytes().hex() for path in out.rglob("*.png")}
    told = Path(f"{out}.err").read_text()
    print(json.dumps({"code": os.waitstatus_to_exitcode(status), "masks": masks, "told": told}), flush=True)
'''


def drive(out: Path, signals: list[int], *arguments: object) -> list[dict[str, Any]]:
    """How each ended, which masks (and their bytes) stood then, and what it said."""
    command = [sys.executable, "-c", DRIVER, str(out), json.dumps(signals), *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def undisturbed(run: Path, phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The tree of one run to the end, in a folder called `out`, and `maps` beside it."""
    from predicting import make, segment

    folder = tmp_path_factory.mktemp("undisturbed")
    segment(make(run, folder / "out", phantom, maps=folder / "maps", probabilities="png"), runtime="auto")
    return {name: content.replace(os.fsencode(folder), b"") for name, content in tree(folder).items()}


def test_killed_at_random_moments_and_resumed_it_ends_the_same(
    run: Path, phantom: Path, tmp_path: Path, undisturbed: dict[str, bytes]
) -> None:
    """SIGKILL, SIGINT and SIGTERM: at no moment a file that is half written, in the end the same bytes."""
    out = tmp_path / "out"
    signals = [9, 9, 2, 9, 15, 9, 9, 2, 9, 9, 0]
    options = ["--probabilities", tmp_path / "maps", "--device", "cpu", "--batch-size", "2"]
    ends = drive(out, signals, phantom, "-m", run, "-o", out, *options)
    whole = {
        name.removeprefix("out/"): content.hex() for name, content in undisturbed.items() if name.startswith("out/")
    }
    for end in ends:
        assert {name: content for name, content in end["masks"].items() if whole[name] != content} == {}
    amounts = [len(end["masks"]) for end in ends]
    assert amounts == sorted(amounts) and amounts[-1] == 33
    assert sum(0 < amount < 33 for amount in amounts) >= 5  # else there was nothing in the middle to be killed in
    for number, end in zip(signals, ends, strict=True):
        if number in (2, 15) and end["code"]:
            assert end["code"] == 130 and "the same command with --resume does the rest" in end["told"]
            assert end["told"].count("error: ") == 1 and "Traceback" not in end["told"]
        elif number:
            assert end["code"] in (-9, 0)
    assert ends[-1]["code"] == 0
    for left in ("out.out", "out.err"):
        (tmp_path / left).unlink()
    left = {name: content.replace(os.fsencode(tmp_path), b"") for name, content in tree(tmp_path).items()}
    assert left == undisturbed  # hidden files too: nothing is left over


def test_a_full_disk_ends_it_with_whole_files_and_it_goes_on_from_there(
    brainseg: Program, run: Path, phantom: Path, tmp_path: Path, small_disk: Callable[[str], Path]
) -> None:
    disk = small_disk("size=80k")
    arguments = ["predict", phantom, "-m", run, "-o", disk / "out", "--device", "cpu"]
    ended = brainseg(*arguments)
    assert ended.code == 1
    (told,) = [line for line in ended.err.splitlines() if line.startswith("error: ")]
    assert str(disk / "out") in told and "No space left on device" in told and "--resume" in told
    left = names(disk / "out")
    assert 0 < len(left) < 33 and not [name for name in left if name.endswith(".partial")]
    assert all(read_mask(disk / "out" / name).shape == (40, 56) for name in left)
    for line in (disk / "out" / "predictions.jsonl").read_text().splitlines():
        assert json.loads(line)["status"] == "ok"
    subprocess.run(["mount", "-o", "remount,size=2m", str(disk)], check=True, timeout=30)
    ended = brainseg(*arguments, "--resume")
    assert ended.code == 0 and f"{len(left)} unchanged" in ended.err and len(names(disk / "out")) == 33


def test_a_disk_that_cannot_be_written_is_said_and_nothing_done(
    brainseg: Program, run: Path, phantom: Path, small_disk: Callable[[str], Path]
) -> None:
    disk = small_disk("size=200k")
    arguments = ["predict", phantom / patient_name(3), "-m", run, "--device", "cpu"]
    assert brainseg(*arguments, "-o", disk / "out").code == 0
    before = tree(disk)
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True, timeout=30)
    for out, more in ((disk / "new", []), (disk / "out", ["--overwrite"])):
        ended = brainseg(*arguments, "-o", out, *more)
        assert (ended.code, ended.out) == (1, "")
        (told,) = [line for line in ended.err.splitlines() if line.startswith("error: ")]
        assert str(out) in told and "Read-only file system" in told
    assert tree(disk) == before


def test_an_output_that_is_a_file_and_inputs_that_cannot_be_read(
    brainseg: Program, run: Path, phantom: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("mine")
    image = phantom / patient_name(3) / f"{patient_name(3)}_3.tif"
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        ended = brainseg("predict", image, "-m", run, "-o", out, "--device", "cpu")
        assert ended.code == 1 and str(tmp_path / "file") in ended.err and "Traceback" not in ended.err
    assert (tmp_path / "file").read_text() == "mine"
    (tmp_path / "in" / "folder.png").mkdir(parents=True)
    (tmp_path / "in" / "gone.png").symlink_to("nowhere.png")
    (tmp_path / "in" / "whole.tif").hardlink_to(image)
    (tmp_path / "in" / "closed.png").write_bytes(image.read_bytes())
    (tmp_path / "in" / "closed.png").chmod(0)
    (tmp_path / "list").write_text("\n".join(str(path) for path in sorted((tmp_path / "in").iterdir())))
    ended = brainseg(
        "predict", "--files-from", tmp_path / "list", "-m", run, "-o", tmp_path / "out", "--device", "cpu",
        "--relative-to", tmp_path / "in",
    )  # fmt: skip
    told = {Path(record["image"]).name: record for record in map(json.loads, ended.out.splitlines())}
    assert ended.code == 3
    assert "is a folder, not a file" in told["folder.png"]["error"]
    assert "is not there" in told["gone.png"]["error"] and told["whole.tif"]["status"] == "ok"
    if os.geteuid():  # nothing is closed to root
        assert "cannot be read: Permission denied" in told["closed.png"]["error"]
