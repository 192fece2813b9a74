"""The real command, again and again, each in a process of its own that gets a signal at a random moment.

`python killing.py` reads {"root", "signals", "commands", "seed"} as JSON from stdin: a command a signal, 0 lets it end.
What is loaded is loaded once, and forked. Prints a JSON line for each: how it ended, what it said, and every file below
`root` as it stood then, by a hash.
"""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

MOST_S = 120


def kill_and_repeat(
    root: Path, signals: Sequence[int], commands: Sequence[Sequence[object]], *, seed: int = 20240229
) -> list[dict[str, Any]]:
    """How each ended: `code`, `told` and `files`. The first is let end, which tells how long they take."""
    asked = {
        "root": str(root),
        "signals": list(signals),
        "commands": [list(map(str, each)) for each in commands],
        "seed": seed,
    }
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BRAINSEG_")}
    done = subprocess.run(
        [sys.executable, __file__],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        timeout=MOST_S + 20 * len(signals),
        env=environment | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def hash_tree(root: Path) -> dict[str, str]:
    """Every file below, hidden ones too."""
    found = {}
    for path in sorted(root.rglob("*")):
        if path.is_file():
            found[path.relative_to(root).as_posix()] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def _run(command: list[str], told: int) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(told, 2)
    sys.argv = ["brainseg", *command]
    code = 0
    try:
        main()
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    sys.stderr.flush()
    os._exit(code)


def _repeat(asked: dict[str, Any]) -> None:
    moments, lengths = random.Random(asked["seed"]), [0.0]
    for number, command in zip(asked["signals"], asked["commands"], strict=True):
        read, write = os.pipe()
        began = time.monotonic()
        child = os.fork()
        if not child:
            _run(command, write)
        os.close(write)
        if number:
            time.sleep(moments.uniform(0, lengths[-1]))
            os.kill(child, number)
        with os.fdopen(read, encoding="utf-8") as pipe:
            told = pipe.read()
        _, status = os.waitpid(child, 0)
        if not number:
            lengths.append(time.monotonic() - began)
        files = hash_tree(Path(asked["root"]))
        print(json.dumps({"code": os.waitstatus_to_exitcode(status), "told": told, "files": files}), flush=True)  # noqa: T201


if __name__ == "__main__":
    import brainseg_cli.cli.console
    import brainseg_cli.evaluate
    import brainseg_cli.overlay
    import brainseg_cli.prepare  # noqa: F401
    from brainseg_cli.cli.app import main

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run in the background has it ignored
    _repeat(json.load(sys.stdin))
