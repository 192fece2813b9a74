"""One exception tree: what happened, where, what to do next, and the exit code it ends with.

    BrainsegError            1   could not be done
      UsageError             2   the request itself makes no sense
      InputError             1   a file or value given to us is not usable
      OutputExistsError      1   the result would write over something
      BusyError              1   another command is writing there
      DownloadError          1   something had to be downloaded and could not be
      TrainingError          1   the optimisation cannot go on
      DiskError              1   nothing more can be written there
      Interrupted          130   stopped by the user, or by whoever ran it

Anything else that reaches the command line is a fault of the program. Code 3 (done in part) is a
result, not an exception: the use-case returns it and the command exits with it. So is code 4 (a gate was not met).
"""

from pathlib import Path

EXIT_FAILED, EXIT_USAGE, EXIT_PARTIAL, EXIT_GATE, EXIT_INTERRUPTED, EXIT_CLOSED_PIPE = 1, 2, 3, 4, 130, 141


class BrainsegError(Exception):
    """An expected failure, told in one line: `what (where): next`."""

    exit_code = EXIT_FAILED

    def __init__(self, what: str, *, where: Path | str | None = None, hint: str | None = None) -> None:
        super().__init__(what)
        self.what, self.where, self.hint = what, where, hint

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where is not None else ""
        return f"{place}{self.what}" + (f" ({self.hint})" if self.hint else "")


class UsageError(BrainsegError):
    """The request contradicts itself or asks for something that does not exist."""

    exit_code = EXIT_USAGE


class InputError(BrainsegError):
    """A file, folder, table or value that was given cannot be used."""


class OutputExistsError(BrainsegError):
    """The output is already there and neither --overwrite nor --resume was given."""


class BusyError(BrainsegError):
    """Another command is writing the same output."""


class DownloadError(BrainsegError):
    """A download was needed and did not succeed."""


class TrainingError(BrainsegError):
    """Training cannot go on: a loss that is not finite, or not enough memory."""


class DiskError(BrainsegError):
    """A disk is full, a quota is used up, or it can no longer be written to: to go on with other files is useless."""


class Interrupted(BrainsegError):
    """A SIGINT or SIGTERM came; what was done is kept, and the hint says how to go on."""

    exit_code = EXIT_INTERRUPTED


def hides_interrupt(error: BaseException) -> bool:
    """Whether an interrupt is behind it: a library that is being imported makes an error of its own of one."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, KeyboardInterrupt):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def count(number: int, noun: str) -> str:
    """`1 file`, `2 files`: a number of things whose plural ends in s."""
    return f"{number} {noun}" + ("s" if number != 1 else "")
