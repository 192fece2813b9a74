"""state/: whole or refused, never run, and of what is damaged the one before."""

import hashlib
import io
import os
import pickle
import stat
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from brainseg_cli.errors import InputError
from brainseg_cli.training.state import MAGIC, SCHEMA_VERSION, TrainingState, load_newest, load_state, save_state

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
    timings=[{"epoch": 1, "seconds": 1.5}],
    position=2,
    images=8,
    seconds=0.25,
    loss_sum=torch.tensor(1 / 3),
    counts=torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64),
)


class Trap:
    """A pickle that would run code."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (Path("sprung"), "")


def saved(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def sealed(content: bytes) -> bytes:
    """With a checksum that is right, as whoever means harm would write it."""
    return MAGIC + hashlib.sha256(content).hexdigest().encode() + b"\n" + content


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "state" / "last.pt"
    save_state(path, TrainingState())
    save_state(path, STATE)
    loaded = load_state(path)
    assert torch.equal(loaded.model["weight"], STATE.model["weight"])
    assert loaded.rows[0]["val_loss"] != loaded.rows[0]["val_loss"]
    assert torch.equal(loaded.counts, STATE.counts) and loaded.counts.dtype == torch.float64
    assert torch.equal(loaded.loss_sum, STATE.loss_sum)
    plain = {key: value for key, value in asdict(STATE).items() if key not in ("model", "rows", "loss_sum", "counts")}
    assert {key: value for key, value in asdict(loaded).items() if key in plain} == plain
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["last.pt", "previous.pt"]
    assert load_state(path.with_name("previous.pt")).epoch == 0


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
        saved({"schema_version": 1, "rows": [], "average": None, "no_such_field": 1}),
        sealed(saved({"schema_version": SCHEMA_VERSION, "no_such_field": 1})),
        sealed(saved({"schema_version": SCHEMA_VERSION, "epoch": "one"})),
        sealed(saved({"schema_version": SCHEMA_VERSION, "epoch": Trap()})),
        saved({"schema_version": SCHEMA_VERSION, "epoch": 1}),  # nothing says whether it is whole
        sealed(saved({"schema_version": SCHEMA_VERSION, "epoch": 1}))[:-40],
        MAGIC,
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
    save_state(tmp_path / "previous.pt", STATE)
    for load in (load_state, lambda path: load_newest(path, pytest.fail)):  # nothing is damaged
        with pytest.raises(InputError, match=rf"schema {SCHEMA_VERSION + 1}.*update brainseg"):
            load(path)
    with pytest.raises(InputError, match="is not there"):
        load_state(tmp_path / "none.pt")


def test_a_state_of_before_there_were_parts_of_an_epoch(tmp_path: Path) -> None:
    row = {"epoch": 1, "val_loss": 0.5, "seconds": 2.0, "images_per_s": 7.5}
    (tmp_path / "last.pt").write_bytes(saved({"schema_version": 1, "epoch": 1, "average": None, "rows": [row]}))
    loaded = load_state(tmp_path / "last.pt")
    assert loaded.rows == [{"epoch": 1, "val_loss": 0.5}]
    assert loaded.timings == [{"epoch": 1, "seconds": 2.0, "images_per_s": 7.5}]
    assert (loaded.epoch, loaded.position, loaded.average, loaded.best) == (1, 0, {}, {})


def damage(path: Path, how: str) -> None:
    data = bytearray(path.read_bytes())
    if how == "a flipped bit":
        data[data.index(b"\x00\x00\x80\x3f") + 2] ^= 1  # of a weight, 1.0: PyTorch would load it
    path.unlink()
    if how != "a kill between two names":
        path.write_bytes(
            {"cut off": data[: len(data) // 2], "emptied": b"", "a pickle": pickle.dumps(Trap())}.get(how, data)
        )


DAMAGES = ("a flipped bit", "cut off", "emptied", "a pickle", "a kill between two names")


@pytest.mark.parametrize("how", DAMAGES)
def test_from_a_damaged_state_it_goes_back_to_the_one_before(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path, told = tmp_path / "last.pt", []
    assert load_newest(path, told.append) is None
    for epoch in (1, 2):
        save_state(path, TrainingState(epoch=epoch, model=STATE.model))
    newest = load_newest(path, told.append)
    assert newest is not None and newest.epoch == 2 and told == []
    damage(path, how)
    before = load_newest(path, told.append)
    assert before is not None and before.epoch == 1
    (line,) = told
    assert str(path) in line and "previous.pt" in line and "\n" not in line
    assert not path.exists()  # the next save would put what is damaged in the place of what is whole
    damage(tmp_path / "previous.pt", "cut off")
    with pytest.raises(InputError, match=r"last\.pt: .*previous\.pt.*--overwrite begins anew") as caught:
        load_newest(path, pytest.fail)
    assert "\n" not in str(caught.value) and not (tmp_path / "sprung").exists()
    (tmp_path / "previous.pt").unlink()
    if path.exists():
        with pytest.raises(InputError, match="none before it"):
            load_newest(path, pytest.fail)


def test_at_every_moment_of_saving_there_is_a_whole_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each call that reaches the disk is where a kill may come; what is left then is looked at."""
    path = tmp_path / "last.pt"
    for epoch in (1, 2):
        save_state(path, TrainingState(epoch=epoch))
    left: list[list[int]] = []

    def look(*_: object) -> None:
        states = [
            load_state(tmp_path / name).epoch for name in ("last.pt", "previous.pt") if (tmp_path / name).exists()
        ]
        left.append(states)

    replace, sync = Path.replace, os.fsync

    def watched_replace(source: Path, target: Path) -> Path:
        look()
        done = replace(source, target)
        look()
        return done

    def watched_sync(number: int) -> None:
        look()
        sync(number)
        synced.append(stat.S_ISDIR(os.fstat(number).st_mode))

    synced: list[bool] = []
    monkeypatch.setattr(Path, "replace", watched_replace)
    monkeypatch.setattr(os, "fsync", watched_sync)
    save_state(path, TrainingState(epoch=3))
    assert left == [[2, 1], [2, 1], [2], [2], [3, 2], [3, 2]]
    assert synced == [False, True]  # the file before its name, then the folder
