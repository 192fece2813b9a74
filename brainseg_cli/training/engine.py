"""The loop: train an epoch, validate, keep the best, save, go on."""

import copy
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from brainseg_cli.config import Config
from brainseg_cli.data.manifest import Dataset
from brainseg_cli.errors import TrainingError
from brainseg_cli.models.build import to_channels_last
from brainseg_cli.models.devices import choose_precision
from brainseg_cli.models.losses import build_loss
from brainseg_cli.models.network import TorchNetwork, prepare_input
from brainseg_cli.training.distributed import ALONE, World
from brainseg_cli.training.faults import is_dead_worker
from brainseg_cli.training.interrupts import Interrupts
from brainseg_cli.training.loader import Rows, build_loader
from brainseg_cli.training.optimise import (
    PLATEAU_EPOCHS,
    PLATEAU_FACTOR,
    build_average,
    build_optimizer,
    compute_lr,
    load_optimizer,
    set_lr,
)
from brainseg_cli.training.state import TrainingState
from brainseg_cli.training.validation import Validation, join_parts
from brainseg_cli.types import Precision

THRESHOLD = 0.5


class Observer(Protocol):
    """Whom the loop tells how it goes."""

    def on_step(self, epoch: int, step: int, steps: int, images_per_s: float) -> None: ...

    def on_epoch(self, row: dict[str, float], *, best: bool, epochs: int) -> None: ...

    def on_message(self, text: str) -> None: ...


class Engine:
    """A model, its optimiser and its data, and everything that changes while they meet.

    In a `world` of several processes each has an Engine, all of them come to the same weights and numbers, and
    those are the ones that a single process comes to.

    `keep_best(model, row)` is called after each epoch that is the best so far on val, before `save`, and of a state
    that is gone on with at the start. `save` is called after every epoch, after a step every `train.save_minutes`, and
    when interrupted, with a state from which another Engine goes on exactly: never with one that is not finite.
    """

    def __init__(
        self,
        model: nn.Module,
        dataset: Dataset,
        config: Config,
        device: torch.device,
        observer: Observer,
        *,
        workers: int = 0,
        state: TrainingState | None = None,
        world: World = ALONE,
    ) -> None:
        self.config, self.dataset, self.world, self.device, self.observer = config, dataset, world, device, observer
        self.precision: Precision = choose_precision(config.train.precision, device)
        self.model = to_channels_last(model.to(device))
        self.average: AveragedModel | None = build_average(self.model, config.train.ema_decay)
        self.optimizer = build_optimizer(self.model, config.optimizer)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.precision == "fp16")
        self.loss = build_loss(config.loss)
        self.loader, self.sampler = build_loader(
            dataset, config, workers=workers, pin_memory=device.type == "cuda", share=world.share
        )
        judged = "val" if len(dataset.rows("val")) else "train" if config.train.choose == "best" else "nobody"
        self.validation = Validation(dataset, judged, config.preprocess, self.loss)
        self.state = state or TrainingState()
        if state is not None:
            self._restore(state)
        self.saved = (self.state.epoch, self.state.position)
        """Where the state stands that was saved last; (0, 0) for none."""
        self._saved_at = time.monotonic()
        self._save: Callable[[TrainingState], None] = lambda state: None
        self._interrupts = Interrupts(leads=world.leads)
        self._whole = True  # whether weights and numbers are of one moment, the end of a step
        square = (len(dataset.info.channel_names), config.preprocess.size, config.preprocess.size)
        self._shared = world.wrap(self.model, square)
        self._forward: Callable[[Tensor], Tensor] = (
            torch.compile(self._shared) if config.train.compile else self._shared
        )

    @property
    def final_model(self) -> nn.Module:
        """What is validated and saved: the averaged weights where there are any, else the model's own."""
        return self.average.module if self.average is not None else self.model

    def run(
        self, keep_best: Callable[[nn.Module, dict[str, float]], None], save: Callable[[TrainingState], None]
    ) -> TrainingState:
        """Train until the last epoch or until patience ends, from where the state stands.

        A SIGINT or SIGTERM that would raise KeyboardInterrupt does so at the end of the step, and after `save`; a
        second one at once. TrainingError for a loss or weights that are not finite.
        """
        train, state = self.config.train, self.state
        self._save = save
        if state.best and self.world.leads:
            keep_best(self._rebuild_best(), state.rows[state.best_epoch - 1])
        with self._interrupts:
            try:
                while state.epoch < train.epochs and not state.stopped_early:
                    started = time.perf_counter() - state.seconds
                    row = {"epoch": state.epoch + 1} | self._train_epoch() | self._validate()
                    with self._interrupts.held():
                        self._end_epoch(row, time.perf_counter() - started, keep_best)
            except (KeyboardInterrupt, RuntimeError) as error:
                stopped = is_dead_worker(error) or (
                    isinstance(error, KeyboardInterrupt) and not self._interrupts.insisted
                )
                if stopped and self._whole and self.saved != (state.epoch, state.position):
                    self._save_state()
                raise
        if state.stopped_early:
            self.observer.on_message(
                f"stopped after epoch {state.epoch}: no better val dice for {train.patience} epochs"
            )
        return state

    def _rebuild_best(self) -> nn.Module:
        best = copy.deepcopy(self.final_model)
        best.load_state_dict(self.state.best)
        return best

    def _end_epoch(
        self, row: dict[str, float], seconds: float, keep_best: Callable[[nn.Module, dict[str, float]], None]
    ) -> None:
        train, state = self.config.train, self.state
        self._whole = False
        rate = _divide(state.images, state.seconds)
        timing = {"epoch": row["epoch"], "seconds": round(seconds, 3), "images_per_s": round(rate, 2)}
        score = row["val_dice_patient"] if math.isfinite(row["val_dice_patient"]) else -row["val_loss"]
        state.end_epoch()
        state.stale_epochs += 1
        best = state.best_epoch == 0 or score > state.best_score or train.choose == "last"
        if best:
            state.best_score, state.best_epoch, state.stale_epochs = score, state.epoch, 0
            weights = self.final_model.state_dict()
            state.best = {name: tensor.to("cpu", copy=True) for name, tensor in weights.items()}
        stuck = state.stale_epochs > 0 and state.stale_epochs % PLATEAU_EPOCHS == 0
        if self.config.schedule.name == "plateau" and stuck:
            state.lr_factor *= PLATEAU_FACTOR
        state.stopped_early = 0 < train.patience <= state.stale_epochs
        state.rows.append(row)
        state.timings.append(timing)
        self._whole = True
        if best:
            keep_best(self.final_model, row)
        self.observer.on_epoch(row | timing, best=best, epochs=train.epochs)
        self._warn_of_background(row)
        self._save_state()

    def _train_epoch(self) -> dict[str, float]:
        """What is left of an epoch."""
        config, state = self.config, self.state
        self.sampler.epoch, self.sampler.start = state.epoch, state.position
        steps = state.position + len(self.sampler)
        # tp, fp, fn, tn and the loss are summed where they arise: reading them would make the device wait
        state.loss_sum, state.counts = state.loss_sum.to(self.device), state.counts.to(self._sums_device)
        started = time.perf_counter() - state.seconds
        self.model.train()
        batches = enumerate(zip(self.sampler, _move(self.loader, self.device), strict=True), state.position)
        while state.position < steps:
            with self._interrupts.held():
                self._train_step(batches, steps, started)
                overdue = time.monotonic() - self._saved_at >= 60 * config.train.save_minutes > 0
                if overdue and self.world.leads:
                    self._save_state()
        self._check_finite()
        tp, fp, fn, tn = state.counts.tolist()
        return {
            "lr": self._compute_lr(steps - 1, steps),
            "train_loss": float(state.loss_sum) / state.images,
            "train_dice": _divide(2 * tp, 2 * tp + fp + fn),
            "train_iou": _divide(tp, tp + fp + fn),
            "train_accuracy": _divide(tp + tn, tp + fp + fn + tn),
        }

    def _train_step(
        self, batches: Iterator[tuple[int, tuple[tuple[int, Rows], Sequence[Tensor]]]], steps: int, started: float
    ) -> None:
        """The next `train.accumulate` of an epoch's numbered batches, or those that are left, and one update."""
        state = self.state
        count = min(self.config.train.accumulate, steps - state.position)
        end = state.position + count
        for index, ((_, rows), (pixels, masks)) in islice(batches, count):
            self._whole = False
            set_lr(self.optimizer, self._compute_lr(index, steps))
            # dropout, if the network has any: no two batches drop the same, and no two processes
            drawn = np.random.SeedSequence([self.config.train.seed, state.epoch, index, self.world.rank])
            torch.manual_seed(int(drawn.generate_state(1)[0]))
            last = index + 1 == end
            with self.world.computing(self._shared, last=last):
                logits, reference = self._infer(pixels, masks, len(rows))
                loss = self.loss(logits, reference)
                # each process has the part of the gradient that its slices make, and gets the mean of the parts
                self.scaler.scale(loss * self.world.size / count).backward()  # type: ignore[no-untyped-call]
            with torch.no_grad():
                state.loss_sum += loss.detach() * len(rows)
                state.counts += self._count(logits, reference)
            state.images += len(rows)
            if last:
                self._step()
                state.position = end
            state.seconds = time.perf_counter() - started
            self._whole = last
            self.observer.on_step(state.epoch + 1, index + 1, steps, state.images / state.seconds)

    def _compute_lr(self, index: int, steps: int) -> float:
        config, state = self.config, self.state
        along = state.epoch + index / steps
        return state.lr_factor * compute_lr(config.schedule, config.optimizer.lr, along, config.train.epochs)

    def _check_finite(self) -> None:
        """TrainingError where it has gone wrong; the last step can spoil weights where its loss does not show it."""
        loss = float(self.state.loss_sum) / max(self.state.images, 1)
        models = [self.model.state_dict(), self.average.state_dict() if self.average is not None else {}]
        moments = self.optimizer.state_dict()["state"].values()
        if math.isfinite(loss) and all(map(_is_finite, [*models, *moments])):
            return
        what = "weights are no longer finite" if math.isfinite(loss) else f"loss is {loss}"
        raise TrainingError(
            f"the {what} in epoch {self.state.epoch + 1}",
            hint="what was saved before is kept; begin anew, with --overwrite and a lower --lr, or with "
            "--set train.precision=fp32",
        )

    def _infer(self, pixels: Tensor, masks: Tensor, total: int) -> tuple[Tensor, Tensor]:
        """Of this process's share, the logits and references of the whole batch: float32 (total, 1, size, size)."""
        inputs = prepare_input(pixels, self.config.preprocess, self.device)
        with self._autocast(), self.world.norms():
            logits = self._forward(inputs)
        masks = self.world.gather(masks, total)
        return self.world.gather(logits.float(), total), masks[:, None].float()

    def _step(self) -> None:
        if self.config.optimizer.clip_norm > 0:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.optimizer.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.state.step += 1
        if self.average is not None:
            self.average.update_parameters(self.model)

    def _validate(self) -> dict[str, float]:
        channels = len(self.dataset.info.channel_names)
        network = TorchNetwork(self.final_model, self.config.preprocess, channels, self.device)
        # whole batches to each process, because some losses are taken over one
        mine = self.validation.batches[self.world.rank :: self.world.size]
        found = self.validation.measure(network, mine, threshold=THRESHOLD)
        return self.validation.summarise(join_parts(self.world.gather_objects(found)))

    def _warn_of_background(self, row: dict[str, float]) -> None:
        if self.validation.batches and row["val_predicted_px"] == 0 and self.state.epoch in (3, 10, 30):
            self.observer.on_message(
                f"after {self.state.epoch} epochs every val prediction is all background; likely causes: a "
                "learning rate too high or too low (--lr), too few slices with tumour in an epoch "
                "(--set train.tumour_share=0.5), a loss that empty slices win (--loss dice+bce), or "
                "masks that are nearly all empty (brainseg prepare shows the counts)"
            )

    def _autocast(self) -> torch.autocast:
        dtype = torch.float16 if self.precision == "fp16" else torch.bfloat16
        return torch.autocast(self.device.type, dtype, enabled=self.precision != "fp32")

    @property
    def _sums_device(self) -> torch.device:
        return torch.device("cpu") if self.device.type == "mps" else self.device  # mps has no float64

    def _count(self, logits: Tensor, reference: Tensor) -> Tensor:
        found, truth = logits > 0, reference > 0.5  # a logit of 0 is a probability of 0.5
        tp, fp, fn = (found & truth).sum(), (found & ~truth).sum(), (~found & truth).sum()
        return torch.stack([tp, fp, fn, truth.numel() - tp - fp - fn]).to(self._sums_device, torch.float64)

    def _save_state(self) -> None:
        self._check_finite()
        state = self.state
        state.model = self.model.state_dict()
        state.average = self.average.state_dict() if self.average is not None else {}
        state.optimizer = self.optimizer.state_dict()
        state.scaler = self.scaler.state_dict()
        self._save(state)
        self.saved, self._saved_at = (state.epoch, state.position), time.monotonic()

    def _restore(self, state: TrainingState) -> None:
        try:
            self.model.load_state_dict(state.model)
            if self.average is not None:
                self.average.load_state_dict(state.average)
            load_optimizer(self.optimizer, state.optimizer)
            self.scaler.load_state_dict(state.scaler)
        except (RuntimeError, ValueError, KeyError) as error:
            reason = str(error).splitlines()[0].rstrip(" :")
            raise TrainingError(f"the saved state does not fit this configuration: {reason}") from None


def _is_finite(values: Mapping[str, Any]) -> bool:
    """By their sums, which is several times sooner said: a finite one that overflows is as lost."""
    return all(math.isfinite(float(value.sum())) for value in values.values() if isinstance(value, Tensor))


def _move(batches: Iterable[Sequence[Tensor]], device: torch.device) -> Iterator[Sequence[Tensor]]:
    """The batches on the device. A GPU copies the next one, from pinned memory, while it still computes with one."""
    if device.type != "cuda":
        for batch in batches:
            yield [tensor.to(device) for tensor in batch]
        return
    copying: torch.cuda.Stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    computing = torch.cuda.current_stream(device)
    for batch in batches:
        with torch.cuda.stream(copying):
            moved = [tensor.to(device, non_blocking=True) for tensor in batch]
        computing.wait_stream(copying)
        for tensor in moved:
            tensor.record_stream(computing)  # its memory is not given away before that stream is done with it
        yield moved


def _divide(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else float("nan")
