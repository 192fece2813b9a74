"""What PyTorch raises when a machine cannot go on, as one line and the next thing to try."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from brainseg_cli.config import TrainConfig
from brainseg_cli.errors import TrainingError

DEAD_WORKER = "DataLoader worker (pid"
IN_WORKER = "in DataLoader worker process"
NO_MEMORY = ("DefaultCPUAllocator", "out of memory", "not enough memory", "bad_alloc")
"""PyTorch's own words; on a GPU it has a class for it, on a CPU it has not."""
NO_FORM = "does not have a deterministic implementation"


def is_dead_worker(error: BaseException) -> bool:
    """Whether this is PyTorch's word for a process that loaded slices, and ended."""
    return isinstance(error, RuntimeError) and str(error).startswith(DEAD_WORKER)


@contextmanager
def explaining(config: TrainConfig, device: torch.device, *, go_on: str) -> Iterator[None]:
    """Within, memory, workers and ops without a deterministic form end in a TrainingError; the rest as it is.

    `go_on` says how to go on with what was saved.
    """
    try:
        yield
    except Exception as error:
        explained = _explain(error, config, device, go_on)
        if explained is None:
            raise
        raise explained from None


def _explain(error: Exception, config: TrainConfig, device: torch.device, go_on: str) -> TrainingError | None:
    text = str(error)
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and any(part in text for part in NO_MEMORY)):
        where = "a worker process" if IN_WORKER in text else device
        return TrainingError(
            f"{where} has not enough memory for batches of {config.batch_size}",
            hint=f"once there is more, {go_on}; or begin anew: a smaller --batch-size with --set train.accumulate=2, "
            "or a smaller --image-size, with --overwrite",
        )
    if is_dead_worker(error):
        how = re.search(r"killed by signal: [\w ]+", text)
        return TrainingError(
            f"a worker process that loads slices has ended{f' ({how[0].strip()})' if how else ''}",
            hint=f"often for want of memory; fewer --workers, or --workers 0: {go_on}",
        )
    if IN_WORKER in text:
        last = text.strip().splitlines()[-1].strip()
        return TrainingError(f"a worker process that loads slices has failed: {last}", hint=f"then {go_on}")
    if isinstance(error, RuntimeError) and NO_FORM in text:
        return TrainingError(
            f"{text.partition(' ')[0]} has no deterministic form on {device}",
            hint="begin anew without --deterministic, or with another --loss or --encoder, with --overwrite",
        )
    return None
