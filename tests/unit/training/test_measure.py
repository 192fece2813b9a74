"""A split through a network: every slice once, in order, and the sweep over its probabilities."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from brainseg_cli.config import Config
from brainseg_cli.data.manifest import Dataset, load_dataset
from brainseg_cli.models.network import TorchNetwork
from brainseg_cli.models.segmenter import Segmenter
from brainseg_cli.training.measure import BATCH_SIZE, one_ahead, predict_split, sweep_thresholds


@pytest.fixture(scope="module")
def prepared(dataset: Path) -> Dataset:
    return load_dataset(dataset)


@pytest.fixture(scope="module")
def segmenter(tiny: Callable[..., Config]) -> Segmenter:
    torch.manual_seed(0)
    return Segmenter(TorchNetwork(nn.Conv2d(3, 1, 3, padding=1), tiny().preprocess, 3, torch.device("cpu")))


def test_every_slice_comes_once_in_order_at_its_own_size(prepared: Dataset, segmenter: Segmenter) -> None:
    everyone = replace(prepared, slices=prepared.slices.assign(split="train"))
    told: list[tuple[int, int]] = []
    found = list(
        predict_split(segmenter, everyone, "train", progress=lambda done, total, what: told.append((done, total)))
    )
    assert [row for row, _ in found] == list(range(33)) and BATCH_SIZE == 16
    assert told == [(16, 33), (32, 33), (33, 33)]
    for row, probs in found[::8]:
        assert probs.shape == prepared.mask(row).shape and probs.dtype == np.float32
        np.testing.assert_allclose(probs, segmenter.predict_probs([prepared.image(row)])[0], atol=1e-6)
    assert list(predict_split(segmenter, everyone, "test")) == []


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_one_is_begun_before_the_last_is_given(count: int) -> None:
    begun: list[int] = []

    def begin() -> Iterator[int]:
        for number in range(count):
            begun.append(number)
            yield number

    given = [(number, len(begun)) for number in one_ahead(begin())]
    assert given == [(number, min(number + 2, count)) for number in range(count)]


def test_a_sweep_adds_up_a_patients_slices_wherever_they_lie(prepared: Dataset, segmenter: Segmenter) -> None:
    mixed = prepared.slices.sample(frac=1, random_state=3)  # patients between one another
    assert mixed["patient_id"].tolist() != sorted(mixed["patient_id"])
    shuffled = replace(prepared, slices=mixed.reset_index(drop=True))
    order = mixed.index.tolist()
    for name, rows in (("images", prepared.images), ("masks", prepared.masks)):
        shuffled.__dict__[name] = [rows[row] for row in order]
    usual, other = (sweep_thresholds(segmenter, each, "val") for each in (prepared, shuffled))
    assert len(usual) == 99
    for one, two in zip(usual, other, strict=True):
        assert one == {name: pytest.approx(value, abs=1e-9) for name, value in two.items()}


def test_a_sweep_of_nothing_defines_nothing(prepared: Dataset, segmenter: Segmenter) -> None:
    nobody = replace(prepared, slices=prepared.slices.assign(split="train"))
    assert {row["dice_patient"] for row in sweep_thresholds(segmenter, nobody, "val")} == {None}
    healthy = prepared.slices["tumour_px"].groupby(prepared.slices["patient_id"]).transform("sum") == 0
    without = replace(prepared, slices=prepared.slices.assign(split=np.where(healthy, "val", "train")))
    assert healthy.any() and len(without.rows("val"))
    assert {row["dice_patient"] for row in sweep_thresholds(segmenter, without, "val")} == {None}
