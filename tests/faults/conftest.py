"""A disk that gives out: one that is really small, and one whose n-th write fails."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """`small_disk("size=200k")`: a file system of its own with these options."""
    mounted: list[Path] = []

    def mount(options: str) -> Path:
        folder = tmp_path / "disk"
        folder.mkdir(exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=30)
        except OSError as error:
            pytest.skip(f"there is no mount: {error}")
        if done.returncode:
            pytest.skip(f"a file system cannot be mounted here: {done.stderr.strip()}")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", str(folder)], check=True, timeout=30)


WRITING = os.O_WRONLY | os.O_RDWR
NAMING = ("os.rename", "os.remove", "os.rmdir")
"""What a full disk still does, and one that is gone does not."""


@dataclass
class FailingDisk:
    """From the operation `first` on, all that write below `folder` fail with `number`; `done` counts them."""

    folder: Path
    first: int
    number: int
    names_too: bool
    done: int = 0

    def hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            # none is opened to be written to that is not made, or emptied, by that
            concerned = isinstance(flags, int) and bool(flags & WRITING) and bool(flags & os.O_CREAT)
        else:
            path = arguments[1] if event == "os.rename" else arguments[0]
            concerned = event == "os.mkdir" or (self.names_too and event in NAMING)
        if not concerned or isinstance(path, int) or not os.fspath(path).startswith(str(self.folder)):
            return
        self.done += 1
        if self.done >= self.first:
            raise OSError(self.number, os.strerror(self.number), os.fspath(path))


_disks: list[FailingDisk] = []


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if _disks and (event in ("open", "os.mkdir") or event in NAMING):
        _disks[-1].hear(event, arguments)


@pytest.fixture(scope="session")
def _hook() -> None:
    sys.addaudithook(_hear)  # which stays for as long as the process does


@pytest.fixture
def failing_disk(_hook: None) -> Callable[..., Any]:
    """`with failing_disk(folder, 3, errno.EIO, names_too=True) as disk`; the first operation is number 1."""

    @contextmanager
    def fail(folder: Path, first: int, number: int, *, names_too: bool = False) -> Iterator[FailingDisk]:
        _disks.append(FailingDisk(folder, first, number, names_too))
        try:
            yield _disks[-1]
        finally:
            _disks.pop()

    return fail
