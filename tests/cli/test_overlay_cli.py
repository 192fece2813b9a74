"""brainseg overlay: paths to stdout, exit codes, pipes, and figures that show what they should."""

import json
import os
import pty
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brainseg_cli.figures.overlay import PREDICTION_COLOUR, REFERENCE_COLOUR
from brainseg_cli.io.images import read_image, write_image, write_mask

Program = Callable[..., Any]
COMMAND = [sys.executable, "-m", "brainseg_cli", "overlay"]


@pytest.fixture
def scene(tmp_path: Path, rng: np.random.Generator) -> Path:
    """Two images of 40 x 56 with masks and, beside them, references."""
    for number, left in ((2, 8), (10, 20)):
        image, mask = rng.integers(0, 80, (40, 56, 3), dtype=np.uint8), np.zeros((40, 56), np.uint8)
        mask[10:25, left : left + 14] = 1
        write_image(tmp_path / "in" / "p" / f"p_{number}.tif", image)
        write_mask(tmp_path / "in" / "p" / f"p_{number}_mask.tif", mask)
        write_mask(tmp_path / "masks" / "p" / f"p_{number}.png", np.roll(mask, 4, axis=1))
    return tmp_path


def holds(path: Path, colour: tuple[int, int, int]) -> bool:
    return bool((read_image(path) == colour).all(axis=-1).any())


def record(scene: Path, number: int, **more: Any) -> str:
    """A line of predict's."""
    told = {"image": f"{scene}/in/p/p_{number}.tif", "mask": f"{scene}/masks/p/p_{number}.png", "status": "ok"}
    return json.dumps(told | {"patient_id": "p", "slice_index": number} | more) + "\n"


@contextmanager
def start(
    scene: Path, *arguments: str, command: Sequence[str] = COMMAND, **options: Any
) -> Iterator["subprocess.Popen[bytes]"]:
    """The program at work, its pipes open; ended and cleared away whatever happens."""
    pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen([*command, *arguments], cwd=scene, bufsize=0, **(pipes | options)) as process:
        try:
            yield process
        finally:
            process.kill()


def await_line(stream: Any) -> bytes:
    """One line that comes within 20 seconds."""
    assert select.select([stream], [], [], 20)[0], "nothing came"
    line: bytes = stream.readline()
    return line


def test_the_figures_paths_in_a_persons_order(brainseg: Program, scene: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(scene)
    ended = brainseg("overlay", "in", "--masks", "masks")
    assert ended.code == 0
    figures = [Path(line) for line in ended.out.splitlines()]
    assert figures == [Path("figures/p/p_2.png"), Path("figures/p/p_10.png")]
    assert all(holds(path, PREDICTION_COLOUR) and not holds(path, REFERENCE_COLOUR) for path in figures)
    assert "2 figures in figures" in ended.err


def test_reference_and_channel(brainseg: Program, scene: Path) -> None:
    inputs = ["overlay", scene / "in", "--masks", scene / "masks", "--reference", scene / "in"]
    ended = brainseg(*inputs, "-o", scene / "out", "--channel", "1", "--json", "-q")
    result = json.loads(ended.out)
    assert (ended.code, ended.err, result["failures"]) == (0, "", [])
    for path in map(Path, result["figures"]):
        assert holds(path, PREDICTION_COLOUR) and holds(path, REFERENCE_COLOUR)
        assert read_image(path).shape[0] >= 40
    wrong = brainseg(*inputs, "-o", scene / "other", "--channel", "3")
    assert wrong.code == 2 and "channel" in wrong.err and wrong.out == ""


def test_every_option_of_the_look_reaches_the_figure(brainseg: Program, scene: Path) -> None:
    common = ["overlay", scene / "in", "--masks", scene / "masks", "--reference", scene / "in", "-q"]
    drawn = set()
    for number, options in enumerate(
        ([], ["--style", "fill"], ["--style", "fill", "--alpha", "0.9"], ["--style", "errors"], ["--zoom-to-lesion"],
         ["--no-label"], ["--channel", "0"])
    ):  # fmt: skip
        ended = brainseg(*common, *options, "-o", scene / f"out{number}")
        assert ended.code == 0, ended.err
        drawn.add((scene / f"out{number}" / "p" / "p_2.png").read_bytes())
    assert len(drawn) == 7
    ended = brainseg(*common, "--format", "svg", "--name", "{slice_index:03d}", "-o", scene / "svg")
    assert ended.out.splitlines() == [f"{scene}/svg/p/002.svg", f"{scene}/svg/p/010.svg"]
    assert "<text" in (scene / "svg/p/002.svg").read_text()
    wrong = brainseg(*common, "--alpha", "0", "--style", "fill", "-o", scene / "none")
    assert wrong.code == 2 and "alpha" in wrong.err


def test_a_patient_as_a_sheet_or_an_animation(brainseg: Program, scene: Path) -> None:
    common = ["overlay", scene / "in", "--masks", scene / "masks", "-o", scene / "out", "-q"]
    for option, name in (("--sheet", "p.png"), ("--gif", "p.gif")):
        ended = brainseg(*common, option)
        assert (ended.code, ended.out) == (0, f"{scene / 'out' / name}\n")
    both = brainseg(*common, "--sheet", "--gif")
    assert both.code == 2 and "one at a time" in both.err
    shares = [brainseg(*common, "--sheet", "--shard", f"{n}/3", "-o", scene / f"s{n}").out for n in (1, 2, 3)]
    assert sorted(map(bool, shares)) == [False, False, True]  # a patient is not torn


def test_only_some_slices(brainseg: Program, scene: Path) -> None:
    common = ["overlay", scene / "in", "--masks", scene / "masks", "-q"]
    write_mask(scene / "masks" / "p" / "p_2.png", np.zeros((40, 56), np.uint8))
    ended = brainseg(*common, "--only", "tumour", "-o", scene / "tumour")
    assert ended.out == f"{scene}/tumour/p/p_10.png\n"
    ended = brainseg(*common, "--only", "worst:1", "--reference", scene / "in", "-o", scene / "worst")
    assert ended.out == f"{scene}/worst/p/p_2.png\n"
    report = ["--reference", scene / "in", "--prediction", scene / "masks", "-o", scene / "report"]
    assert brainseg("eval", *report).code == 0
    ended = brainseg(*common, "--only", "best:1", "--report", scene / "report", "-o", scene / "best")
    assert ended.out == f"{scene}/best/p/p_10.png\n"
    for wrong, told in ((["--only", "finest"], "worst:20"), (["--report", scene / "report"], "--only")):
        ended = brainseg(*common, *wrong, "-o", scene / "none")
        assert ended.code == 2 and told in ended.err


def test_an_image_without_a_mask_is_named_and_the_rest_drawn(brainseg: Program, scene: Path) -> None:
    (scene / "masks" / "p" / "p_2.png").unlink()
    ended = brainseg("overlay", scene / "in", "--masks", scene / "masks", "-o", scene / "out")
    assert ended.code == 3 and ended.out == f"{scene / 'out' / 'p' / 'p_10.png'}\n"
    (told,) = [line for line in ended.err.splitlines() if line.startswith("error: ")]
    assert "p_2.tif" in told
    (scene / "masks" / "p" / "p_10.png").write_bytes(b"broken")
    ended = brainseg("overlay", scene / "in", "--masks", scene / "masks", "-o", scene / "none", "--json")
    assert ended.code == 1 and len(json.loads(ended.out)["failures"]) == 2


def test_fail_fast_draws_nothing_after_the_first_fault(brainseg: Program, scene: Path) -> None:
    (scene / "masks" / "p" / "p_2.png").unlink()
    ended = brainseg("overlay", scene / "in", "--masks", scene / "masks", "-o", scene / "out", "--fail-fast")
    assert (ended.code, ended.out) == (1, "") and "p_2.tif" in ended.err and not (scene / "out").exists()


def test_nothing_is_drawn_over_unless_told(brainseg: Program, scene: Path) -> None:
    arguments = ["overlay", scene / "in", "--masks", scene / "masks", "-o", scene / "out"]
    assert brainseg(*arguments).code == 0
    refused = brainseg(*arguments)
    assert (refused.code, refused.out) == (1, "") and "--overwrite" in refused.err
    assert brainseg(*arguments, "--overwrite").code == 0
    into_the_masks = ["overlay", scene / "in", "--masks", scene / "masks", "-o", scene / "masks", "--overwrite"]
    assert brainseg(*into_the_masks).code == 2


def test_a_dry_run_names_the_figures_and_writes_none(brainseg: Program, scene: Path) -> None:
    arguments = ["overlay", scene / "in", "--masks", scene / "masks", "-o", scene / "out"]
    ended = brainseg(*arguments, "--dry-run")
    assert ended.code == 0 and not (scene / "out").exists() and "would be in" in ended.err
    assert ended.out == brainseg(*arguments).out
    refused = brainseg(*arguments, "--dry-run")
    assert refused.code == 1 and "already there" in refused.err


def test_lists(brainseg: Program, scene: Path) -> None:
    (scene / "list").write_bytes(b"".join(os.fsencode(path) + b"\0" for path in sorted((scene / "in/p").iterdir())))
    common = ["overlay", "--masks", scene / "masks", "--files0-from", scene / "list", "--relative-to", scene / "in"]
    ended = brainseg(*common, "-o", scene / "out", "--exclude", "*_10.tif")
    assert ended.out == f"{scene}/out/p/p_2.png\n" and ended.code == 0
    assert "2 masks in the list were passed over" in ended.err
    twice = brainseg(*common, scene / "in")
    assert twice.code == 2 and "two ways" in twice.err


# --- pipes, with the real program


def test_records_are_drawn_as_they_come(scene: Path) -> None:
    with start(scene, "--from-jsonl", "-", "-o", "figs") as process:
        assert process.stdin and process.stdout and process.stderr
        inner = f"figs{scene}/in/p"
        process.stdin.write((record(scene, 10) + record(scene, 3, status="failed", mask=None)).encode())
        assert await_line(process.stdout).decode() == f"{inner}/p_10.png\n"  # while the producer is still at work
        assert (scene / inner / "p_10.png").exists()
        process.stdin.write(b"nonsense\n" + record(scene, 2).encode())
        assert await_line(process.stdout).decode() == f"{inner}/p_2.png\n"
        process.stdin.close()
        assert process.wait(20) == 3
        told = process.stderr.read().decode()
        assert "error: stdin, line 3: is no JSON" in told and "1 records without a mask were passed over" in told


def test_a_list_is_drawn_as_it_comes(scene: Path) -> None:
    with start(scene, "--files-from", "-", "--masks", "masks", "-o", "figs") as process:
        assert process.stdin and process.stdout
        for number in (10, 2):
            process.stdin.write(f"in/p/p_{number}.tif\n".encode())
            assert await_line(process.stdout).decode() == f"figs/in/p/p_{number}.png\n"
        process.stdin.close()
        assert process.wait(20) == 0


def test_one_image_in_one_figure_out(brainseg: Program, scene: Path) -> None:
    image = (scene / "in/p/p_2.tif").read_bytes()
    arguments = [*COMMAND, "-", "--masks", "masks/p/p_2.png", "-o", "-"]
    done = subprocess.run(arguments, input=image, capture_output=True, cwd=scene, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"") and done.stdout.startswith(b"\x89PNG")
    (scene / "one.png").write_bytes(done.stdout)
    assert holds(scene / "one.png", PREDICTION_COLOUR) and not (scene / "-").exists()
    several = brainseg("overlay", scene / "in", "--masks", scene / "masks", "-o", "-")
    assert several.code == 2 and "one figure" in several.err
    assert brainseg("overlay", scene / "in/p/p_2.tif", "--masks", scene / "masks", "-o", "-", "--json").code == 2


def test_a_terminal_is_no_place_for_a_figure(scene: Path) -> None:
    master, terminal = pty.openpty()
    with start(
        scene, "in/p/p_2.tif", "--masks", "masks", "-o", "-", stdout=terminal, stdin=subprocess.DEVNULL
    ) as process:
        os.close(terminal)
        assert process.stderr and process.wait(20) == 2
        assert b"stdout is a terminal" in process.stderr.read()
        os.close(master)


def test_whoever_closes_the_pipe_ends_it_quietly(scene: Path) -> None:
    with start(scene, "--from-jsonl", "-", "-o", "figs") as process:
        assert process.stdin and process.stdout and process.stderr
        process.stdin.write(record(scene, 10).encode())
        await_line(process.stdout)
        process.stdout.close()
        process.stdin.write(record(scene, 2).encode())  # and the list stays open
        assert process.wait(20) == 141
        assert process.stderr.read() == b""
        process.stdin.close()


def test_an_interrupt_leaves_whole_figures_and_says_how_to_go_on(scene: Path) -> None:
    # a test run started in the background inherits an ignored SIGINT
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    code += "from brainseg_cli.cli.app import main; main()"
    command = [sys.executable, "-c", code, "overlay"]
    with start(scene, "--from-jsonl", "-", "-o", "figs", command=command) as process:
        assert process.stdin and process.stdout and process.stderr
        process.stdin.write(record(scene, 10).encode())
        await_line(process.stdout)
        process.send_signal(signal.SIGINT)  # while it waits for the next line
        assert process.wait(20) == 130
        told = process.stderr.read().decode()
        assert told.splitlines()[-1].startswith("error: interrupted: 1 figures are in figs") and "--overwrite" in told
        assert "Fatal" not in told and "Traceback" not in told
        assert [path.name for path in (scene / "figs").rglob("*") if path.is_file()] == ["p_10.png"]
        process.stdin.close()


def test_no_deep_learning_framework_is_loaded(scene: Path) -> None:
    code = "import sys\nfrom brainseg_cli.cli.app import main\ntry:\n    main()\nfinally:\n    print(*sys.modules)"
    arguments = ["overlay", "in", "--masks", "masks", "--reference", "in", "--only", "worst:1", "-o", "out"]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=scene, timeout=60
    )
    assert done.returncode == 0 and done.stdout.startswith("out/p/p_2.png")
    assert not {"torch", "segmentation_models_pytorch", "albumentations", "pandas"} & set(done.stdout.split())
