"""brainseg export: the path on stdout, the rest on stderr, and a file that predict takes."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundle_sample import name_fastest

from brainseg_cli.errors import EXIT_FAILED, EXIT_GATE, EXIT_USAGE
from brainseg_cli.io.images import read_mask
from brainseg_cli.models import export as forms

ALONE = """
import sys
reached = []
sys.addaudithook(lambda name, _: reached.append(name) if name.startswith(("socket.", "os.fork")) else None)
from brainseg_cli.cli.app import main
sys.argv = ["brainseg", "export", sys.argv[1], "-o", sys.argv[2], "-q"]
try:
    main()
finally:
    sys.stderr.write(" ".join(reached))
"""


@pytest.fixture(scope="module")
def alone(run: Path, tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    """The run as ONNX, by a program of its own; made once: that takes seconds."""
    target = tmp_path_factory.mktemp("alone") / "m.onnx"
    return subprocess.run([sys.executable, "-c", ALONE, run, target], capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def graph(alone: subprocess.CompletedProcess[str]) -> Path:
    return Path(alone.stdout.strip())


@pytest.fixture(autouse=True)
def copying(graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forms, "export_onnx", lambda _, target: shutil.copyfile(graph, target))


def test_no_library_that_takes_part_says_anything_or_reaches_anybody(
    alone: subprocess.CompletedProcess[str], graph: Path
) -> None:
    """Exporters print, log and warn; OpenVINO reports home where it is imported whole."""
    assert (alone.returncode, alone.stderr) == (0, "")
    assert alone.stdout == f"{graph}\n" and [path.name for path in graph.parent.iterdir()] == ["m.onnx"]


def test_the_path_is_on_stdout_and_predict_takes_the_file(
    brainseg: Callable[..., Any], run: Path, phantom: Path, tmp_path: Path
) -> None:
    done = brainseg("export", run, "-o", tmp_path / "m.xml")
    assert done.code == 0, done.err
    assert done.out == f"{tmp_path / 'm.xml'}\n"
    assert "openvino fp32 cpu: within" in done.err and "MB" in done.err
    image = sorted(phantom.rglob("*_1.tif"))[0]
    for number, model in enumerate((tmp_path / "m.xml", run)):
        found = brainseg("predict", image, "-m", model, "-o", tmp_path / f"masks{number}", "--runtime", "auto")
        assert found.code == 0, found.err
    masks = [read_mask(next((tmp_path / f"masks{number}").rglob("*_1.png"))) for number in (0, 1)]
    np.testing.assert_array_equal(*masks)
    record = json.loads((tmp_path / "masks0" / "predictions.jsonl").read_text())
    assert record["provenance"]["runtime"] == name_fastest()


def test_json_is_one_object_and_val_is_measured(
    brainseg: Callable[..., Any], run: Path, dataset: Path, tmp_path: Path
) -> None:
    done = brainseg("export", run, "-o", tmp_path, "--data", dataset, "--json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert told["path"] == str(tmp_path / "run.onnx") and Path(told["path"]).is_file()
    assert (told["format"], told["precision"], told["met"], told["notes"]) == ("onnx", "fp32", True, [])
    assert set(told["parity"]) == {"openvino fp32 cpu", "onnx fp32 cpu"}
    assert set(told["val"]) == {"runtime", "slices", "parity", "torch", "exported", "loss"}
    assert told["size_bytes"] == Path(told["path"]).stat().st_size
    assert "dice_patient" in done.err and "val, openvino fp32 cpu: 8 slices" in done.err


def test_quiet_is_quiet(brainseg: Callable[..., Any], run: Path, tmp_path: Path) -> None:
    done = brainseg("export", run, "-o", tmp_path / "m.onnx", "-q")
    assert (done.code, done.out, done.err) == (0, f"{tmp_path / 'm.onnx'}\n", "")


@pytest.mark.parametrize("as_json", [False, True])
def test_int8_that_costs_too_much_ends_with_the_code_of_a_gate(
    as_json: bool, brainseg: Callable[..., Any], run: Path, dataset: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("brainseg_cli.export.MAX_LOSS", -1.0)
    done = brainseg(
        "export", run, "-o", tmp_path / "m.onnx", "--int8", "--data", dataset, *["--json"] * as_json
    )  # fmt: skip
    assert done.code == EXIT_GATE
    assert "int8 costs" in done.err and "of dice_patient" in done.err and "nothing was written" in done.err
    assert list(tmp_path.iterdir()) == []
    assert json.loads(done.out)["path"] is None if as_json else done.out == ""


def test_what_does_not_agree_ends_with_1_and_leaves_nothing(
    brainseg: Callable[..., Any], other_run: Path, tmp_path: Path
) -> None:
    done = brainseg("export", other_run, "-o", tmp_path / "m.onnx")  # gets the graph of another network
    assert done.code == EXIT_FAILED and done.out == ""
    assert "differs from PyTorch by up to" in done.err and done.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_bad_input_is_one_line_and_the_documented_code(
    brainseg: Callable[..., Any], run: Path, dataset: Path, graph: Path, tmp_path: Path
) -> None:
    (tmp_path / "there.onnx").touch()
    target = tmp_path / "m.onnx"
    for code, told, arguments in [
        (EXIT_FAILED, "holds no model", (tmp_path / "gone", "-o", target)),
        (EXIT_FAILED, "is already there", (run, "-o", tmp_path / "there.onnx")),
        (EXIT_FAILED, "is no dataset", (run, "-o", target, "--data", tmp_path)),
        (EXIT_USAGE, "is an exported file", (graph, "-o", target)),
        (EXIT_USAGE, "ends in .pt2", (run, "-o", target, "--format", "torch")),
        (EXIT_USAGE, "--data DATASET", (run, "-o", target, "--int8")),
        (
            EXIT_USAGE,
            "not for torchscript",
            (run, "-o", tmp_path, "--format", "torchscript", "--int8", "--data", dataset),
        ),
    ]:
        done = brainseg("export", *arguments)
        assert done.code == code and done.out == "", done.err
        assert told in done.err and done.err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["there.onnx"]
    assert brainseg("export", run).code == EXIT_USAGE  # -o is not guessed
