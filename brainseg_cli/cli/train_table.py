"""How training shows itself: a live table and a bar on a terminal, a line an epoch elsewhere."""

import time
from types import TracebackType

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from brainseg_cli.cli.console import PLAIN_EVERY_S, Console, tell_seconds

SHOWN_EPOCHS = 8
COLUMNS = {
    "epoch": "{:.0f}", "train_loss": "{:.4f}", "val_loss": "{:.4f}", "train_dice": "{:.4f}", "val_dice": "{:.4f}",
    "train_iou": "{:.4f}", "val_iou": "{:.4f}", "train_accuracy": "{:.4f}", "val_accuracy": "{:.4f}",
    "val_dice_patient": "{:.4f}", "lr": "{:.1e}", "images_per_s": "{:.1f}",
}  # fmt: skip


class TrainTable:
    """An observer of the training loop (`training.engine.Observer`)."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.rows: list[tuple[dict[str, float], bool]] = []
        self.epochs = 0
        self.left_s = float("nan")
        self.spoken_at = self.drawn_at = time.monotonic()
        self.live = Live(console=console.rich, refresh_per_second=4, transient=False) if console.draws else None

    def __enter__(self) -> "TrainTable":
        if self.live:
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live:
            self.live.stop()

    def on_step(self, epoch: int, step: int, steps: int, images_per_s: float) -> None:
        now = time.monotonic()
        if self.live:
            if now - self.drawn_at > 0.25 or step == steps:
                self.drawn_at = now
                self.live.update(Group(self._draw_table(), self._draw_bar(epoch, step, steps, images_per_s)))
        elif now - self.spoken_at > PLAIN_EVERY_S:
            self.spoken_at = now
            self.console.say(f"epoch {epoch}: step {step} of {steps}, {images_per_s:.1f} images/s")

    def on_epoch(self, row: dict[str, float], *, best: bool, epochs: int) -> None:
        self.rows.append((row, best))
        self.epochs = epochs
        recent = [shown["seconds"] for shown, _ in self.rows[-5:]]
        self.left_s = (epochs - row["epoch"]) * sum(recent) / len(recent)
        self.spoken_at = time.monotonic()
        if self.live:
            self.live.update(self._draw_table())
        else:
            told = " ".join(f"{name}={form.format(row[name])}" for name, form in COLUMNS.items() if name != "epoch")
            mark = " best" if best else ""
            self.console.say(f"epoch {row['epoch']:.0f}/{epochs} {told} left={tell_seconds(self.left_s)}{mark}")

    def on_message(self, text: str) -> None:
        self.console.warn(text)

    def _draw_table(self) -> Table:
        """Two lines an epoch, train above val, so that it fits 80 columns."""
        table = Table(
            caption="* best on val so far",
            caption_justify="left",
            box=SIMPLE_HEAD,
            padding=(0, 1),
            collapse_padding=True,
            pad_edge=False,
        )
        for name in ("epoch", "", "loss", "dice", "iou", "accuracy", "patient dice", "lr", "img/s"):
            table.add_column(name, justify="right", no_wrap=True)
        for row, best in self.rows[-SHOWN_EPOCHS:]:
            cell = {name: form.format(row[name]) for name, form in COLUMNS.items()}
            pairs = [f"{cell[f'train_{name}']}\n{cell[f'val_{name}']}" for name in ("loss", "dice", "iou", "accuracy")]
            table.add_row(
                cell["epoch"] + ("*" if best else " "),
                "train\nval",
                *pairs,
                f"\n{cell['val_dice_patient']}",
                cell["lr"],
                cell["images_per_s"],
                style="bold" if best else "",
            )
        return table

    def _draw_bar(self, epoch: int, step: int, steps: int, images_per_s: float) -> Group:
        left = f", {tell_seconds(self.left_s)} left" if self.rows else ""
        of = f" of {self.epochs}" if self.epochs else ""
        words = Text(f"epoch {epoch}{of}: step {step} of {steps}, {images_per_s:.1f} images/s{left}")
        return Group(words, ProgressBar(total=steps, completed=step, width=60))
