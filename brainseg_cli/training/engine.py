"""The loop: train an epoch, validate, keep the best, save, go on."""

import math
import time
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from brainseg_cli.config import Config
from brainseg_cli.data.manifest import Dataset
from brainseg_cli.errors import TrainingError
from brainseg_cli.metrics.aggregate import summarise
from brainseg_cli.models.build import to_channels_last
from brainseg_cli.models.devices import Precision, choose_precision
from brainseg_cli.models.losses import build_loss
from brainseg_cli.models.segmenter import Segmenter, prepare_input
from brainseg_cli.training.loader import build_loader
from brainseg_cli.training.measure import measure_split
from brainseg_cli.training.optimise import (
    PLATEAU_EPOCHS,
    PLATEAU_FACTOR,
    build_average,
    build_optimizer,
    compute_lr,
    set_lr,
)
from brainseg_cli.training.state import TrainingState

THRESHOLD = 0.5


class Observer(Protocol):
    """Whom the loop tells how it goes."""

    def on_step(self, epoch: int, step: int, steps: int, images_per_s: float) -> None: ...

    def on_epoch(self, row: dict[str, float], *, best: bool, epochs: int) -> None: ...

    def on_message(self, text: str) -> None: ...


class Engine:
    """A model, its optimiser and its data, and everything that changes while they meet.

    `keep_best(model, row)` is called after each epoch that is the best so far on val, before `save`, which is
    called after every epoch with a state from which another Engine goes on exactly.
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
    ) -> None:
        self.config, self.dataset, self.device, self.observer = config, dataset, device, observer
        self.precision: Precision = choose_precision(config.train.precision, device)
        self.model = to_channels_last(model.to(device))
        self.average: AveragedModel | None = build_average(self.model, config.train.ema_decay)
        self.optimizer = build_optimizer(self.model, config.optimizer)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.precision == "fp16")
        self.loss = build_loss(config.loss)
        self.loader, self.sampler = build_loader(dataset, config, workers=workers, pin_memory=device.type == "cuda")
        self.state = state or TrainingState()
        if state is not None:
            self._restore(state)
        self._forward: Callable[[Tensor], Tensor] = torch.compile(self.model) if config.train.compile else self.model

    @property
    def final_model(self) -> nn.Module:
        """What is validated and saved: the averaged weights where there are any, else the model's own."""
        return self.average.module if self.average is not None else self.model

    def run(
        self, keep_best: Callable[[nn.Module, dict[str, float]], None], save: Callable[[TrainingState], None]
    ) -> TrainingState:
        """Train until the last epoch or until patience ends. TrainingError for a loss that is not finite."""
        train, state = self.config.train, self.state
        while state.epoch < train.epochs and not state.stopped_early:
            started = time.perf_counter()
            row = {"epoch": state.epoch + 1} | self._train_epoch() | self._validate()
            row["seconds"] = round(time.perf_counter() - started, 3)
            score = row["val_dice_patient"] if math.isfinite(row["val_dice_patient"]) else -row["val_loss"]
            state.epoch += 1
            state.stale_epochs += 1
            best = state.best_epoch == 0 or score > state.best_score
            if best:
                state.best_score, state.best_epoch, state.stale_epochs = score, state.epoch, 0
                keep_best(self.final_model, row)
            stuck = state.stale_epochs > 0 and state.stale_epochs % PLATEAU_EPOCHS == 0
            if self.config.schedule.name == "plateau" and stuck:
                state.lr_factor *= PLATEAU_FACTOR
            state.stopped_early = 0 < train.patience <= state.stale_epochs
            state.rows.append(row)
            self.observer.on_epoch(row, best=best, epochs=train.epochs)
            self._warn_of_background(row)
            save(self._capture())
        if state.stopped_early:
            self.observer.on_message(
                f"stopped after epoch {state.epoch}: no better val dice for {train.patience} epochs"
            )
        return state

    def _train_epoch(self) -> dict[str, float]:
        config, state = self.config, self.state
        torch.manual_seed(config.train.seed * 1_000_003 + state.epoch)  # dropout, if the network has any
        self.sampler.epoch = state.epoch
        steps, accumulate = len(self.sampler), config.train.accumulate
        # tp, fp, fn, tn and the loss are summed where they arise: reading them would make the device wait
        counts = torch.zeros(4, dtype=torch.float64, device=self._sums_device)
        loss_sum = torch.zeros((), device=self.device)
        images_done, lr, started = 0, 0.0, time.perf_counter()
        self.model.train()
        for index, (pixels, masks) in enumerate(self.loader):
            lr = state.lr_factor * compute_lr(
                config.schedule, config.optimizer.lr, state.epoch + index / steps, config.train.epochs
            )
            set_lr(self.optimizer, lr)
            reference = masks.to(self.device, non_blocking=True)[:, None].float()
            inputs = prepare_input(pixels, config.preprocess, self.device)
            with self._autocast():
                logits = self._forward(inputs)
            logits = logits.float()
            loss = self.loss(logits, reference)
            group = min(accumulate, steps - index // accumulate * accumulate)  # the last may be short
            self.scaler.scale(loss / group).backward()  # type: ignore[no-untyped-call]
            if (index + 1) % accumulate == 0 or index + 1 == steps:
                self._step()
            with torch.no_grad():
                loss_sum += loss.detach() * len(pixels)
                counts += self._count(logits, reference)
            images_done += len(pixels)
            self.observer.on_step(state.epoch + 1, index + 1, steps, images_done / (time.perf_counter() - started))
        mean_loss = float(loss_sum) / images_done
        if not math.isfinite(mean_loss) or not _is_finite(self.model):
            what = "weights are no longer finite" if math.isfinite(mean_loss) else f"loss is {mean_loss}"
            raise TrainingError(
                f"the {what} in epoch {state.epoch + 1}",
                hint="--lr lower, or --set train.precision=fp32; the state of the epoch before is kept",
            )
        tp, fp, fn, tn = counts.tolist()
        return {
            "lr": lr,
            "train_loss": mean_loss,
            "train_dice": _divide(2 * tp, 2 * tp + fp + fn),
            "train_iou": _divide(tp, tp + fp + fn),
            "train_accuracy": _divide(tp + tn, tp + fp + fn + tn),
            "images_per_s": round(images_done / (time.perf_counter() - started), 2),
        }

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
        segmenter = Segmenter(self.final_model, self.config.preprocess, channels, self.device)
        split = "val" if len(self.dataset.rows("val")) else "train"
        table, loss = measure_split(segmenter, self.dataset, split, threshold=THRESHOLD, loss=self.loss)
        summary = summarise(table)
        metrics: dict[str, Any] = {
            name: float("nan") if value is None else value for name, value in summary["metrics"].items()
        }
        return {
            "val_loss": loss,
            "val_dice": metrics["dice_pooled"],
            "val_iou": metrics["iou_pooled"],
            "val_accuracy": metrics["accuracy"],
            "val_dice_patient": metrics["dice_patient"],
            "val_predicted_px": summary["counted"]["prediction_px"],
        }

    def _warn_of_background(self, row: dict[str, float]) -> None:
        if row["val_predicted_px"] == 0 and self.state.epoch in (3, 10, 30):
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

    def _capture(self) -> TrainingState:
        self.state.model = self.model.state_dict()
        self.state.average = self.average.state_dict() if self.average is not None else None
        self.state.optimizer = self.optimizer.state_dict()
        self.state.scaler = self.scaler.state_dict()
        return self.state

    def _restore(self, state: TrainingState) -> None:
        try:
            self.model.load_state_dict(state.model)
            if self.average is not None:
                self.average.load_state_dict(state.average or {})
            self.optimizer.load_state_dict(state.optimizer)
            self.scaler.load_state_dict(state.scaler)
        except (RuntimeError, ValueError, KeyError) as error:
            reason = str(error).splitlines()[0].rstrip(" :")
            raise TrainingError(f"the saved state does not fit this configuration: {reason}") from None


def _is_finite(model: nn.Module) -> bool:
    """The last step of an epoch can spoil the weights where its loss, taken before it, does not show."""
    return all(bool(tensor.isfinite().all()) for tensor in model.state_dict().values())


def _divide(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else float("nan")
