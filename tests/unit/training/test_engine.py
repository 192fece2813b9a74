"""The loop: what is kept, when it stops, what it says, and that its arithmetic is that of the larger batch."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from brainseg_cli.config import Config
from brainseg_cli.data.manifest import Dataset, load_dataset
from brainseg_cli.errors import TrainingError
from brainseg_cli.metrics.counts import compute_counts
from brainseg_cli.models.network import prepare_input
from brainseg_cli.training.engine import Engine
from brainseg_cli.training.state import TIMING, TrainingState

CPU = torch.device("cpu")
NAN = float("nan")


@pytest.fixture(scope="module")
def prepared(dataset: Path) -> Dataset:
    return load_dataset(dataset)


def linear() -> nn.Module:
    """No norm, no dropout: a batch's gradient is the mean of its slices'."""
    torch.manual_seed(0)
    return nn.Conv2d(3, 1, 3, padding=1)


class Scripted(Engine):
    """An Engine that does not train, and whose val results are given."""

    def script(self, dice: Sequence[float], loss: Sequence[float] | None = None, predicted_px: int = 1) -> "Scripted":
        self.dice, self.val_loss, self.predicted_px = dice, loss or [1.0] * len(dice), predicted_px
        return self

    def _train_epoch(self) -> dict[str, float]:
        return {"lr": self.config.optimizer.lr * self.state.lr_factor, "train_loss": 1.0}

    def _validate(self) -> dict[str, float]:
        at = self.state.epoch
        named = {"val_loss": self.val_loss[at], "val_dice_patient": self.dice[at]}
        return named | {"val_predicted_px": self.predicted_px}


@pytest.fixture
def scripted(prepared: Dataset, tiny: Callable[..., Config], recorder: Any) -> Callable[..., Scripted]:
    def build(overrides: dict[str, Any], **script: Any) -> Scripted:
        config = tiny({"train.epochs": len(script["dice"]), "schedule.warmup_epochs": 0} | overrides)
        return Scripted(linear(), prepared, config, CPU, recorder).script(**script)

    return build


def test_the_best_epoch_is_kept_when_it_comes(scripted: Callable[..., Scripted], recorder: Any) -> None:
    kept, saved = [], []
    engine = scripted({}, dice=[0.1, 0.5, 0.5, 0.4, 0.6])
    state = engine.run(lambda model, row: kept.append(row["epoch"]), lambda state: saved.append(state.epoch))
    assert kept == [1, 2, 5] and saved == [1, 2, 3, 4, 5]  # a tie keeps the earlier
    assert recorder.best == [True, True, False, False, True]
    assert (state.best_epoch, state.best_score, state.stale_epochs, state.epoch) == (5, 0.6, 0, 5)
    assert not state.stopped_early and recorder.messages == []
    assert [{name: row[name] for name in row if name not in TIMING} for row in recorder.rows] == state.rows
    assert [timing["epoch"] for timing in state.timings] == [1, 2, 3, 4, 5]


def test_a_first_epoch_that_finds_nothing_is_still_kept(scripted: Callable[..., Scripted]) -> None:
    kept: list[float] = []
    scripted({}, dice=[0.0, 0.0]).run(lambda model, row: kept.append(row["epoch"]), lambda state: None)
    assert kept == [1]


def test_without_tumour_in_val_the_loss_chooses(scripted: Callable[..., Scripted]) -> None:
    kept: list[float] = []
    engine = scripted({}, dice=[NAN] * 4, loss=[3.0, 2.0, 2.5, 1.0])
    engine.run(lambda model, row: kept.append(row["epoch"]), lambda state: None)
    assert kept == [1, 2, 4]


@pytest.mark.parametrize(("patience", "epochs"), [(0, 7), (1, 3), (2, 6), (5, 7)])
def test_patience(scripted: Callable[..., Scripted], recorder: Any, patience: int, epochs: int) -> None:
    engine = scripted({"train.patience": patience}, dice=[0.1, 0.3, 0.2, 0.4, 0.3, 0.3, 0.3])
    state = engine.run(lambda model, row: None, lambda state: None)
    assert state.epoch == epochs
    assert state.stopped_early == (patience in (1, 2))
    assert len(recorder.messages) == state.stopped_early
    # a run that was stopped is not gone on with
    again = scripted({"train.patience": patience}, dice=[0.9] * 7)
    again.state = state
    assert again.run(lambda model, row: None, lambda state: None).epoch == epochs


def test_plateau_halves_the_rate_after_five_epochs_without_a_better_val(scripted: Callable[..., Scripted]) -> None:
    engine = scripted({"schedule.name": "plateau", "optimizer.lr": 0.8}, dice=[0.5] * 12)
    state = engine.run(lambda model, row: None, lambda state: None)
    # the best is epoch 1; 2 to 6 are no better, nor are 7 to 11
    assert [row["lr"] for row in state.rows] == [0.8] * 6 + [0.4] * 5 + [0.2]
    constant = scripted({"schedule.name": "constant", "optimizer.lr": 0.8}, dice=[0.5] * 12)
    assert {row["lr"] for row in constant.run(lambda model, row: None, lambda state: None).rows} == {0.8}


def test_all_background_is_said_with_what_may_cause_it(scripted: Callable[..., Scripted], recorder: Any) -> None:
    scripted({}, dice=[0.0] * 4, predicted_px=0).run(lambda model, row: None, lambda state: None)
    (message,) = recorder.messages
    assert "after 3 epochs" in message and "all background" in message
    assert all(word in message for word in ("--lr", "tumour_share", "--loss", "masks"))


def weights(model: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()]).clone()


def trained(engine: Engine) -> Tensor:
    engine.run(lambda model, row: None, lambda state: None)
    return weights(engine.model)


STILL = {
    f"augment.{name}": 0
    for name in (
        "rotate_deg",
        "zoom",
        "shift",
        "shear_deg",
        "flip_horizontal",
        "brightness",
        "contrast",
        "gamma",
        "elastic",
        "channel_copy",
    )
}
PLAIN = STILL | {
    "train.epochs": 1,
    "train.tumour_share": 0,
    "train.ema_decay": 0,
    "loss.name": "bce",
    "optimizer.name": "sgd",
    "optimizer.lr": 0.1,
    "optimizer.clip_norm": 0,
    "schedule.name": "constant",
    "schedule.warmup_epochs": 0,
}


def of_sixteen(prepared: Dataset) -> Dataset:
    """Batches of 4 and of 8 come out even."""
    split = np.where(np.arange(len(prepared.slices)) < 16, "train", "val")
    return replace(prepared, slices=prepared.slices.assign(split=split))


def test_accumulated_batches_are_one_larger_batch(
    prepared: Dataset, tiny: Callable[..., Config], recorder: Any
) -> None:
    def train(batch_size: int, accumulate: int, **more: Any) -> Engine:
        settings = PLAIN | {"train.batch_size": batch_size, "train.accumulate": accumulate} | more
        return Engine(linear(), of_sixteen(prepared), tiny(settings), CPU, recorder)

    large, small, alone = train(8, 1), train(4, 2), train(4, 1)
    at_once = trained(large)
    torch.testing.assert_close(at_once, trained(small), rtol=1e-5, atol=1e-7)
    assert large.state.step == small.state.step == 2
    assert not torch.allclose(at_once, trained(alone), atol=1e-4) and alone.state.step == 4
    # 4 batches in groups of 3: the last group is one batch, and counts whole
    assert train(4, 3).run(lambda model, row: None, lambda state: None).step == 2
    everything, in_sixteen = train(16, 1), train(1, 99)
    torch.testing.assert_close(trained(everything), trained(in_sixteen), rtol=1e-5, atol=1e-7)


def test_the_gradient_is_cut_to_its_norm(prepared: Dataset, tiny: Callable[..., Config], recorder: Any) -> None:
    before = weights(linear())

    def moved(clip: float) -> float:
        settings = PLAIN | {"optimizer.momentum": 0, "optimizer.weight_decay": 0, "optimizer.lr": 1.0}
        settings |= {"train.batch_size": 16, "optimizer.clip_norm": clip}
        return float((trained(Engine(linear(), of_sixteen(prepared), tiny(settings), CPU, recorder)) - before).norm())

    assert moved(1e-3) == pytest.approx(1e-3, rel=1e-3)  # one step, of that length
    assert moved(0) > 0.05
    assert moved(1e6) == moved(0)


def test_what_is_validated_and_kept_is_the_average(
    prepared: Dataset, tiny: Callable[..., Config], recorder: Any
) -> None:
    kept: list[Tensor] = []

    def keep(model: nn.Module, row: dict[str, float]) -> None:
        kept.append(weights(model))

    settings = PLAIN | {"train.ema_decay": 0.9, "train.batch_size": 8}
    engine = Engine(linear(), of_sixteen(prepared), tiny(settings), CPU, recorder)
    assert engine.average is not None and engine.final_model is engine.average.module
    before = weights(engine.model)
    after = None

    class Watch(type(recorder)):  # type: ignore[misc]
        """Notes the weights after the first of two steps."""

        def on_step(self, epoch: int, step: int, steps: int, images_per_s: float) -> None:
            nonlocal after
            if step == 1:
                after = weights(engine.model)

    engine.observer = Watch()
    engine.run(keep, lambda state: None)
    last = weights(engine.model)
    assert after is not None and not torch.equal(before, after)
    torch.testing.assert_close(kept[0], 0.9 * after + 0.1 * last)  # the first step's weights begin the average


def test_a_loss_that_is_not_a_number_ends_the_training(
    prepared: Dataset, tiny: Callable[..., Config], recorder: Any
) -> None:
    saved: list[int] = []
    engine = Engine(linear(), prepared, tiny(PLAIN | {"train.epochs": 3}), CPU, recorder)
    whole = engine.loss
    engine.loss = lambda logits, reference: whole(logits, reference) * (NAN if engine.state.epoch == 1 else 1)
    with pytest.raises(TrainingError, match="loss is nan in epoch 2") as caught:
        engine.run(lambda model, row: None, lambda state: saved.append(state.epoch))
    assert saved == [1] and "a lower --lr" in str(caught.value)


def test_a_last_step_into_infinity_is_seen(prepared: Dataset, tiny: Callable[..., Config], recorder: Any) -> None:
    settings = PLAIN | {"train.batch_size": 16, "optimizer.lr": 1e38}
    engine = Engine(linear(), of_sixteen(prepared), tiny(settings), CPU, recorder)
    whole = engine.loss
    engine.loss = lambda logits, reference: whole(logits, reference) * 1e6
    with pytest.raises(TrainingError, match="weights are no longer finite in epoch 1"):
        engine.run(lambda model, row: None, lambda state: None)


def test_a_state_of_another_network_is_refused_in_one_line(
    prepared: Dataset, tiny: Callable[..., Config], recorder: Any
) -> None:
    state = TrainingState(epoch=1, model=nn.Conv2d(3, 2, 5).state_dict())
    with pytest.raises(TrainingError, match="does not fit") as caught:
        Engine(linear(), prepared, tiny(), CPU, recorder, state=state)
    assert "\n" not in str(caught.value)


def test_the_train_numbers_are_those_of_the_pixels(
    prepared: Dataset, tiny: Callable[..., Config], recorder: Any
) -> None:
    # with a learning rate of nothing they are those of the untrained network
    settings = PLAIN | {"optimizer.lr": 1e-30, "train.batch_size": 5, "preprocess.size": 64}
    engine = Engine(linear(), prepared, tiny(settings), CPU, recorder)
    row = engine.run(lambda model, row: None, lambda state: None).rows[0]
    pixels, masks = zip(*engine.loader, strict=True)
    network = engine.model.eval()
    with torch.inference_mode():
        logits = network(prepare_input(torch.cat(pixels), engine.config.preprocess, CPU))[:, 0]
    found, reference = (logits > 0).numpy().astype(np.uint8), torch.cat(masks).numpy()
    tp, fp, fn, tn = compute_counts(reference.ravel(), found.ravel())
    assert tp and fp and fn
    assert row["train_dice"] == pytest.approx(2 * tp / (2 * tp + fp + fn))
    assert row["train_iou"] == pytest.approx(tp / (tp + fp + fn))
    assert row["train_accuracy"] == pytest.approx((tp + tn) / reference.size)
    expected = nn.functional.binary_cross_entropy_with_logits(logits, torch.cat(masks).float())
    assert row["train_loss"] == pytest.approx(float(expected), rel=1e-5)
    assert recorder.steps == [(1, step, 3) for step in (1, 2, 3)]


class Dropping(nn.Module):
    """Draws at random, and has statistics beside weights."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Conv2d(4, 1, 1)
        )

    def forward(self, inputs: Tensor) -> Tensor:
        found: Tensor = self.layers(inputs)
        return found


@pytest.mark.parametrize("workers", [0, 1])
def test_from_the_end_of_any_step_it_goes_on_to_the_same_bits(
    workers: int, prepared: Dataset, tiny: Callable[..., Config], recorder: Any
) -> None:
    settings = {"train.epochs": 2, "train.batch_size": 2, "train.accumulate": 2, "train.ema_decay": 0.7}
    config = tiny(settings | {"train.save_minutes": 1e-9, "train.tumour_share": 0})

    def build(state: TrainingState | None = None, workers: int = 0) -> Engine:
        torch.manual_seed(1)
        return Engine(Dropping(), prepared, config, CPU, recorder, workers=workers, state=state)

    saved: list[TrainingState] = []
    whole = build()
    ended = whole.run(lambda model, row: None, lambda state: saved.append(copy.deepcopy(state)))
    assert [(state.epoch, state.position) for state in saved] == [
        (0, 2), (0, 4), (0, 6), (0, 7), (1, 0), (1, 2), (1, 4), (1, 6), (1, 7), (2, 0),
    ]  # fmt: skip
    for state in saved if workers == 0 else saved[2:3]:
        recorder.steps.clear()
        begun = 7 * state.epoch + state.position
        torch.manual_seed(begun)  # what was drawn in between does not count
        again = build(state, workers)
        last = again.run(lambda model, row: None, lambda state: None)
        assert len(recorder.steps) == 14 - begun
        for name, value in whole.model.state_dict().items():
            assert torch.equal(again.model.state_dict()[name], value), (begun, name)
        for name, value in whole.final_model.state_dict().items():
            assert torch.equal(again.final_model.state_dict()[name], value), (begun, name)
        assert last.rows == ended.rows and last.step == ended.step == 8
        assert all(torch.equal(last.best[name], value) for name, value in ended.best.items())


def test_dropout_differs_from_batch_to_batch(prepared: Dataset, tiny: Callable[..., Config], recorder: Any) -> None:
    engine = Engine(Dropping(), prepared, tiny({"train.epochs": 1}), CPU, recorder)
    drawn: list[float] = []
    whole = engine.loss

    def draw(logits: Tensor, reference: Tensor) -> Tensor:
        drawn.append(float(torch.rand(())))
        return whole(logits, reference)

    engine.loss = draw
    engine._train_epoch()
    assert len(set(drawn)) == len(drawn) > 1


def test_by_epochs_alone_where_no_minutes_are_given(
    prepared: Dataset, tiny: Callable[..., Config], recorder: Any
) -> None:
    places: list[tuple[int, int]] = []
    engine = Engine(linear(), prepared, tiny({"train.epochs": 2, "train.save_minutes": 0}), CPU, recorder)
    engine.run(lambda model, row: None, lambda state: places.append((state.epoch, state.position)))
    assert places == [(1, 0), (2, 0)]
