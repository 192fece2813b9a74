"""One command at a time writes one output; another that would is refused, and told who is at it.

The lock of `masks` is the file `.masks.HASH.lock` beside it, never in it, taken with flock. The system lets go of it
when the process ends, however it ends: what a kill leaves is a file that means nothing, and the next command takes it
over.
Who leaves in order removes the file while holding the lock. Another, that had opened it before, gets the lock then of a
file that no longer lies there; it sees that, and begins again with the one that does, so no two have locks of one name.
Processes that are forked meanwhile let go of it at once: it does not outlive the one that took it.

Where no file can be made beside the output (a mount in a closed folder) the folder itself is locked, and nobody named;
where that is not there either, nothing can be written. Over NFS flock is a lock of the server's, and holds between
machines as far as theirs are set up to. Where the disk knows no locks, over NFS where the file is another user's, and
on Windows, nothing is locked.
"""

import errno
import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from pathlib import Path

from brainseg_cli.errors import BusyError, OutputExistsError
from brainseg_cli.io.atomic import AGAIN, name_aside, telling

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EINVAL, errno.EBADF)
"""Where the disk knows no locks; the last over NFS, of a file that could be opened to be read alone."""
MOST_BYTES = 4096
_held: set[int] = set()


@contextmanager
def lock(
    path: Path, command: str, *, share: str | None = None, wait: bool = False, then: str = AGAIN
) -> Iterator[None]:
    """Be the one who writes the file or folder `path`, which need not be there; `command` is what others are told.

    With `share`, be one of several, each with a name of its own, that write there side by side: they refuse whoever
    would have it alone, and one of the same name. BusyError where it is taken, or with `wait` no such error but
    patience; BrainsegError or DiskError, as `telling`, where nothing can be written. The folders around it are made,
    and taken away again where nothing came into them.
    """
    path = Path(os.path.realpath(path))
    if not path.name:
        raise OutputExistsError("is no place for a result", where=path, hint="give another -o")
    if fcntl is None:
        yield
        return
    made = [folder for folder in path.parents if not folder.exists()]
    try:
        with ExitStack() as held:
            with telling(path, then=then):
                path.parent.mkdir(parents=True, exist_ok=True)
                held.enter_context(_hold(path, path, command, shared=bool(share), wait=wait))
                if share:
                    own = path.with_name(f"{path.name} {share}")
                    held.enter_context(_hold(own, path, command, shared=False, wait=wait))
            yield
    finally:
        for folder in made:
            with suppress(OSError):  # it holds something now
                folder.rmdir()


@contextmanager
def _hold(name: Path, path: Path, command: str, *, shared: bool, wait: bool) -> Iterator[None]:
    file = name_aside(name, "lock")
    mode = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB)
    place, descriptor = _take(file, path, mode)
    _held.add(descriptor)
    try:
        if place == file:
            with suppress(OSError):  # it holds without a name too
                _sign(descriptor, command)
        yield
    finally:
        if descriptor in _held:  # else this is a process that was forked
            with suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # of several, the last one gets it
                if place == file and os.path.samestat(os.fstat(descriptor), file.stat()):
                    file.unlink()
            _held.discard(descriptor)
            os.close(descriptor)


def _take(file: Path, path: Path, mode: int) -> tuple[Path, int]:
    while True:
        place, descriptor = _open(file, path)
        try:
            fcntl.flock(descriptor, mode)
            if os.path.samestat(os.fstat(descriptor), place.stat()):
                return place, descriptor
        except FileNotFoundError:  # who had it took it away
            pass
        except BlockingIOError:
            owner = _read_owner(descriptor) if place == file else "another command"
            os.close(descriptor)
            told = f"is being written by {owner}"
            raise BusyError(told, where=path, hint="wait for it, or give another -o") from None
        except OSError as error:
            if error.errno in NO_LOCKS:
                if place == file:
                    with suppress(OSError):  # it means nothing there
                        file.unlink()
                return place, descriptor
            os.close(descriptor)
            raise
        os.close(descriptor)


def _open(file: Path, path: Path) -> tuple[Path, int]:
    """The lock file, read-only where it is another user's, else what it is the lock of."""
    first: OSError | None = None
    for place, flags in ((file, os.O_RDWR | os.O_CREAT), (file, os.O_RDONLY), (path, os.O_RDONLY)):
        try:
            return place, os.open(place, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
        except OSError as error:
            first = first or error
    assert first is not None
    raise first


def _sign(descriptor: int, command: str) -> None:
    since = datetime.now().astimezone().isoformat(" ", "seconds")
    owner = {"command": f"brainseg {command}", "process": os.getpid(), "host": os.uname().nodename, "since": since}
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(owner).encode(), 0)


def _read_owner(descriptor: int) -> str:
    """Who signed; what is read is anybody's, and may be half of it."""
    try:
        owner = json.loads(os.pread(descriptor, MOST_BYTES, 0))
        return f"{owner['command']} since {owner['since']}, process {owner['process']} on {owner['host']}"
    except (OSError, ValueError, TypeError, LookupError, RecursionError):
        return "another command"


def _let_go() -> None:
    """In a process that was just forked: to close is not to unlock, the lock stays the other's."""
    while _held:
        os.close(_held.pop())


if fcntl is not None:
    os.register_at_fork(after_in_child=_let_go)
