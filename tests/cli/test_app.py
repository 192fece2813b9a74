"""The program as a whole: what help loads, how errors end, and what goes to which stream."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import brainseg_cli
from brainseg_cli.config import list_presets
from brainseg_cli.io.images import write_mask

HEAVY = (
    "torch",
    "torchvision",
    "albumentations",
    "pandas",
    "matplotlib",
    "segmentation_models_pytorch",
    "timm",
    "scipy",
    "jinja2",
    "numpy",
    "cv2",
    "PIL",
    "onnx",
    "onnxruntime",
    "openvino",
    "rich.progress",
    "rich.live",
)
CALL = "import sys; sys.argv = ['brainseg', *sys.argv[1:]]; from brainseg_cli.cli.app import main"


def python(*arguments: str, **options: Any) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=120, **options)


@pytest.mark.parametrize(
    "arguments", [["--help"], ["predict", "--help"], ["train", "-h"], ["eval", "-h"], ["--version"], ["info", "--json"]]
)
def test_what_needs_no_framework_loads_none(arguments: list[str]) -> None:
    code = f"{CALL}\ntry:\n    main()\nfinally:\n    print(*sys.modules, file=sys.stderr)"
    done = python("-c", code, *arguments)
    assert done.returncode == 0 and done.stdout
    loaded = set(done.stderr.splitlines()[-1].split())
    assert "brainseg_cli" in loaded and not loaded & set(HEAVY)


def test_measuring_masks_loads_no_deep_learning_framework(tmp_path: Path) -> None:
    code = "import sys, brainseg_cli.evaluate, brainseg_cli.overlay; print(*sys.modules)"
    loaded = set(python("-c", code).stdout.split())
    frameworks = {"torch", "segmentation_models_pytorch", "albumentations", "matplotlib"}
    assert "pandas" in loaded and not loaded & (frameworks - {"matplotlib"})
    write_mask(tmp_path / "masks" / "p" / "p_1.png", np.eye(5, dtype=np.uint8))
    code = f"{CALL}\ntry:\n    main()\nfinally:\n    print(*sys.modules, file=sys.stderr)"
    masks = str(tmp_path / "masks")
    done = python("-c", code, "eval", "--reference", masks, "--prediction", masks, "-o", str(tmp_path / "report"))
    assert done.returncode == 0 and not set(done.stderr.splitlines()[-1].split()) & frameworks


def test_the_module_and_the_installed_script_are_the_program() -> None:
    script = Path(sys.executable).with_name("brainseg")
    for command in ([sys.executable, "-m", "brainseg_cli"], [str(script)]):
        done = subprocess.run([*command, "--version"], capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stdout, done.stderr) == (0, f"brainseg {brainseg_cli.__version__}\n", "")


def test_help_names_every_verb_and_says_it_is_no_medical_device(brainseg: Callable[..., Any]) -> None:
    shown = brainseg("--help")
    assert shown.code == 0 and shown.err == ""
    for word in ("prepare", "train", "eval", "predict", "overlay", "info", "no medical device"):
        assert word in " ".join(shown.out.split())
    assert brainseg("-h").out == shown.out


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["segment"],
        ["predict"],
        ["predict", "x.png", "-m", "run", "--threshold", "1.5"],
        ["predict", "x.png", "-m", "run", "--format", "gif"],
        ["train", "--no-such-option"],
        ["train", "data", "--epochs", "many"],
        ["eval"],
        ["eval", "run", "--reference", "a", "--prediction", "b"],
        ["eval", "--reference", "a"],
        ["eval", "run", "--patients", "who.csv"],
        ["eval", "run", "--split", "holdout"],
        ["eval", "--reference", "a", "--prediction", "b", "--threshold", "1.4"],
        ["eval", "--reference", "a", "--prediction", "b", "--tolerance", "-1"],
        ["eval", "--reference", "a", "--prediction", "b", "--batch-size", "0"],
        ["eval", "run", "--fail-under", "dice=0.8"],
        ["overlay", "x.png"],
        ["train"],
        ["train", "data", "--demo"],
        ["train", "--resume"],
        ["train", "data", "--set", "train.epochs"],
        ["train", "data", "--set", "train.epoch=3"],
        ["train", "data", "--preset", "slow"],
        ["train", "data", "--loss", "mse"],
    ],
)
def test_a_request_that_makes_no_sense_ends_in_2(
    brainseg: Callable[..., Any], arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = brainseg(*arguments)
    assert ended.code == 2
    assert "Traceback" not in ended.err + ended.out
    if arguments:
        assert ended.out == "" and ended.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["eval", "nowhere", "--device", "cpu"], "error: nowhere: is no run"),
        (["eval", "lgg-small"], "error: lgg-small: is no run: it has no run.json (predict runs a model by itself"),
        (["train", "nowhere"], "error: nowhere: is no dataset"),
        (["predict", "nowhere.png", "-m", "run"], "error: nowhere.png: is not there"),
        (["overlay", "nowhere.png", "--masks", "masks"], "error: nowhere.png: is not there"),
        (["eval", "--reference", "nowhere", "--prediction", "nothing"], "error: nowhere: is not a folder"),
        (["train", "--resume", "-o", "nowhere"], "error: nowhere: is no run"),
    ],
)
def test_an_expected_failure_is_one_line_and_ends_in_1(
    brainseg: Callable[..., Any], arguments: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = brainseg(*arguments)
    assert (ended.code, ended.out) == (1, "")
    lines = [line for line in ended.err.splitlines() if line != "loading PyTorch"]
    assert len(lines) == 1 and lines[0].startswith(told)


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    nowhere = str(tmp_path / "nowhere")
    shown = [
        python("-m", "brainseg_cli", "--debug", "overlay", nowhere, "--masks", nowhere),
        python("-m", "brainseg_cli", "overlay", nowhere, "--masks", nowhere, env=os.environ | {"BRAINSEG_DEBUG": "1"}),
        python("-m", "brainseg_cli", "overlay", nowhere, "--masks", nowhere),
    ]
    assert [done.returncode for done in shown] == [1, 1, 1]
    assert ["Traceback" in done.stderr for done in shown] == [True, True, False]
    assert all("nowhere" in done.stderr for done in shown)


def test_a_fault_of_the_program_is_one_line_too(brainseg: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr("brainseg_cli.overlay.overlay", fail)
    ended = brainseg("overlay", "x.png", "--masks", "m")
    assert (ended.code, ended.out) == (1, "")
    (line,) = ended.err.splitlines()
    assert "fault of brainseg" in line and "ZeroDivisionError" in line and "--debug" in line
    with pytest.raises(ZeroDivisionError):
        brainseg("--debug", "overlay", "x.png", "--masks", "m")


def test_a_full_disk_is_one_line(brainseg: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device", "figures/x.png")

    monkeypatch.setattr("brainseg_cli.overlay.overlay", fail)
    ended = brainseg("overlay", "x.png", "--masks", "m")
    told = "error: figures/x.png: No space left on device (make room, then the same command again)\n"
    assert (ended.code, ended.err) == (1, told)


def test_an_interrupt_ends_in_130(brainseg: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("brainseg_cli.overlay.overlay", interrupt)
    ended = brainseg("overlay", "x.png", "--masks", "m")
    assert (ended.code, ended.out) == (130, "") and "error: interrupted" in ended.err
    assert "Traceback" not in ended.err


def test_an_interrupt_that_a_library_made_another_error_of_ends_in_130(
    brainseg: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:  # as an extension does that is interrupted while it is imported
        raise ImportError("initialization failed") from KeyboardInterrupt()

    monkeypatch.setattr("brainseg_cli.overlay.overlay", fail)
    ended = brainseg("overlay", "x.png", "--masks", "m")
    assert (ended.code, ended.out, ended.err) == (130, "", "error: interrupted\n")


def test_a_real_interrupt_ends_in_130(tmp_path: Path) -> None:
    code = f"{CALL}\nimport os, signal, brainseg_cli.overlay as o\n"
    # a test run started in the background inherits an ignored SIGINT
    code += "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    code += f"o.overlay = lambda *a, **k: os.kill(os.getpid(), {int(signal.SIGINT)})\nmain()"
    done = python("-c", code, "overlay", "x.png", "--masks", "m")
    assert done.returncode == 130 and "error: interrupted" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_before_the_program_is_loaded_ends_in_130_too(number: signal.Signals) -> None:
    code = f"""
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
class Interrupting:
    def find_spec(self, name, *_):
        if name == "brainseg_cli.cli.app":
            os.kill(os.getpid(), {int(number)})
sys.meta_path.insert(0, Interrupting())
from brainseg_cli.__main__ import main
main()
"""
    done = python("-c", code)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "error: interrupted\n")


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (["predict", "x.png", "-m", "m", "-o", ""], "--out"),
        (["predict", "x.png", "-m", "", "-o", "m"], "--model"),
        (["train", "d", "--out="], "--out"),
        (["predict", "x.png", "-m", "m", "-qo", ""], "--out"),
        (["prepare", "", "-o", "d"], "source"),
        (["eval", "--reference", "", "--prediction", "m"], "--reference"),
    ],
)
def test_an_empty_name_is_not_the_current_folder(
    arguments: list[str], option: str, brainseg: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = brainseg(*arguments)
    assert (ended.code, ended.out, ended.err) == (2, "", f"error: {option} is given an empty name\n")
    assert list(tmp_path.iterdir()) == []


def test_an_option_that_may_be_empty_is_not_taken_for_a_name(brainseg: Callable[..., Any], tmp_path: Path) -> None:
    ended = brainseg("eval", "--reference", str(tmp_path), "--prediction", str(tmp_path), "--reference-suffix", "")
    assert "empty name" not in ended.err and ended.code == 1


def test_a_bound_of_pixels_that_is_none_is_told_once(
    brainseg: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BRAINSEG_MAX_PIXELS", "many")
    ended = brainseg("predict", tmp_path)
    assert ended.code == 2 and ended.err.count("\n") == 1
    assert ended.err.startswith("error: BRAINSEG_MAX_PIXELS='many' is no number of pixels")


def test_a_bound_above_that_of_opencv_is_opencvs_too(tmp_path: Path) -> None:
    code = f"{CALL}\nimport os\ntry:\n    main()\nfinally:\n    print(os.environ['OPENCV_IO_MAX_IMAGE_PIXELS'])"
    known = {name: value for name, value in os.environ.items() if name != "OPENCV_IO_MAX_IMAGE_PIXELS"}
    for bound, told in (("2000000000", "2000000000"), ("100", str(1 << 30))):
        done = python("-c", code, "info", "--json", env=known | {"BRAINSEG_MAX_PIXELS": bound})
        assert done.stdout.splitlines()[-1] == told


def test_no_colour_without_a_terminal_or_with_no_color(tmp_path: Path) -> None:
    nowhere = str(tmp_path / "nowhere")
    for variables in ({}, {"NO_COLOR": "1", "FORCE_COLOR": "1", "TTY_COMPATIBLE": "1"}):
        done = python("-m", "brainseg_cli", "overlay", nowhere, "--masks", nowhere, env=os.environ | variables)
        coloured = [part for part in done.stderr.split("\x1b[")[1:] if part[0] == "3"]
        assert coloured == [] and "is not there" in done.stderr


def test_info(brainseg: Callable[..., Any]) -> None:
    ended = brainseg("info", "--json")
    info = json.loads(ended.out)
    assert (ended.code, ended.err) == (0, "")
    assert info["brainseg"] == brainseg_cli.__version__ and info["presets"] == list_presets()
    assert {"torch", "segmentation-models-pytorch", "albumentations"} <= set(info["versions"])
    assert "devices" not in info and "encoders" not in info
    more = json.loads(brainseg("info", "--json", "--devices", "--encoders").out)
    assert any(name.startswith("cpu") for name in more["devices"]) and "resnet34" in more["encoders"]
    plain = brainseg("info").out.splitlines()
    assert f"brainseg: {brainseg_cli.__version__}" in plain and any(line.startswith("presets: ") for line in plain)
