"""The command `brainseg`: its subcommands, and what becomes of errors."""

import inspect
import os
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from brainseg_cli import __version__
from brainseg_cli.cli.console import Console
from brainseg_cli.cli.eval_command import eval_command
from brainseg_cli.cli.export_command import export_command
from brainseg_cli.cli.info_command import info_command
from brainseg_cli.cli.overlay_command import overlay_command
from brainseg_cli.cli.predict_command import predict_command
from brainseg_cli.cli.prepare_command import prepare_command
from brainseg_cli.cli.train_command import train_command
from brainseg_cli.errors import EXIT_FAILED, EXIT_INTERRUPTED, BrainsegError, UsageError, hides_interrupt
from brainseg_cli.io.atomic import find_remedy
from brainseg_cli.io.headers import read_max_pixels

EMPTY = "\ue000"
"""Stands for an empty argument while the line is parsed, because Path("") is the current folder. Nobody's file is
called so: it is a character without a meaning."""


class _Command(TyperCommand):
    """One that does not take the empty text of an unset variable, `-o "$OUT"`, for the folder it is called in."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        marked = [text + EMPTY if not text or (text.startswith("--") and text.endswith("=")) else text for text in args]
        rest = super().parse_args(ctx, marked)
        for parameter in self.params:
            value = ctx.params.get(parameter.name)
            several = list(value) if isinstance(value, (list, tuple)) else [value]
            if Path(EMPTY) in several:
                raise UsageError(f"{parameter.opts[-1]} is given an empty name")
            if EMPTY in several:
                texts = ["" if text == EMPTY else text for text in several]
                ctx.params[parameter.name] = texts if isinstance(value, (list, tuple)) else texts[0]
        return rest


app = typer.Typer(
    name="brainseg",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Brain MRI slices to a trained U-Net, and a trained U-Net to masks, measured and drawn. "
    "Research software, no medical device.",
)
COMMANDS: dict[str, Callable[..., None]] = {
    "prepare": prepare_command,
    "train": train_command,
    "eval": eval_command,
    "predict": predict_command,
    "overlay": overlay_command,
    "export": export_command,
    "info": info_command,
}
for _name, _command in COMMANDS.items():
    # the lines of a docstring are the editor's, those of --help the terminal's
    _paragraphs = inspect.cleandoc(_command.__doc__ or "").split("\n\n")
    app.command(_name, help="\n\n".join(" ".join(text.split()) for text in _paragraphs), cls=_Command)(_command)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"brainseg {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Errors with their traceback.", envvar="BRAINSEG_DEBUG")
    ] = False,
) -> None:
    if debug:
        os.environ["BRAINSEG_DEBUG"] = "1"
    # OpenCV has a bound of its own, 2**30, which it reads when it is loaded; where ours is higher, ours holds
    os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(max(read_max_pixels(), 1 << 30)))


def main() -> None:
    """Run the command line; every expected failure ends in one line on stderr and its exit code."""
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # of libraries, about themselves: nothing a user can act on
    # a batch system says SIGTERM: what holds for an interrupt, whole files and how to go on, holds for it
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if callable(signal.getsignal(signal.SIGINT)):  # not where it was started with it ignored, in the background
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        app(prog_name="brainseg")
    except BrainsegError as error:
        if error.exit_code == EXIT_INTERRUPTED:
            _let_signals_end_it()
        _debug_reraise()
        Console().fail(str(error))
        sys.exit(error.exit_code)
    except KeyboardInterrupt:  # before typer listens, or after
        _let_signals_end_it()
        Console().fail("interrupted")
        sys.exit(EXIT_INTERRUPTED)
    except SystemExit as leaving:
        if leaving.code == EXIT_INTERRUPTED:  # typer makes this of a KeyboardInterrupt, and says nothing
            _let_signals_end_it()
            Console().fail("interrupted")
        raise
    except OSError as error:
        _debug_reraise()
        told = BrainsegError(error.strerror or str(error), where=error.filename, hint=find_remedy(error))
        Console().fail(str(told))
        sys.exit(EXIT_FAILED)
    except Exception as error:
        if hides_interrupt(error):
            _let_signals_end_it()
            Console().fail("interrupted")
            sys.exit(EXIT_INTERRUPTED)
        # a fault of the program: the user cannot mend it, so says how to report it
        _debug_reraise()
        Console().fail(f"a fault of brainseg: {type(error).__name__}: {error} (brainseg --debug ... shows where)")
        sys.exit(EXIT_FAILED)


def _let_signals_end_it() -> None:
    """It is leaving: another signal does not interrupt the last words, it ends the process there and then."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


def _debug_reraise() -> None:
    if os.environ.get("BRAINSEG_DEBUG", "").lower() in ("1", "true", "yes", "on"):
        raise
