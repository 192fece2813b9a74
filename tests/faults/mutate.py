"""What may become of a file: pure functions of its bytes and a random generator."""

import random
from collections.abc import Callable

MAGICS = (
    b"\x89PNG\r\n\x1a\n",
    b"II*\0",
    b"MM\0*",
    b"II+\0",
    b"\xff\xd8\xff\xe0",
    b"GIF89a",
    b"PK\3\4",
    b"\x93NUMPY\1\0",
    b"\x80\2",
    b"{",
)
EXTREMES = (b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\0", b"\0\0\0\x80", b"\x60\xea\0\0", b"\0\0\xea\x60")


def flip(data: bytes, rng: random.Random) -> bytes:
    """One to eight bits."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def truncate(data: bytes, rng: random.Random) -> bytes:
    """Cut off anywhere, to nothing too."""
    return data[: rng.randrange(len(data))]


def insert(data: bytes, rng: random.Random) -> bytes:
    """Up to 64 bytes that were not there."""
    at = rng.randrange(len(data))
    return data[:at] + rng.randbytes(rng.randint(1, 64)) + data[at:]


def duplicate(data: bytes, rng: random.Random) -> bytes:
    """A stretch once more."""
    start = rng.randrange(len(data))
    end = min(len(data), start + rng.randint(1, 512))
    return data[:end] + data[start:end] + data[end:]


def remove(data: bytes, rng: random.Random) -> bytes:
    """A stretch left out."""
    start = rng.randrange(len(data))
    return data[:start] + data[start + rng.randint(1, 64) :]


def blank(data: bytes, rng: random.Random) -> bytes:
    """A stretch of zeros, as a disk leaves it."""
    start = rng.randrange(len(data))
    length = min(len(data) - start, rng.randint(1, 512))
    return data[:start] + bytes(length) + data[start + length :]


def exaggerate(data: bytes, rng: random.Random) -> bytes:
    """Four bytes, most often of a header, made a length or a size that cannot be."""
    at = rng.randrange(min(len(data), 256) if rng.random() < 0.8 else len(data))
    return data[:at] + rng.choice(EXTREMES) + data[at + 4 :]


def disguise(data: bytes, rng: random.Random) -> bytes:
    """The beginning of another kind of file."""
    magic = rng.choice(MAGICS)
    return magic + data[len(magic) :]


WAYS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    flip, flip, truncate, insert, duplicate, remove, blank, exaggerate, exaggerate, disguise,
)  # fmt: skip


def mutate(data: bytes, rng: random.Random) -> bytes:
    """`data`, not empty, changed in one to three ways, one after another."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        data = rng.choice(WAYS)(data, rng) if data else data
    return data
