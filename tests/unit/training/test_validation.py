"""Validation: the numbers of the whole slice table, from counts alone, whoever counted which batch."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from brainseg_cli.config import Config
from brainseg_cli.data.manifest import Dataset, load_dataset
from brainseg_cli.metrics.aggregate import measure_slice, summarise
from brainseg_cli.models.losses import build_loss
from brainseg_cli.models.network import TorchNetwork
from brainseg_cli.models.segmenter import Segmenter, apply_threshold
from brainseg_cli.preprocess import fit_image
from brainseg_cli.training.measure import BATCH_SIZE, predict_split
from brainseg_cli.training.squares import Squares
from brainseg_cli.training.validation import Validated, Validation, join_parts

GEOMETRIES = [
    {"preprocess.size": 32},
    {"preprocess.size": 64, "preprocess.crop": "head", "loss.name": "lovasz"},
]


@pytest.fixture(scope="module")
def prepared(dataset: Path) -> Dataset:
    """All slices in val: 33 of them, in three batches."""
    opened = load_dataset(dataset)
    return replace(opened, slices=opened.slices.assign(split="val"))


def build(prepared: Dataset, config: Config, split: str = "val") -> tuple[Validation, TorchNetwork]:
    torch.manual_seed(1)
    network = TorchNetwork(nn.Conv2d(3, 1, 3, padding=1), config.preprocess, 3, torch.device("cpu"))
    return Validation(prepared, split, config.preprocess, build_loss(config.loss)), network


def measure_by_table(prepared: Dataset, config: Config, network: TorchNetwork, threshold: float) -> dict[str, float]:
    """The same numbers by the way of `eval`: probabilities, a table of slices, every metric."""
    rows, measured = [], []
    for row, probs in predict_split(Segmenter(network), prepared, "val"):
        rows.append(row)
        measured.append(measure_slice(prepared.mask(row), apply_threshold(probs, threshold), probs))
    names = prepared.slices[["image", "patient_id", "slice_index"]].iloc[rows].reset_index(drop=True)
    summary = summarise(pd.concat([names, pd.DataFrame(measured)], axis=1))
    loss, total = build_loss(config.loss), 0.0
    for start in range(0, len(rows), BATCH_SIZE):
        batch = rows[start : start + BATCH_SIZE]
        fits = [fit_image(prepared.image(row), config.preprocess) for row in batch]
        images = np.stack([fit.image(prepared.image(row)) for fit, row in zip(fits, batch, strict=True)])
        masks = np.stack([fit.mask(prepared.mask(row)) for fit, row in zip(fits, batch, strict=True)])
        total += len(batch) * float(loss(network.logits(images), torch.from_numpy(masks)[:, None].float()))
    metrics = summary["metrics"]
    return {
        "val_loss": total / len(rows),
        "val_dice": metrics["dice_pooled"],
        "val_iou": metrics["iou_pooled"],
        "val_accuracy": metrics["accuracy"],
        "val_dice_patient": metrics["dice_patient"],
        "val_predicted_px": summary["counted"]["prediction_px"],
    }


@pytest.mark.parametrize("overrides", GEOMETRIES)
def test_the_numbers_are_those_of_the_whole_table(
    prepared: Dataset, tiny: Callable[..., Config], overrides: dict[str, object]
) -> None:
    config = tiny(overrides)
    validation, network = build(prepared, config)
    assert [len(rows) for rows in validation.batches] == [16, 16, 1]
    for threshold in (0.5, 0.45):
        found = validation.measure(network, validation.batches, threshold=threshold)
        expected = measure_by_table(prepared, config, network, threshold)
        assert expected["val_predicted_px"] > 0 and 0 < expected["val_dice_patient"] < 1
        assert validation.summarise(found) == pytest.approx(expected, rel=1e-12)
        # and once more, when the geometry is known
        assert validation.summarise(validation.measure(network, validation.batches, threshold=threshold)) == (
            validation.summarise(found)
        )


def test_who_measured_which_batch_does_not_matter(prepared: Dataset, tiny: Callable[..., Config]) -> None:
    validation, network = build(prepared, tiny())
    whole = validation.measure(network, validation.batches, threshold=0.5)
    np.testing.assert_array_equal(whole.rows, prepared.rows("val"))
    shares = [validation.measure(network, validation.batches[rank::4], threshold=0.5) for rank in range(4)]
    assert [len(share.rows) for share in shares] == [16, 16, 1, 0]
    joined = join_parts(shares[::-1])
    for one, other in zip(whole, joined, strict=True):
        np.testing.assert_array_equal(one, other)
    assert validation.summarise(joined) == validation.summarise(whole)


def test_what_nothing_defines_is_not_a_number(prepared: Dataset, tiny: Callable[..., Config]) -> None:
    validation, network = build(prepared, tiny(), split="test")
    empty = validation.measure(network, validation.batches, threshold=0.5)
    assert validation.batches == [] and empty.counts.shape == (0, 4)
    assert {name for name, value in validation.summarise(empty).items() if np.isnan(value)} == {
        "val_loss", "val_dice", "val_iou", "val_accuracy", "val_dice_patient",
    }  # fmt: skip
    rows = prepared.rows("val")[:2]
    healthy = Validated(rows, np.array([[0, 3, 0, 7], [0, 0, 0, 10]]), np.array([0.5, 0.7]))
    found = validation.summarise(healthy)
    assert np.isnan(found["val_dice_patient"]) and found["val_predicted_px"] == 3
    assert found["val_accuracy"] == pytest.approx(0.85) and found["val_loss"] == pytest.approx(0.6)


def test_where_a_slice_lies_is_found_once(
    prepared: Dataset, tiny: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def ask(*given: object) -> object:
        asked.append(1)
        return fit_image(*given)  # type: ignore[arg-type]

    monkeypatch.setattr("brainseg_cli.training.squares.fit_image", ask)
    config = tiny({"preprocess.crop": "head"}).preprocess
    squares = Squares(prepared, config)
    for row in (4, 7, 4, 4):
        fit = fit_image(prepared.image(row), config)
        np.testing.assert_array_equal(squares.image(row), fit.image(prepared.image(row)))
        np.testing.assert_array_equal(squares.mask(row), fit.mask(prepared.mask(row)))
    assert len(asked) == 2
