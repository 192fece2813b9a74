"""Batches: which slices, in what order, how even, and independent of who loads them."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from brainseg_cli.config import Config
from brainseg_cli.data.manifest import Dataset, load_dataset
from brainseg_cli.training.loader import EpochSampler, SliceBatches, build_loader, choose_rows, cut_batches

ROWS = np.arange(100, 160)
HAS_TUMOUR = np.arange(60) % 5 == 0  # 12 of 60


@pytest.fixture(scope="module")
def prepared(dataset: Path) -> Dataset:
    return load_dataset(dataset)


def test_an_epoch_sees_every_slice_once_in_its_own_order() -> None:
    orders = [choose_rows(ROWS, HAS_TUMOUR, 0, seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
    for order in orders:
        np.testing.assert_array_equal(np.sort(order), ROWS)
    assert len({order.tobytes() for order in orders}) == 4
    np.testing.assert_array_equal(orders[3], choose_rows(ROWS, HAS_TUMOUR, 0, 1, 1))


@pytest.mark.parametrize(("share", "others"), [(0.5, 12), (0.75, 4), (0.3, 28), (0.01, 48), (0.2, 48)])
def test_the_share_of_tumour_slices_is_kept(share: float, others: int) -> None:
    seen = [choose_rows(ROWS, HAS_TUMOUR, share, 0, epoch) for epoch in range(2)]
    for rows in seen:
        assert len(set(rows)) == len(rows) == 12 + others
        assert set(ROWS[HAS_TUMOUR]) <= set(rows)
    if others < 48:
        assert set(seen[0]) != set(seen[1])  # the others are drawn anew


def test_a_share_of_nothing_takes_what_there_is() -> None:
    none = np.zeros(60, bool)
    np.testing.assert_array_equal(np.sort(choose_rows(ROWS, none, 0.5, 0, 0)), ROWS)
    np.testing.assert_array_equal(np.sort(choose_rows(ROWS, ~none, 0.5, 0, 0)), ROWS)


@given(count=st.integers(1, 400), batch_size=st.integers(1, 50))
def test_batches_are_even(count: int, batch_size: int) -> None:
    batches = cut_batches(np.arange(count), batch_size)
    sizes = [len(batch) for batch in batches]
    np.testing.assert_array_equal(np.concatenate(batches), np.arange(count))
    assert max(sizes) <= batch_size and max(sizes) - min(sizes) <= 1
    assert len(sizes) == -(-count // batch_size)  # no more than there must be
    if batch_size > 2 and count > 1:
        assert min(sizes) > 1  # batch norm needs two


def test_the_sampler_tells_the_epoch_with_the_rows(tiny: Callable[..., Config]) -> None:
    sampler = EpochSampler(ROWS, HAS_TUMOUR, tiny({"train.tumour_share": 0.5, "train.batch_size": 7}))
    sampler.epoch = 4
    batches = list(sampler)
    assert len(batches) == len(sampler) == 4
    assert {epoch for epoch, _ in batches} == {4}
    np.testing.assert_array_equal(
        np.concatenate([rows for _, rows in batches]), choose_rows(ROWS, HAS_TUMOUR, 0.5, 0, 4)
    )


def load(prepared: Dataset, config: Config, workers: int, epochs: list[int]) -> list[list[torch.Tensor]]:
    loader, sampler = build_loader(prepared, config, workers=workers, pin_memory=False)
    loaded = []
    for epoch in epochs:
        sampler.epoch = epoch
        loaded.append([torch.cat([pixels.flatten(), masks.flatten()]) for pixels, masks in loader])
    return loaded


def same(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return len(one) == len(other) and all(map(torch.equal, one, other))


def test_workers_and_interruptions_change_nothing(prepared: Dataset, tiny: Callable[..., Config]) -> None:
    config = tiny({"augment.elastic": 0.5, "train.tumour_share": 0.6})
    first, second = load(prepared, config, 0, [0, 1])
    assert not same(first, second)
    with_workers = load(prepared, config, 2, [0, 1])
    assert same(with_workers[0], first) and same(with_workers[1], second)
    assert same(load(prepared, config, 0, [1])[0], second)
    assert not same(load(prepared, tiny({"train.seed": 1}), 0, [0])[0], first)


def test_batches_are_uint8_squares_of_the_train_split(prepared: Dataset, tiny: Callable[..., Config]) -> None:
    config = tiny(
        {"augment.rotate_deg": 0, "augment.zoom": 0, "augment.shift": 0, "augment.shear_deg": 0}
        | {"augment.flip_horizontal": 0, "augment.brightness": 0, "augment.contrast": 0, "augment.gamma": 0}
        | {"augment.elastic": 0, "augment.channel_copy": 0, "preprocess.size": 64, "train.tumour_share": 0}
    )
    loader, sampler = build_loader(prepared, config, workers=0, pin_memory=False)
    tumour_px = 0
    for (pixels, masks), (_, rows) in zip(loader, sampler, strict=True):
        assert pixels.dtype == masks.dtype == torch.uint8
        assert pixels.shape == (len(rows), 64, 64, 3) and masks.shape == (len(rows), 64, 64)
        assert set(masks.unique().tolist()) <= {0, 1}
        assert (prepared.slices["split"].iloc[rows] == "train").all()
        tumour_px += int((masks.sum((1, 2)) > 0).sum())
    train = prepared.slices[prepared.slices["split"] == "train"]
    assert tumour_px == (train["tumour_px"] > 0).sum() > 0


def test_what_a_worker_is_sent_is_small_and_gives_the_same_batch(
    prepared: Dataset, tiny: Callable[..., Config]
) -> None:
    """Where processes are not forked, the loader's data set travels as a pickle."""
    config = tiny()
    here = SliceBatches(prepared, config)
    rows = prepared.rows("train")[:3]
    expected = here[0, rows]  # opens the arrays and builds the augmentation
    sent = pickle.dumps(here)
    assert len(sent) < prepared.images.path.stat().st_size // 4
    for one, other in zip(expected, pickle.loads(sent)[0, rows], strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


@pytest.mark.parametrize("workers", [0, 2])
def test_what_was_trained_on_is_not_read_again(
    workers: int, prepared: Dataset, tiny: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny({"train.batch_size": 2, "train.tumour_share": 0})
    (whole,) = load(prepared, config, 0, [1])
    if not workers:
        monkeypatch.setattr(SliceBatches, "__getitem__", spied(SliceBatches.__getitem__, read := []))
    loader, sampler = build_loader(prepared, config, workers=workers, pin_memory=False)
    sampler.epoch, sampler.start = 1, 2
    assert len(sampler) == len(list(sampler)) == len(whole) - 2 > 0
    rest = [torch.cat([pixels.flatten(), masks.flatten()]) for pixels, masks in loader]
    assert same(rest, whole[2:])
    assert workers or len(read) == len(rest)


def spied(whole: Callable[..., Any], seen: list[Any]) -> Callable[..., Any]:
    """The same, which notes what it is asked for."""

    def ask(batches: SliceBatches, batch: Any) -> Any:
        seen.append(batch)
        return whole(batches, batch)

    return ask


def test_a_signal_to_all_of_a_group_does_not_reach_the_workers(prepared: Dataset, tiny: Callable[..., Config]) -> None:
    loader, _ = build_loader(prepared, tiny(), workers=1, pin_memory=False)
    batches: Any = iter(loader)
    next(batches)
    (worker,) = batches._workers
    assert os.getpgid(worker.pid) == worker.pid != os.getpgid(0)
