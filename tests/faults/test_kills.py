"""Commands killed at random moments, and begun again: no result is ever half there, and nothing is left over."""

import random
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from killing import hash_tree, kill_and_repeat
from predicting import make, segment

from brainseg_cli.data.phantom import patient_name

Program = Callable[..., Any]


def draw_signals(count: int) -> list[int]:
    """SIGKILL mostly, SIGTERM and SIGINT."""
    return random.Random(count).choices((signal.SIGKILL, signal.SIGTERM, signal.SIGINT), (3, 2, 1), k=count)


def check_ends(ends: Sequence[dict[str, Any]], signals: Sequence[int]) -> None:
    """Never a traceback; who is asked to leave says one line, unless it was asked before it could listen."""
    for number, end in zip(signals, ends, strict=True):
        assert "Traceback" not in end["told"], end["told"]
        said = [line for line in end["told"].splitlines() if line.startswith("error: ")]
        assert end["code"] in {0: (0,), 9: (-9, 0)}.get(number, (130, 0, -number)), end
        assert len(said) == (end["code"] == 130), end["told"]


@pytest.mark.parametrize("count", [6, pytest.param(25, marks=pytest.mark.slow)])
def test_prepare(phantom: Path, tmp_path: Path, count: int) -> None:
    """Two datasets in turns, each in the place of the other: one of them stands there, whole, at every moment."""
    signals = [0, 0, *draw_signals(count), 0]
    root = tmp_path / "root"
    commands = [
        ("prepare", phantom, "-o", root / "out", "--seed", number % 2, "--overwrite", "-q")
        for number in range(len(signals))
    ]
    ends = kill_and_repeat(root, signals, commands)
    check_ends(ends, signals)
    whole = [end["files"] for end in ends[:2]]
    assert whole[0] != whole[1] and len(whole[0]) == 4
    for end in ends:
        assert {name: found for name, found in end["files"].items() if name.startswith("out/")} in whole
    assert ends[-1]["files"] == whole[(len(signals) - 1) % 2]
    assert sum(end["code"] != 0 for end in ends) >= count // 2  # else there was nothing in the middle to be killed in


@pytest.mark.parametrize("count", [4, pytest.param(25, marks=pytest.mark.slow)])
def test_prepare_where_nothing_was(phantom: Path, tmp_path: Path, count: int) -> None:
    """Half a dataset is never there under its name."""
    signals = [0, *draw_signals(count), 0]
    root = tmp_path / "root"
    commands = [("prepare", phantom, "-o", root / "0", "-q")]
    commands += [("prepare", phantom, "-o", root / "up" / "out", "-q", "--overwrite")] * (count + 1)
    ends = kill_and_repeat(root, signals, commands)
    check_ends(ends, signals)
    whole = {name.removeprefix("0/"): found for name, found in ends[0]["files"].items()}
    for end in ends[1:]:
        found = {name.removeprefix("up/out/"): it for name, it in end["files"].items() if name.startswith("up/out/")}
        assert found in ({}, whole)
    assert ends[-1]["files"] == ends[0]["files"] | {f"up/out/{name}": it for name, it in whole.items()}


@pytest.mark.parametrize("count", [4, pytest.param(25, marks=pytest.mark.slow)])
@pytest.mark.parametrize("verb", ["eval", "overlay", "export"])
def test_reports_figures_and_exports(run: Path, phantom: Path, tmp_path: Path, verb: str, count: int) -> None:
    """Every file that stands is whole, and the same command without a signal leaves what it always does."""
    if verb == "export" and count < 25:
        pytest.skip("each takes seconds: among the slow ones")
    masks, patient, root = tmp_path / "masks", phantom / patient_name(3), tmp_path / "root"
    segment(make(run, masks, patient))
    arguments: tuple[object, ...] = {
        "eval": ("eval", "--reference", patient, "--prediction", masks),
        "overlay": ("overlay", patient, "--masks", masks),
        "export": ("export", run, "--format", "openvino"),
    }[verb]
    out = root / ("model.xml" if verb == "export" else "out")
    signals = [0, *draw_signals(count), 0]
    ends = kill_and_repeat(root, signals, [(*arguments, "-o", out, "-q", "--overwrite")] * len(signals))
    check_ends(ends, signals)
    whole = ends[0]["files"]
    for end in ends:
        assert {name: found for name, found in end["files"].items() if "/." not in f"/{name}"}.items() <= whole.items()
    assert ends[-1]["files"] == whole


ASKED = {
    "prepare": "brainseg_cli.prepare.summarise_splits",
    "eval": "brainseg_cli.report.html.render_html",
    "overlay": "brainseg_cli.overlay.run.Drawing._finish",
    "export": "brainseg_cli.models.export.describe_export",
}
"""What is asked to leave in the middle of its work, each command once something was begun aside."""


@pytest.mark.parametrize("verb", list(ASKED))
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_who_is_asked_to_leave_says_one_line_and_leaves_nothing(
    brainseg: Program,
    run: Path,
    phantom: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    verb: str,
    number: int,
) -> None:
    patient = phantom / patient_name(3)
    out = tmp_path / "root" / "up" / "out"
    arguments: tuple[object, ...] = {
        "prepare": (phantom, "-o", out),
        "eval": ("--reference", patient, "--prediction", patient, "-o", out),
        "overlay": (patient, "--masks", patient, "-o", out),
        "export": (run, "-o", out / "model.onnx"),
    }[verb]

    def leave(*_: object, **__: object) -> None:
        signal.raise_signal(number)

    monkeypatch.setattr(ASKED[verb] if verb != "eval" else "brainseg_cli.evaluate.conclusion.render_html", leave)
    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        ended = brainseg(verb, *arguments, "-q")
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
    told = [line for line in ended.err.splitlines() if not line.startswith("warning: ")]
    assert (ended.code, ended.out) == (130, "") and len(told) == 1 and told[0].startswith("error: interrupted"), ended
    assert not (tmp_path / "root").exists()


HOLDER = "import sys\nfrom pathlib import Path\nfrom brainseg_cli.io.locks import lock\n"
HOLDER += "with lock(Path(sys.argv[1]), 'train'):\n    print('held', flush=True)\n    sys.stdin.read()\n"


@pytest.mark.parametrize("verb", ["prepare", "train", "predict", "eval", "overlay", "export"])
def test_of_two_commands_that_write_one_output_the_second_is_refused(
    brainseg: Program, run: Path, phantom: Path, dataset: Path, tmp_path: Path, verb: str
) -> None:
    patient, out = phantom / patient_name(3), tmp_path / "out"
    target = out / "model.onnx" if verb == "export" else out
    arguments: tuple[object, ...] = {
        "prepare": (phantom, "-o", out),
        "train": (dataset, "-o", out, "--preset", "fast", "--device", "cpu"),
        "predict": (patient, "-m", run, "-o", tmp_path / "masks", "--probabilities", out, "--device", "cpu"),
        "eval": ("--reference", patient, "--prediction", patient, "-o", out),
        "overlay": (patient, "--masks", patient, "-o", out),
        "export": (run, "-o", target),
    }[verb]
    command = [sys.executable, "-c", HOLDER, str(target)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        before = hash_tree(tmp_path)
        ended = brainseg(verb, *arguments, "-q")
        told = [line for line in ended.err.splitlines() if not line.startswith("warning: ")]
        assert (ended.code, ended.out, len(told)) == (1, "", 1), ended
        assert f"{target}: is being written by brainseg train since" in told[0] and f"process {other.pid} on" in told[0]
        assert hash_tree(tmp_path) == before
        other.kill()
    if verb not in ("train", "export"):  # a crash holds nobody up
        assert brainseg(verb, *arguments, "-q").code == 0
        assert not list(tmp_path.rglob(".*"))
