"""Very many file names in very little memory."""

import heapq
import zlib
from array import array
from collections.abc import Callable, Collection, Iterable, Iterator
from hashlib import blake2b
from itertools import islice
from typing import Any

BLOCK_NAMES = 512
SORTED_NAMES = 4096
MARK_BYTES = 16
NOBODY = -1


class Names(Collection[str]):
    """Names in order, packed to some ten bytes each: appended to, walked through, looked up by number.

    Any text but the character NUL, which is in no file's name.
    """

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._packed: list[bytes] = []
        self._loose: list[str] = []
        for name in names:
            self.append(name)

    def append(self, name: str) -> None:
        self._loose.append(name)
        if len(self._loose) == BLOCK_NAMES:
            # neighbours share most of their path
            self._packed.append(zlib.compress(_encode("\0".join(self._loose)), 1))
            self._loose = []

    def __len__(self) -> int:
        return BLOCK_NAMES * len(self._packed) + len(self._loose)

    def __iter__(self) -> Iterator[str]:
        for packed in self._packed:
            yield from _unpack(packed)
        yield from self._loose

    def __contains__(self, name: object) -> bool:
        return any(name == one for one in self)

    def __getitem__(self, number: int) -> str:
        """By its number from 0; IndexError for one that there is not."""
        block, place = divmod(number, BLOCK_NAMES)
        if not 0 <= number < len(self):
            raise IndexError(number)
        return (self._loose if block == len(self._packed) else _unpack(self._packed[block]))[place]


class Numbers:
    """Numbers names in the order in which each first comes: 0, 1, 2. Some thirty bytes a name.

    Names are told apart by 128 bits of their hash, so not even among billions are two taken for one.
    """

    def __init__(self) -> None:
        self._marks = bytearray()  # MARK_BYTES of each name, by number
        self._places = array("i", [NOBODY]) * 64  # a hash table of numbers, at most half full

    def __len__(self) -> int:
        return len(self._marks) // MARK_BYTES

    def __contains__(self, name: str) -> bool:
        return self._places[self._seek(_mark(name))] != NOBODY

    def add(self, name: str) -> int:
        """The number of `name`: what the length was until now, if it is new."""
        mark = _mark(name)
        place = self._seek(mark)
        if (number := self._places[place]) != NOBODY:
            return number
        number = self._places[place] = len(self)
        self._marks += mark
        if 2 * len(self) > len(self._places):
            self._spread()
        return number

    def _seek(self, mark: bytes | bytearray) -> int:
        """The place of a name, or the free one where it belongs."""
        places, marks = self._places, self._marks
        place = int.from_bytes(mark[:8], "big") % len(places)
        while (number := places[place]) != NOBODY and marks[number * MARK_BYTES : (number + 1) * MARK_BYTES] != mark:
            place = (place + 1) % len(places)
        return place

    def _spread(self) -> None:
        self._places = array("i", [NOBODY]) * (2 * len(self._places))
        for number in range(len(self)):
            self._places[self._seek(self._marks[number * MARK_BYTES : (number + 1) * MARK_BYTES])] = number


def sort_names(names: Iterable[str], key: Callable[[str], Any]) -> Iterator[str]:
    """As `sorted`, with the keys of a few thousand names at a time in memory: those weigh many times the names."""
    coming, blocks = iter(names), []
    while block := list(islice(coming, SORTED_NAMES)):
        block.sort(key=key)
        blocks.append(Names(block))
    return heapq.merge(*blocks, key=key)


def _mark(name: str) -> bytes:
    return blake2b(_encode(name), digest_size=MARK_BYTES).digest()


def _encode(name: str) -> bytes:
    return name.encode("utf-8", "surrogatepass")  # what of a name is no text stands as surrogates


def _unpack(packed: bytes) -> list[str]:
    return zlib.decompress(packed).decode("utf-8", "surrogatepass").split("\0")
