"""The command line with options and values at random: a documented exit code, and never a traceback or half a file."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from brainseg_cli.cli.app import app

CODES = {0, 1, 2, 3, 4}
COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
LEFT_OUT = {
    "--demo",  # trains for minutes
    "--devices",  # starts processes
    "--debug", "--help", "--encoder-weights", "--install-completion", "--show-completion",
}  # fmt: skip
NUMBERS = st.one_of(
    st.integers(-3, 70).map(str), st.sampled_from(["nan", "inf", "-inf", "1e400", "0.5", "9" * 30, "1_000", "٣", "0x1"])
)
TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
PLACES = st.sampled_from(
    ["images", "masks", "run", "dataset", "gone", "empty", "text.csv", "bad.png", ".", "\udcff", "a" * 300]
)
MEANT = st.sampled_from([
    "{stem}", "{", "{stem:x}", "{0}", "../{stem}", "{stem.__class__}", "{patient_id}/{stem}", "kfold:5", "70/15/15",
    "1/2", "a=b", "train.epochs=x", "dice_patient=0.5", "1,1,1",
])  # fmt: skip
VALUES = st.one_of(NUMBERS, TEXTS, PLACES, MEANT)


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    """A command, its arguments, and up to five of its options with a value that may be of another kind."""
    name = draw(st.sampled_from(sorted(COMMANDS)))
    words = [name]
    for parameter in COMMANDS[name].params:
        if parameter.param_type_name == "argument" and draw(st.booleans()):
            words.append(draw(PLACES))
    options = [one for one in COMMANDS[name].params if one.param_type_name == "option"]
    options = [one for one in options if LEFT_OUT.isdisjoint(one.opts)]
    for option in draw(st.lists(st.sampled_from(options), max_size=5)):
        words.append(draw(st.sampled_from(option.opts)))
        if not option.is_flag:
            named = option.name in ("out", "model", "masks", "reference", "prediction", "data")
            words.append(draw(PLACES if named and draw(st.booleans()) else VALUES))
    if draw(st.booleans()):
        words.insert(draw(st.integers(0, len(words))), draw(TEXTS))
    return words


@pytest.fixture
def place(phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder with slices, and with what is none; nothing in it can be trained on."""
    for name in ("images", "masks"):
        (tmp_path / name).symlink_to(phantom)
    for name in ("run", "dataset", "empty"):
        (tmp_path / name).mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    (tmp_path / "dataset" / "dataset.json").write_text('{"schema_version": 99}')
    (tmp_path / "text.csv").write_text("patient_id,split\np,test\n")
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def check(words: list[str], brainseg: Callable[..., Any], place: Path) -> None:
    outcome = brainseg(*words)
    assert outcome.code in CODES, (words, outcome)
    assert "Traceback" not in outcome.err and "a fault of brainseg" not in outcome.err, (words, outcome)
    assert outcome.code in (0, 3, 4) or outcome.err.strip(), words  # who is refused is told why
    assert [path for path in place.rglob("*") if path.name.endswith((".partial", ".old"))] == [], words


QUICK = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@QUICK
@given(words=command_lines())
def test_some_command_lines(words: list[str], brainseg: Callable[..., Any], place: Path) -> None:
    check(words, brainseg, place)


@pytest.mark.slow
@settings(QUICK, max_examples=600, derandomize=False)
@given(words=command_lines())
def test_many_command_lines(words: list[str], brainseg: Callable[..., Any], place: Path) -> None:
    check(words, brainseg, place)
