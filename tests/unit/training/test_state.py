"""state/last.pt: whole or refused, and never run."""

import io
import pickle
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from brainseg_cli.errors import InputError
from brainseg_cli.training.state import SCHEMA_VERSION, TrainingState, load_state, save_state

STATE = TrainingState(
    epoch=3,
    step=12,
    model={"weight": torch.arange(6.0).reshape(2, 3)},
    optimizer={"state": {0: {"step": torch.tensor(4.0)}}, "param_groups": [{"lr": 0.1}]},
    best_epoch=2,
    best_score=0.25,
    stale_epochs=1,
    lr_factor=0.5,
    rows=[{"epoch": 1, "val_loss": float("nan")}],
)


class Trap:
    """A pickle that would run code."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (Path("sprung"), "")


def saved(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "state" / "last.pt"
    save_state(path, TrainingState())
    save_state(path, STATE)
    loaded = load_state(path)
    assert torch.equal(loaded.model["weight"], STATE.model["weight"])
    assert loaded.rows[0]["val_loss"] != loaded.rows[0]["val_loss"]
    plain = {key: value for key, value in asdict(STATE).items() if key not in ("model", "rows")}
    assert {key: value for key, value in asdict(loaded).items() if key in plain} == plain
    assert [entry.name for entry in path.parent.iterdir()] == ["last.pt"]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not a state",
        pickle.dumps(Trap()),
        saved(Trap()),
        saved({"schema_version": SCHEMA_VERSION, "epoch": Trap()}),
        saved([1, 2]),
        saved({"epoch": 1}),
        saved({"schema_version": SCHEMA_VERSION, "no_such_field": 1}),
        saved({"schema_version": SCHEMA_VERSION, "epoch": 1})[:-40],
    ],
)
def test_anything_else_is_refused_and_not_run(data: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "last.pt"
    path.write_bytes(data)
    with pytest.raises(InputError) as caught:
        load_state(path)
    assert "last.pt" in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "sprung").exists()


def test_a_newer_state_says_so(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    path.write_bytes(saved({"schema_version": SCHEMA_VERSION + 1, "surprise": 1}))
    with pytest.raises(InputError, match=f"schema {SCHEMA_VERSION + 1}"):
        load_state(path)
    with pytest.raises(InputError, match="is not there"):
        load_state(tmp_path / "none.pt")
