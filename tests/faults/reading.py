"""A program that reads what it is told to: a line of `kind path` in, a line of what became of it out.

Run by itself, so that a reader which crashes or hangs takes only this process with it.
"""

import os
import resource
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

from brainseg_cli.config import load_config
from brainseg_cli.data.groups import read_metadata
from brainseg_cli.data.layouts import pair_files
from brainseg_cli.data.manifest import load_dataset, read_slices
from brainseg_cli.data.splits import assign_split
from brainseg_cli.errors import BrainsegError
from brainseg_cli.io.archives import open_source
from brainseg_cli.io.embedded import read_about
from brainseg_cli.io.images import read_image, read_mask, read_probs
from brainseg_cli.io.sources import Request
from brainseg_cli.models.bundle import load_bundle
from brainseg_cli.models.locate import open_bundle
from brainseg_cli.overlay.matching import Failure
from brainseg_cli.overlay.records import Records
from brainseg_cli.training.state import load_state

MOST_BYTES = 24 << 30
"""Of address space: who asks for more is refused by the system."""


def read_zip(path: Path) -> None:
    """All entries, read and paired; those that fail alone are told apart."""
    source = open_source(path)
    pair_files(source.sizes)
    for name in source.sizes:
        source.read(name)


def read_whole(path: Path) -> None:
    """A dataset of which one file was changed: refused by its checksum, or by what it says."""
    dataset = load_dataset(path)
    dataset.image(0), dataset.mask(0)


def read_unverified(path: Path) -> None:
    """The same without the checksums: whatever is read is within the arrays."""
    dataset = load_dataset(path, verify=False)
    for row in range(len(dataset.slices)):
        dataset.image(row).max(), dataset.mask(row).max()


def read_records(path: Path) -> None:
    """A line that is none fails alone."""
    found = list(Records(str(path), Request(), sys.stdin.buffer))
    if found and all(isinstance(item, Failure) for item in found):
        raise BrainsegError("every line failed")


READERS: dict[str, Callable[[Path], object]] = {
    "image": read_image,
    "mask": read_mask,
    "map": lambda path: read_probs(path, faint=True),
    "array": lambda path: read_probs(path, faint=True),
    "note": read_about,
    "zip": read_zip,
    "dataset": read_whole,
    "dataset unverified": read_unverified,
    "slices table": read_slices,
    "split table": lambda path: assign_split(str(path), ["a", "b"], [1, 0], seed=0, allow_leakage=False),
    "metadata table": lambda path: read_metadata(path, ["a", "b"]),
    "config": lambda path: load_config(path=path),
    "bundle": open_bundle,
    "bundle unverified": lambda path: load_bundle(path, verify=False),
    "exported": open_bundle,
    "records": read_records,
    "state": load_state,
    # by which the tests see that they would see it
    "crash": lambda path: os.abort(),
    "hang": lambda path: time.sleep(3600),
    "fault": lambda path: 1 / 0,
}


def main() -> None:
    """Answer `accepted`, `refused WHAT` or `fault TRACEBACK`, on one line, for each line that comes."""
    resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))
    warnings.simplefilter("ignore")
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin:
        kind, _, path = line.rstrip("\n").partition("\t")
        try:
            READERS[kind](Path(path))
            told = "accepted"
        except BrainsegError as error:
            told = f"refused {error.what}" if "\n" not in error.what else f"fault two lines: {error.what!r}"
        except Exception:
            told = f"fault {traceback.format_exc()!r}"
        sys.stdout.write(told.encode("unicode_escape").decode() + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
