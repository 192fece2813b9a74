"""state/last.pt: all that the loop needs to go on where it stopped. Tensors and plain values, no code."""

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from brainseg_cli.errors import InputError
from brainseg_cli.io.atomic import write_bytes
from brainseg_cli.io.images import read_bytes

SCHEMA_VERSION = 1


@dataclass
class TrainingState:
    """After `epoch` whole epochs. Random draws need no place here: they depend on seed and epoch alone."""

    epoch: int = 0
    step: int = 0
    model: dict[str, Any] = field(default_factory=dict)
    average: dict[str, Any] | None = None
    optimizer: dict[str, Any] = field(default_factory=dict)
    scaler: dict[str, Any] = field(default_factory=dict)
    best_epoch: int = 0
    best_score: float = -1.0
    stale_epochs: int = 0
    lr_factor: float = 1.0
    rows: list[dict[str, float]] = field(default_factory=list)
    """metrics.csv so far."""
    stopped_early: bool = False


def save_state(path: Path, state: TrainingState) -> None:
    """Write the state, whole or not at all, synced to disk before it takes the old one's place."""
    buffer = io.BytesIO()
    torch.save({"schema_version": SCHEMA_VERSION, **vars(state)}, buffer)
    write_bytes(path, buffer.getvalue(), sync=True)


def load_state(path: Path) -> TrainingState:
    """Read a state; nothing in the file is executed. InputError where it is missing, broken or newer."""
    try:
        value = torch.load(io.BytesIO(read_bytes(path)), map_location="cpu", weights_only=True)
        version = value.pop("schema_version")
        if version > SCHEMA_VERSION:
            raise InputError(f"has schema {version}, this program reads {SCHEMA_VERSION}", where=path)
        return TrainingState(**value)
    except InputError:
        raise
    except Exception as error:  # a damaged file fails in as many ways as it has bytes
        raise InputError(f"is no training state: {type(error).__name__}", where=path) from None
