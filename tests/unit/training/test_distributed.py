"""Training by several processes: the numbers of one, whatever the loss, the shares and the number of processes."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import worlds
from torch import Tensor
from worlds import train_case

from brainseg_cli.config import Config
from brainseg_cli.errors import UsageError
from brainseg_cli.train import train
from brainseg_cli.training.distributed import ALONE, World, check_devices, join
from brainseg_cli.training.launch import launch
from brainseg_cli.training.state import TrainingState, load_state, save_state

LOSSES = ("train_loss", "val_loss")
SCORES = ("train_dice", "train_iou", "train_accuracy", "val_dice", "val_iou", "val_accuracy", "val_dice_patient")
TOLERANCE = 1e-4
"""What differs is the order in which float32 are added up, a few units of 6e-8, and what the steps make of it, most
with AdamW, which divides by the gradient's own size. It comes to 3e-5; the weights move by a hundred times as much."""


@pytest.fixture(scope="module")
def made(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes of `worlds.py` leave; a run of one epoch by this process is there for them to go on with."""
    out = tmp_path_factory.mktemp("worlds")
    save_state(out / "begun.pt", train_case("resumed", dataset, until=1))
    launch([sys.executable, worlds.__file__, str(dataset), str(out)], 2)
    return out


def check_same(found: TrainingState, expected: TrainingState) -> None:
    assert (found.epoch, found.step, found.best_epoch) == (expected.epoch, expected.step, expected.best_epoch)
    for row, wanted in zip(found.rows, expected.rows, strict=True):
        assert row["lr"] == wanted["lr"]
        for names, close in ((LOSSES, TOLERANCE), (SCORES, 1e-3)):  # a pixel may lie on the threshold
            assert [row[name] for name in names] == pytest.approx([wanted[name] for name in names], rel=close)
    for weights, wanted in ((found.model, expected.model), (found.average, expected.average)):
        assert wanted is not None and weights is not None and weights.keys() == wanted.keys()
        for name, value in wanted.items():
            torch.testing.assert_close(weights[name], value, rtol=TOLERANCE, atol=TOLERANCE, msg=name)
    begun = worlds.Small().first.weight
    assert (begun - expected.model["first.weight"]).abs().max() > 100 * TOLERANCE


@pytest.mark.parametrize("case", ["dice+bce", "lovasz"])
def test_two_processes_train_as_one(case: str, made: Path, dataset: Path) -> None:
    first, second = (load_state(made / f"{case}-{rank}.pt") for rank in (0, 1))
    expected = train_case(case, dataset)
    assert (expected.epoch, expected.step) == (3, 9)
    check_same(first, expected)
    for name, value in first.model.items():
        assert torch.equal(value, second.model[name]), name  # not close: the same, or they would drift apart
    assert first.best_epoch == second.best_epoch


def test_a_run_goes_on_in_two_processes_and_then_in_one(made: Path, dataset: Path) -> None:
    halfway = load_state(made / "resumed-0.pt")
    assert halfway.epoch == 2
    check_same(train_case("resumed", dataset, state=halfway), train_case("resumed", dataset))


def test_a_norm_over_all_processes_is_the_norm_of_the_whole(made: Path) -> None:
    whole = worlds.normalise(*worlds.norm_inputs(), ALONE.share)
    parts: list[dict[str, Tensor]] = [torch.load(made / f"norm-{rank}.pt") for rank in (0, 1)]
    assert [len(part["output"]) for part in parts] == [3, 2]
    close: dict[str, Any] = {"rtol": 1e-9, "atol": 1e-9}
    for name in ("output", "inputs"):
        torch.testing.assert_close(torch.cat([part[name] for part in parts]), whole[name], **close)
    for name in ("mean", "var"):
        for part in parts:
            torch.testing.assert_close(part[name], whole[name], **close)
    for name in ("weight", "bias"):  # each has its own part: they are added up with the other gradients
        torch.testing.assert_close(parts[0][name] + parts[1][name], whole[name], **close)


@pytest.mark.parametrize("total", [3, 7, 8, 9, 16])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_shares_are_disjoint_complete_in_order_and_even(size: int, total: int) -> None:
    parts = [np.arange(total)[World(rank, size).share(total)] for rank in range(size)]
    assert np.concatenate(parts).tolist() == list(range(total))
    counts = [len(part) for part in parts]
    assert max(counts) - min(counts) <= 1 and counts == sorted(counts, reverse=True)


def test_alone_nothing_is_exchanged() -> None:
    assert join("cpu") == (ALONE, torch.device("cpu")) and ALONE.leads
    logits = torch.ones(2, 1, requires_grad=True)
    assert ALONE.gather(logits, 2) is logits
    assert ALONE.gather_objects("mine") == ["mine"]


def test_a_batch_is_not_shared_among_more_processes_than_it_has_slices(
    dataset: Path, tmp_path: Path, tiny: Callable[..., Config], recorder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(rank=0, size=5)
    monkeypatch.setattr("brainseg_cli.train.run.join", lambda name: (world, torch.device("cpu")))
    with pytest.raises(UsageError, match=r"a batch of \d slices cannot be shared out among 5 processes"):
        train(dataset, tmp_path / "run", tiny(), recorder)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("count", "name", "told"),
    [(2, "cuda:1", "cuda:1"), (2, "mps", "mps"), (99, "cuda", "CUDA devices here"), (2, "toaster", "no device")],
)
def test_devices_that_are_not_there(count: int, name: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    with pytest.raises(UsageError, match=told):
        check_devices(count, name)


def test_devices_that_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    check_devices(2, "cuda")
    check_devices(64, "cpu")
