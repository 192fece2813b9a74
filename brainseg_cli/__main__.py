"""The command `brainseg`, which is `python -m brainseg_cli` too."""

import os
import signal

from brainseg_cli.errors import EXIT_INTERRUPTED


def main() -> None:
    """`cli.app.main`, and until that is loaded, which takes a quarter of a second, one line for an interrupt."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _leave)
    from brainseg_cli.cli.app import main as run

    run()


def _leave(*_: object) -> None:
    os.write(2, b"error: interrupted\n")
    os._exit(EXIT_INTERRUPTED)


if __name__ == "__main__":
    main()
