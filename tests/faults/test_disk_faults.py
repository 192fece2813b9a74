"""Every command on a disk that gives out in the middle: one line, exit code 1, what was there whole; then it works."""

import errno
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from predicting import make, segment, tree

from brainseg_cli.data.phantom import patient_name
from brainseg_cli.models.bundle import load_bundle

Program = Callable[..., Any]
ENOUGH = 200
"""Of operations: no command here has as many."""


@dataclass(frozen=True)
class Command:
    """A command line that writes below `out`, and the one that goes on where it stopped."""

    arguments: tuple[object, ...]
    again: tuple[object, ...]


@pytest.fixture(scope="module")
def masks(run: Path, phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Predicted masks of one patient."""
    folder = tmp_path_factory.mktemp("masks") / "masks"
    segment(make(run, folder, phantom / patient_name(3)))
    return folder


@pytest.fixture
def commands(
    run: Path, phantom: Path, dataset: Path, masks: Path, tiny_settings: dict[str, Any]
) -> Callable[[str, Path], Command]:
    """`commands("predict", disk)`."""
    settings = [f"--set={key}={list(v) if isinstance(v, tuple) else v}" for key, v in tiny_settings.items()]
    patient = phantom / patient_name(3)

    def build(verb: str, disk: Path) -> Command:
        out = disk / "out"
        plain: dict[str, tuple[object, ...]] = {
            "prepare": (phantom, "-o", out),
            "train": (dataset, "-o", out, "--preset", "fast", *settings, "--epochs", 2, "--device", "cpu"),
            "predict": (patient, "-m", run, "-o", out, "--probabilities", disk / "maps", "--device", "cpu"),
            "eval": ("--reference", patient, "--prediction", masks, "-o", out),
            "overlay": (patient, "--masks", masks, "-o", out),
            "export": (run, "-o", out / "model.onnx"),
        }
        arguments = (verb, *plain[verb], "-q")
        then = {"predict": (*arguments, "--resume"), "overlay": (*arguments, "--overwrite")}
        return Command(arguments, then.get(verb, arguments))

    return build


def check_told(ended: Any, number: int, disk: Path) -> str:
    """One line on stderr that says what, where and what to do."""
    told = [line for line in ended.err.splitlines() if line.strip() and not line.startswith("warning: ")]
    assert ended.code == 1 and len(told) == 1, ended
    assert told[0].startswith("error: ") and os.strerror(number) in told[0] and str(disk) in told[0], told
    assert ", then " in told[0] and ".partial" not in told[0], told
    return str(told[0])


def hidden(folder: Path) -> list[str]:
    """What is neither a result nor was there before: written aside, or a lock."""
    return sorted(str(path) for path in folder.rglob(".*"))


def same(folder: Path) -> dict[str, bytes]:
    """What comes out the same each time. A run's timings and log tell times, its report's page too."""
    told = tree(folder)
    timed = ("timings.csv", "train.log", "run.json", ".html", "summary.json", ".md", ".png", ".pt", ".onnx")
    if "out/run.json" in told:
        return {name: content for name, content in told.items() if not name.endswith(timed)}
    return {name: content.replace(os.fsencode(folder), b"") for name, content in told.items() if ".onnx" not in name}


STEPS = {"prepare": 1, "train": 9, "predict": 3, "eval": 1, "overlay": 2, "export": 4}
"""Each operation of the command fails once, or each of so many; in the plain suite every eighth of these."""


@pytest.mark.parametrize("verb", list(STEPS))
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("apart", [8, pytest.param(1, marks=pytest.mark.slow)])
def test_whichever_write_fails(
    brainseg: Program,
    commands: Any,
    failing_disk: Any,
    tmp_path: Path,
    verb: str,
    number: int,
    apart: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A disk that is full takes no new file; one that is broken does not rename or remove either."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    whole = tmp_path / "whole"
    with failing_disk(whole, ENOUGH, number, names_too=number == errno.EIO) as disk:
        assert brainseg(*commands(verb, whole).arguments).code == 0
    total = disk.done
    assert 3 < total < ENOUGH and hidden(whole) == []
    for first in range(1 + number % STEPS[verb], total + 1, apart * STEPS[verb]):
        place = tmp_path / f"{first}"
        command = commands(verb, place)
        with failing_disk(place, first, number, names_too=number == errno.EIO) as disk:
            ended = brainseg(*command.arguments)
        if disk.done < first:  # the copy for a CPU, kept elsewhere when it had no place here, is not made again
            assert ended.code == 0
            break
        if ended.code == 0:  # all that failed was to tidy up: a lock's file is what may be left
            assert number == errno.EIO and all(name.endswith(".lock") for name in hidden(place))
            for name in hidden(place):
                Path(name).unlink()
        else:
            told = check_told(ended, number, place)
            if number == errno.ENOSPC:
                assert hidden(place) == []
            if verb == "train" and (place / "out" / "state" / "last.pt").exists():
                assert f"brainseg train --resume -o {place / 'out'}" in told
                if number == errno.ENOSPC:  # a broken disk may stop between a bundle's names
                    load_bundle(place / "out")
            go_on = ("train", "--resume", "-o", place / "out", "-q", "--device", "cpu")
            ended = brainseg(*(go_on if "--resume -o" in told else command.again))
            if number == errno.EIO and "--overwrite replaces it" in ended.err:  # it stopped between two of its files
                ended = brainseg(*command.again, "--overwrite")
            assert ended.code == 0, (first, told, ended.err)
            if verb == "train":
                load_bundle(place / "out")
        assert same(place) == same(whole), first
        shutil.rmtree(place)


FULL = {"prepare": "100k", "train": "400k", "eval": "40k", "overlay": "40k", "export": "100k"}
"""Of a disk: room to begin, and not to end. predict has tests of its own."""


@pytest.mark.parametrize("verb", list(FULL))
def test_a_disk_that_is_full_and_then_is_not(
    verb: str, brainseg: Program, commands: Any, small_disk: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:  # fmt: skip
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    disk = small_disk(f"size={FULL[verb]}")
    command = commands(verb, disk)
    ended = brainseg(*command.arguments)
    told = check_told(ended, errno.ENOSPC, disk)
    assert hidden(disk) == []
    subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True, timeout=30)
    go_on = ("train", "--resume", "-o", disk / "out", "-q", "--device", "cpu")
    ended = brainseg(*(go_on if "--resume -o" in told else command.again))
    assert ended.code == 0, (told, ended.err)
    assert hidden(disk) == []


@pytest.mark.parametrize("verb", list(FULL))
def test_a_disk_that_is_read_only_keeps_what_it_has(
    verb: str, brainseg: Program, commands: Any, small_disk: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:  # fmt: skip
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    disk = small_disk("size=64m")
    command = commands(verb, disk)
    assert brainseg(*command.arguments).code == 0
    before = tree(disk)
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True, timeout=30)
    check_told(brainseg(*command.arguments, "--overwrite"), errno.EROFS, disk)
    assert tree(disk) == before
