"""state/: all that the loop needs to go on where it stopped, twice. Tensors and plain values, no code.

last.pt is the newest state. previous.pt is the one before, in place until the newest is whole on the disk.
"""

import hashlib
import io
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from brainseg_cli.errors import InputError
from brainseg_cli.io.atomic import atomic_path, sync_file, sync_folder
from brainseg_cli.io.images import read_bytes

SCHEMA_VERSION = 2
MAGIC = b"brainseg state "
"""What a file begins with; then SHA-256 of the rest, which PyTorch wrote and would read with a bit flipped, as hex."""
HEADER_BYTES = len(MAGIC) + 64 + 1
TIMING = ("seconds", "images_per_s")
"""Of an epoch: what no two runs have in common."""
BEGIN_ANEW = "train with --overwrite begins anew; model/ has the best weights so far"


@dataclass
class TrainingState:
    """After `epoch` whole epochs and `position` batches of the next one, at the end of a step of the optimiser.

    Random draws need no place here: they depend on seed, epoch, slice and batch alone.
    """

    epoch: int = 0
    step: int = 0
    model: dict[str, Any] = field(default_factory=dict)
    average: dict[str, Any] = field(default_factory=dict)
    """Empty where weights are not averaged."""
    optimizer: dict[str, Any] = field(default_factory=dict)
    scaler: dict[str, Any] = field(default_factory=dict)
    best: dict[str, Any] = field(default_factory=dict)
    """Weights of the best epoch, on the CPU: what the bundle is made of, should it have come to harm."""
    best_epoch: int = 0
    best_score: float = -1.0
    stale_epochs: int = 0
    lr_factor: float = 1.0
    rows: list[dict[str, float]] = field(default_factory=list)
    """metrics.csv so far."""
    timings: list[dict[str, float]] = field(default_factory=list)
    """timings.csv so far."""
    stopped_early: bool = False
    position: int = 0
    images: int = 0
    """Slices of the unfinished epoch that were trained on; the sums below, and the time, are of these."""
    seconds: float = 0.0
    loss_sum: Tensor = field(default_factory=lambda: torch.zeros(()))
    counts: Tensor = field(default_factory=lambda: torch.zeros(4, dtype=torch.float64))
    """tp, fp, fn, tn."""

    def end_epoch(self) -> None:
        """What is counted within an epoch starts again."""
        self.epoch += 1
        self.position = self.images = 0
        self.seconds = 0.0
        self.loss_sum, self.counts = torch.zeros_like(self.loss_sum), torch.zeros_like(self.counts)


class NewerStateError(InputError):
    """A newer version of the program wrote it: no damage, and nothing to fall back from."""


def save_state(path: Path, state: TrainingState) -> None:
    """Write the state to `path`, whole or not at all; the one that was there becomes previous.pt beside it.

    It is on the disk before either name changes, so that at every moment there is a whole one.
    """
    buffer = io.BytesIO()
    torch.save({"schema_version": SCHEMA_VERSION, **vars(state)}, buffer)
    content = buffer.getbuffer()
    with atomic_path(path) as aside:
        with aside.open("wb") as file:
            file.write(MAGIC + hashlib.sha256(content).hexdigest().encode() + b"\n")
            file.write(content)
        sync_file(aside)
        if path.exists():
            path.replace(_name_previous(path))
    sync_folder(path.parent)


def load_newest(path: Path, tell: Callable[[str], object]) -> TrainingState | None:
    """The state at `path`; where it is damaged, or a kill left none, the one before, which `tell` hears.

    None where neither is there. InputError where none of what is there can be used, or a newer program wrote it.
    """
    previous = _name_previous(path)
    if not path.exists() and not previous.exists():
        return None
    try:
        return load_state(path)
    except NewerStateError:
        raise
    except InputError as error:
        if not previous.exists():
            raise InputError(f"{error.what}, and there is none before it", where=path, hint=BEGIN_ANEW) from None
        fault = error
    try:
        state = load_state(previous)
    except NewerStateError:
        raise
    except InputError:
        told = f"{fault.what}, and {previous.name} beside it cannot be used either"
        raise InputError(told, where=path, hint=BEGIN_ANEW) from None
    with suppress(OSError):  # else the next save would put it in the place of the whole one
        path.unlink(missing_ok=True)
    tell(f"{path}: {fault.what}; going on from the state before it, {previous.name}")
    return state


def load_state(path: Path) -> TrainingState:
    """Read a state; nothing in the file is executed. InputError where it is missing, damaged or newer."""
    data = memoryview(read_bytes(path))
    content, sealed = data, data[: len(MAGIC)] == MAGIC
    if sealed:
        content = data[HEADER_BYTES:]
        if bytes(data[len(MAGIC) : HEADER_BYTES]) != hashlib.sha256(content).hexdigest().encode() + b"\n":
            raise InputError("is damaged: its checksum is another", where=path)
    try:
        values = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        version = values.pop("schema_version")
        if version > SCHEMA_VERSION:
            told = f"has schema {version}, this program reads up to {SCHEMA_VERSION}"
            raise NewerStateError(told, where=path, hint="update brainseg")
        if not sealed and version > 1:
            raise InputError("is damaged: it has no checksum", where=path)
        state = TrainingState(**(_upgrade(values) if version == 1 else values))
        blank = vars(TrainingState())
        if wrong := [name for name, value in vars(state).items() if not isinstance(value, type(blank[name]))]:
            raise InputError(f"is no training state: {', '.join(wrong)} of another type", where=path)
    except InputError:
        raise
    except Exception:  # a damaged file fails in as many ways as it has bytes
        told = "is no training state: damaged, or more than tensors and plain values, of which nothing was run"
        raise InputError(told, where=path) from None
    return state


def _upgrade(values: dict[str, Any]) -> dict[str, Any]:
    """Schema 1 had what the clock says among the metrics, and None for no average."""
    rows = values["rows"]
    timings = [{"epoch": row["epoch"]} | {name: row[name] for name in TIMING if name in row} for row in rows]
    rows = [{name: value for name, value in row.items() if name not in TIMING} for row in rows]
    return values | {"rows": rows, "timings": timings, "average": values["average"] or {}}


def _name_previous(path: Path) -> Path:
    return path.with_name("previous.pt")
