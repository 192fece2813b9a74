"""How the program talks: data to stdout, everything else to stderr."""

import json
import math
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console as RichConsole
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress
from rich.table import Table

from brainseg_cli.types import Progress, no_progress

PLAIN_EVERY_S = 10.0


class Console:
    """Messages for people. `quiet` leaves warnings and errors; `verbose` adds detail."""

    def __init__(self, *, quiet: bool = False, verbose: bool = False) -> None:
        self.quiet, self.verbose = quiet, verbose
        self.rich = RichConsole(stderr=True, markup=False, highlight=False, emoji=False, soft_wrap=True)

    @property
    def draws(self) -> bool:
        """Whether bars and live tables have somewhere to move."""
        return self.rich.is_terminal and not self.quiet

    def say(self, text: str) -> None:
        if not self.quiet:
            self.rich.print(text)

    def detail(self, text: str) -> None:
        if self.verbose:
            self.rich.print(text)

    def warn(self, text: str) -> None:
        self.rich.print(f"warning: {text}", style="yellow")

    def fail(self, text: str) -> None:
        self.rich.print(f"error: {text}", style="bold red")

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], *, note: str = "") -> None:
        """A table on stderr: the first column to the left, numbers to the right."""
        if self.quiet:
            return
        self.rich.print(title)
        table = Table()
        for number, column in enumerate(columns):
            name = number == 0  # names are looked up as they stand: whatever folds, they do not
            table.add_column(column, justify="left" if name else "right", overflow="fold", no_wrap=name)
        for row in rows:
            table.add_row(*(tell_value(value) for value in row))
        self.rich.print(table, soft_wrap=False)
        if note:
            self.rich.print(note)

    @contextmanager
    def progress(self) -> Iterator[Progress]:
        """A callback (done, total, what): a bar on a terminal, elsewhere a line now and then."""
        if self.quiet:
            yield no_progress
        elif self.draws:
            with _bar(self.rich) as bar:
                tasks: dict[str, Any] = {}

                def draw(done: int, total: int, what: str) -> None:
                    if what not in tasks:
                        tasks[what] = bar.add_task(what, total=total)
                    bar.update(tasks[what], completed=done, total=total)

                yield draw
        else:
            spoken = {"at": time.monotonic()}

            def tell(done: int, total: int, what: str) -> None:
                now = time.monotonic()
                if now - spoken["at"] >= PLAIN_EVERY_S:
                    spoken["at"] = now
                    self.say(f"{what}: {done} of {total}")

            yield tell


def emit(line: str) -> None:
    """One line of data to stdout, at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def emit_json(value: Any, *, indent: int | None = None) -> None:
    """One JSON value to stdout; what is not a finite number is null."""
    emit(json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False))


def tell_value(value: Any) -> str:
    """A cell: floats to four digits, what is not defined as a dash."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return str(value)


def tell_seconds(seconds: float) -> str:
    """`75` -> `1:15`, `3700` -> `1:01:40`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _bar(console: RichConsole) -> RichProgress:
    return RichProgress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )
