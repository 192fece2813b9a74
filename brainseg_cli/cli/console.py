"""How the program talks: data to stdout, everything else to stderr."""

import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from brainseg_cli.errors import EXIT_CLOSED_PIPE, UsageError
from brainseg_cli.io.lines import to_json
from brainseg_cli.types import Progress, no_progress

if TYPE_CHECKING:
    from rich.console import Console as RichConsole
    from rich.progress import Progress as RichProgress

PLAIN_EVERY_S = 10.0


class Console:
    """Messages for people. `quiet` leaves warnings and errors; `verbose` adds detail."""

    def __init__(self, *, quiet: bool = False, verbose: bool = False) -> None:
        from rich.console import Console as RichConsole

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
        self.rich.print(f"warning: {_on_one_line(text)}", style="yellow")

    def fail(self, text: str) -> None:
        self.rich.print(f"error: {_on_one_line(text)}", style="bold red")

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], *, note: str = "") -> None:
        """A table on stderr: the first column to the left, numbers to the right."""
        if self.quiet:
            return
        from rich.table import Table

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
        """A callback (done, total, what): a bar on a terminal, elsewhere a line now and then. Total 0: not known."""
        if self.quiet:
            yield no_progress
        elif self.draws:
            with _bar(self.rich) as bar:
                tasks: dict[str, Any] = {}

                def draw(done: int, total: int, what: str) -> None:
                    if what not in tasks:
                        tasks[what] = bar.add_task(what, total=total or None)
                    bar.update(tasks[what], completed=done, total=total or None)

                yield draw
        else:
            spoken = {"at": time.monotonic()}

            def tell(done: int, total: int, what: str) -> None:
                now = time.monotonic()
                if now - spoken["at"] >= PLAIN_EVERY_S:
                    spoken["at"] = now
                    self.say(f"{what}: {done} of {total}" if total else f"{what}: {done}")

            yield tell


def emit(line: str) -> None:
    """One line of data to stdout, at once. A name that is no text goes out as the bytes it is."""
    if sys.stdout is None:  # as print does where the program was started without
        return
    with _quiet_where_nobody_reads():
        if hasattr(sys.stdout, "reconfigure"):
            sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


def emit_bytes(data: bytes) -> None:
    """An image to stdout. UsageError where that is a terminal, or closed."""
    if sys.stdout is None or sys.stdout.isatty():
        raise UsageError("-o - writes an image, and stdout is a terminal or closed", hint="send it to a file or a pipe")
    with _quiet_where_nobody_reads():
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()


@contextmanager
def _quiet_where_nobody_reads() -> Iterator[None]:
    """Whoever read stdout has gone, as `head` does: there is nothing left to do and nothing to say."""
    try:
        yield
    except BrokenPipeError:
        # what is buffered still would be written at the end, and fail again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_CLOSED_PIPE)
    except OSError as error:
        error.filename = "stdout"
        raise


def emit_json(value: Any, *, indent: int | None = None) -> None:
    """One JSON value to stdout; what is not a finite number is null."""
    emit(to_json(value, indent=indent))


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


def _on_one_line(text: str) -> str:
    """What a name holds that is no visible character, a line's end or a terminal's command, as an escape."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def _bar(console: "RichConsole") -> "RichProgress":
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )
