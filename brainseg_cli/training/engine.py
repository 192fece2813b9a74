"""The loop: train an epoch, validate, keep the best, save, go on."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

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
from brainseg_cli.training.loader import build_loader
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
        """Train until the last epoch or until patience ends. TrainingError for a loss that is not finite."""
        train, state = self.config.train, self.state
        while state.epoch < train.epochs and not state.stopped_early:
            started = time.perf_counter()
            row = {"epoch": state.epoch + 1} | self._train_epoch() | self._validate()
            row["seconds"] = round(time.perf_counter() - started, 3)
            score = row["val_dice_patient"] if math.isfinite(row["val_dice_patient"]) else -row["val_loss"]
            state.epoch += 1
            state.stale_epochs += 1
            best = state.best_epoch == 0 or score > state.best_score or train.choose == "last"
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
        # dropout, if the network has any: no two processes drop the same
        torch.manual_seed((config.train.seed * 1_000_003 + state.epoch) * self.world.size + self.world.rank)
        self.sampler.epoch = state.epoch
        steps, accumulate = len(self.sampler), config.train.accumulate
        # tp, fp, fn, tn and the loss are summed where they arise: reading them would make the device wait
        counts = torch.zeros(4, dtype=torch.float64, device=self._sums_device)
        loss_sum = torch.zeros((), device=self.device)
        images_done, lr, started = 0, 0.0, time.perf_counter()
        self.model.train()
        batches = zip(self.sampler, _move(self.loader, self.device), strict=True)
        for index, ((_, rows), (pixels, masks)) in enumerate(batches):
            lr = state.lr_factor * compute_lr(
                config.schedule, config.optimizer.lr, state.epoch + index / steps, config.train.epochs
            )
            set_lr(self.optimizer, lr)
            last = (index + 1) % accumulate == 0 or index + 1 == steps
            group = min(accumulate, steps - index // accumulate * accumulate)  # the last may be short
            with self.world.computing(self._shared, last=last):
                logits, reference = self._infer(pixels, masks, len(rows))
                loss = self.loss(logits, reference)
                # each process has the part of the gradient that its slices make, and gets the mean of the parts
                self.scaler.scale(loss * self.world.size / group).backward()  # type: ignore[no-untyped-call]
            if last:
                self._step()
            with torch.no_grad():
                loss_sum += loss.detach() * len(rows)
                counts += self._count(logits, reference)
            images_done += len(rows)
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
            load_optimizer(self.optimizer, state.optimizer)
            self.scaler.load_state_dict(state.scaler)
        except (RuntimeError, ValueError, KeyError) as error:
            reason = str(error).splitlines()[0].rstrip(" :")
            raise TrainingError(f"the saved state does not fit this configuration: {reason}") from None


def _is_finite(model: nn.Module) -> bool:
    """The last step of an epoch can spoil the weights where its loss, taken before it, does not show."""
    return bool(torch.stack([tensor.isfinite().all() for tensor in model.state_dict().values()]).all())


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
