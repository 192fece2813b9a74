"""The images a command is to work on: named one by one, by a list that may still be growing, or one on stdin."""

# Names are texts here: of very many, Paths take several times the memory and the time.
# ruff: noqa: PTH100, PTH118

import fnmatch
import os
import zlib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import BinaryIO, NamedTuple

from brainseg_cli.errors import InputError, UsageError
from brainseg_cli.io.images import SUFFIXES, decode_image, read_bytes, read_image
from brainseg_cli.io.inputs import (
    IMAGE_FOLDERS,
    MASK_ENDING,
    Input,
    Listed,
    find_inputs,
    is_there,
    parent_of_masks,
    slice_key,
)
from brainseg_cli.io.names import Names, Numbers
from brainseg_cli.types import Image

STDIN = "-"
STDIN_NAME = Path("stdin")
CHUNK_BYTES = 1 << 16


class Shard(NamedTuple):
    """One of `parts` shares, by name: disjoint and complete whatever the order, and whenever each is listed."""

    part: int
    parts: int

    @property
    def name(self) -> str:
        """`2-of-8`."""
        return f"{self.part}-of-{self.parts}"

    def owns(self, relative: Path) -> bool:
        return zlib.crc32(os.fsencode(relative)) % self.parts == self.part - 1


def parse_shard(text: str) -> Shard:
    """`2/8` is the second of eight. UsageError for anything else."""
    part, slash, parts = text.partition("/")
    if slash and part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts):
        return Shard(int(part), int(parts))
    raise UsageError(f"--shard {text} is no share", hint="2/8 is the second of eight")


@dataclass(frozen=True)
class Request:
    """What a command line names. `include` and `exclude` choose among what folders, globs and lists give."""

    arguments: tuple[str, ...] = ()
    files_from: str | None = None
    """A file with a path a line, or `-`."""
    files0_from: str | None = None
    """The same, with a NUL after each."""
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    relative_to: Path | None = None
    shard: Shard | None = None
    whole_folders: bool = False
    """Whether the slices of one folder belong into one share."""

    def make_input(self, name: str) -> Input:
        """One of a list."""
        path = Path(name)
        return Input(path, mirror(path, self.relative_to))


@dataclass
class Inputs:
    """The inputs. `total` is how many, None where the list is still being written: that is walked through once."""

    stream: Iterable[Input]
    total: int | None
    elsewhere: Collection[Input] = ()
    """Those of other shares, where they are known: what becomes of them takes its places too."""
    passed_over: int = 0
    """Masks that a list named beside their images; complete when the walk is."""

    def __iter__(self) -> Iterator[Input]:
        return iter(self.stream)


def open_inputs(request: Request, stdin: BinaryIO) -> Inputs:
    """Find the images, or begin to read the list of them from `stdin`.

    Arguments come as `find_inputs` gives them; a list in its own order, each image once, without masks: `x_mask.*`
    beside `x.*`, and masks/ beside images/. A listed path that is no image fails when it is read, alone. Mirroring:
    below `relative_to`, else, for a list, as the path stands (an absolute one without its root). Waits for the first
    image of a list on stdin. UsageError for nothing, two kinds, two readers of stdin, and, when it comes, a path
    that is not below `relative_to`; InputError for a list or a search that gives no image, and a list that is none.
    """
    lists = [name for name in (request.files_from, request.files0_from) if name is not None]
    if bool(request.arguments) + len(lists) > 1:
        raise UsageError("images were named in two ways", hint="INPUT, --files-from or --files0-from")
    if STDIN in request.arguments:
        if len(request.arguments) > 1:
            raise UsageError("- is one image on stdin, and stands alone", hint="--files-from - reads a list")
        data = stdin.read()
        if not data:
            raise InputError("is empty: no image came", where="stdin")
        return Inputs([Input(Path(STDIN), STDIN_NAME, data)], 1)
    if not lists:
        chosen = (lambda relative: is_chosen(relative, request)) if request.include or request.exclude else None
        return _divide(find_inputs(request.arguments, accepts=chosen, root=request.relative_to), request)
    separator = b"\n" if request.files_from is not None else b"\0"
    if lists[0] != STDIN:
        known = Inputs((), None)
        listed = Names(_read_list(_cut(read_bytes(Path(lists[0]), piped=True)), separator, request, known, lists[0]))
        if not listed:
            raise InputError("names no image", where=lists[0])
        divided = _divide(Listed(listed, request.make_input), request)
        divided.passed_over = known.passed_over
        return divided
    growing = Inputs((), None)
    coming = _read_list(read_chunks(stdin), separator, request, growing, "stdin")
    first = next(coming, None)
    if first is None:
        raise InputError("the list names no image", where="stdin")
    growing.stream = filter(lambda item: is_own(item, request), map(request.make_input, chain([first], coming)))
    return growing


def read_input(item: Input) -> Image:
    """The image, from its file or from what came through the pipe. InputError as `io.images.read_image`."""
    return read_image(item.path) if item.data is None else decode_image(item.data, STDIN_NAME)


def _divide(found: Listed, request: Request) -> Inputs:
    if request.shard is None:
        return Inputs(found, len(found))
    own, others = Names(), Names()
    for name, item in zip(found.names, found, strict=True):
        (own if is_own(item, request) else others).append(name)
    return Inputs(Listed(own, found.make), len(own), Listed(others, found.make))


def is_own(item: Input, request: Request) -> bool:
    """Whether it is in the share that was asked for."""
    # without its suffix, so that what would be written to one place comes into one share
    name = item.relative.parent if request.whole_folders else Path(slice_key(item.relative))
    return request.shard is None or request.shard.owns(name)


def is_chosen(relative: Path, request: Request) -> bool:
    """By the whole relative path or the name alone, as a shell would match them."""

    def matches(patterns: Collection[str]) -> bool:
        texts = (relative.as_posix(), relative.name) if patterns else ()
        return any(fnmatch.fnmatchcase(text, pattern) for pattern in patterns for text in texts)

    return (not request.include or matches(request.include)) and not matches(request.exclude)


def _read_list(
    chunks: Iterable[bytes], separator: bytes, request: Request, inputs: Inputs, where: str
) -> Iterator[str]:
    seen = Numbers()
    for line in _split(chunks, separator):
        if b"\0" in line:
            raise InputError(
                "is no list of a path a line", where=where, hint="--files0-from reads what find -print0 writes"
            )
        name = os.fsdecode(line)
        item = request.make_input(name)
        before = len(seen)
        if not is_chosen(item.relative, request) or seen.add(os.path.abspath(name)) < before:
            continue
        if _lies_beside_its_image(item.path):
            inputs.passed_over += 1
        else:
            yield name


def _cut(data: bytes) -> Iterator[bytes]:
    return (data[start : start + CHUNK_BYTES] for start in range(0, len(data), CHUNK_BYTES))


def read_chunks(stdin: BinaryIO) -> Iterator[bytes]:
    """What comes, as it comes."""
    # read1 gives what has come so far, read would wait for more; what is no buffered file has only read
    read = getattr(stdin, "read1", stdin.read)
    while chunk := read(CHUNK_BYTES):
        yield chunk


def _split(chunks: Iterable[bytes], separator: bytes) -> Iterator[bytes]:
    """What stands between separators, each as soon as its own has come; lines may end as on Windows."""
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(separator)
        yield from filter(None, (name.removesuffix(b"\r") if separator == b"\n" else name for name in whole))
    if rest.strip(b"\r\n"):
        yield rest.removesuffix(b"\r") if separator == b"\n" else rest


def mirror(path: Path, root: Path | None) -> Path:
    """The place of a listed path in a mirrored tree: below `root`, UsageError where it is not, else as it stands."""
    if root is not None:
        below = os.path.join(os.path.abspath(root), "")
        whole = os.path.join(os.path.abspath(path), "")
        if not whole.startswith(below):
            raise UsageError(f"{path} is not below --relative-to {root}")
        return Path(whole[len(below) :])
    # without `..`, so that no mirrored output climbs out of its folder
    inner = os.path.normpath(path).lstrip("/")
    while inner == ".." or inner.startswith("../"):
        inner = inner[3:]
    return Path(inner)


def _lies_beside_its_image(path: Path) -> bool:
    if folder := parent_of_masks(path):
        return any((folder / name).is_dir() for name in IMAGE_FOLDERS)
    stem = path.stem.removesuffix(MASK_ENDING)
    return stem != path.stem and any(is_there(path.with_name(stem + end)) for end in (path.suffix, *SUFFIXES))
