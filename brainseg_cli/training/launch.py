"""One command as several processes, and their end as the end of one: one line, one exit code.

The processes are started by torch.distributed's elastic agent, as torchrun starts them. A process that fails
says why in the file that the agent names; who started it tells the first such reason, once.
"""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

from brainseg_cli.errors import EXIT_FAILED, EXIT_INTERRUPTED, BrainsegError

EXIT_TERMINATED = 128 + signal.SIGTERM
"""Of a process that was stopped together with the others: the launcher says so, it does not."""
STOPPED = (EXIT_TERMINATED, EXIT_INTERRUPTED, -signal.SIGTERM, -signal.SIGINT)
OURS = "BRAINSEG_LAUNCHER_PID"
STOP_S = "10"
"""How long a process may take to end before it is killed."""


def find_rank() -> int:
    """Which of a launcher's processes this is; 0 where none started it."""
    return int(os.environ["RANK"]) if "TORCHELASTIC_RUN_ID" in os.environ else 0


def is_launched() -> bool:
    """Whether `launch` started this process."""
    return OURS in os.environ


def is_under_torchrun() -> bool:
    """Whether torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ and not is_launched()


def launch(command: Sequence[str], processes: int) -> None:
    """Run `command` as that many processes of one world, and wait for them.

    Raises what the first to fail ended with: a BrainsegError of its line and exit code, SystemExit of a code that
    came without a line; KeyboardInterrupt for a signal, which ends them all.
    """
    import tempfile
    import uuid

    import torch
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    settings = {
        "OMP_NUM_THREADS": str(max(1, torch.get_num_threads() // processes)),
        "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": STOP_S,
    }
    settings = settings | os.environ | {OURS: str(os.getpid())}
    program, *arguments = command
    arguments = [part.replace("$", "$$") for part in arguments]  # the agent takes them for templates
    with _undisturbed(settings), tempfile.TemporaryDirectory(prefix="brainseg-") as reasons:
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=processes,
            run_id=uuid.uuid4().hex,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            local_addr="localhost",
            max_restarts=0,
            logs_specs=DefaultLogsSpecs(reasons),
        )
        try:
            elastic_launch(config, program)(*arguments)
        except SignalException:
            raise KeyboardInterrupt from None
        except ChildFailedError as error:
            _raise_reason(error.failures)


@contextmanager
def telling_launcher() -> Iterator[None]:
    """Around what a process does: where a launcher started it, its failure is for the launcher to tell.

    Of torchrun's processes the first tells its own as well, as one that was started alone.
    """
    file = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if not file:
        yield
        return
    alone = find_rank() == 0 and not is_launched()
    try:
        if is_launched():
            threading.Thread(target=_end_with, args=(int(os.environ[OURS]),), daemon=True).start()
        yield
    except KeyboardInterrupt:
        if alone:
            raise
        _end(EXIT_TERMINATED)
    except Exception as error:
        Path(file).write_text(json.dumps(_describe(error)), encoding="utf-8")
        if alone:
            raise
        if os.environ.get("BRAINSEG_DEBUG"):
            sys.excepthook(type(error), error, error.__traceback__)
        _end(EXIT_FAILED)


def _describe(error: Exception) -> dict[str, Any]:
    """What the agent reads (`message`, `timestamp`), and what `_raise_reason` does. Expected failures come first."""
    line, order, code = f"{type(error).__name__}: {error}", 1, EXIT_FAILED
    if isinstance(error, BrainsegError):
        line, order, code = str(error), 0, error.exit_code
    elif isinstance(error, OSError):
        line, order = (f"{error.filename}: " if error.filename else "") + (error.strerror or str(error)), 0
    elif type(error).__name__.startswith("Dist") or "gloo" in str(error):
        order = 3  # it misses another, which has a reason of its own
    return {"message": line, "timestamp": time.time(), "order": order, "exit_code": code}


def _raise_reason(failures: Mapping[int, Any]) -> None:
    """The reason among these: one that was expected, a fault, a process that was killed, one that missed another."""
    reasons: list[dict[str, Any]] = []
    silent: list[int] = []
    for rank, failure in failures.items():
        if "order" in failure.error_file_data:
            reasons.append(failure.error_file_data)
        elif failure.exitcode in STOPPED:
            continue  # because of another
        elif failure.exitcode < 0:
            name = signal.Signals(-failure.exitcode).name
            line = f"process {rank} was ended by {name}, so the others were stopped (--resume goes on)"
            reasons.append({"message": line, "timestamp": 0, "order": 2, "exit_code": EXIT_FAILED})
        else:
            silent.append(failure.exitcode)
    if not reasons and silent:
        sys.exit(silent[0])
    if not reasons:
        raise KeyboardInterrupt
    first = min(reasons, key=lambda reason: (reason["order"], reason["timestamp"]))
    if first["order"] in (1, 3):
        raise RuntimeError(first["message"])
    error = BrainsegError(first["message"])
    error.exit_code = first["exit_code"]
    raise error


@contextmanager
def _undisturbed(environment: Mapping[str, str]) -> Iterator[None]:
    """The agent passes the environment on, takes over signals, and logs what is told here in one line.

    What was before comes back.
    """
    import logging

    names = [name for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT") if hasattr(signal, name)]
    handlers = {number: signal.getsignal(number) for number in (getattr(signal, name) for name in names)}
    logger, quiet = logging.getLogger("torch.distributed.elastic"), logging.NullHandler()
    logger.addHandler(quiet)
    logger.propagate = bool(os.environ.get("BRAINSEG_DEBUG"))
    before = dict(os.environ)
    os.environ.update(environment)
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        logger.removeHandler(quiet)
        logger.propagate = True
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _end_with(parent: int) -> None:
    """A launcher that was killed cannot end its processes: they see it themselves."""
    while os.getppid() == parent:
        time.sleep(1)
    _end(EXIT_TERMINATED)


def _end(code: int) -> NoReturn:
    """At once: to take a process group down in order takes the others, who may be gone."""
    with suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)
