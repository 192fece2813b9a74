"""An interrupted training as a line that says how to go on."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from brainseg_cli.errors import Interrupted


@contextmanager
def telling_how_to_go_on(out: Path, told: str) -> Iterator[None]:
    """An interrupt as what is told, and, where there is a run or a k-fold, the command that goes on with it."""
    try:
        yield
    except KeyboardInterrupt:
        from brainseg_cli.training.run_folder import RunFolder, is_kfold

        run = RunFolder(out)
        hint = run.goes_on if run.info.exists() or is_kfold(out) else None
        raise Interrupted(told, where=out, hint=hint) from None
