"""Which images a command was given, in natural order, and where each is mirrored to."""

# Names are texts here: of very many, Paths take several times the memory and the time.
# ruff: noqa: PTH100, PTH110, PTH112, PTH118, PTH120, PTH122, PTH207

import glob
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

from natsort import natsort_keygen, ns

from brainseg_cli.errors import InputError, UsageError
from brainseg_cli.io.images import SUFFIXES, is_image_name
from brainseg_cli.io.names import Names, Numbers, sort_names

PathLike = TypeVar("PathLike", str, Path)

MASK_ENDING = "_mask"
IMAGE_FOLDERS, MASK_FOLDERS = ("images", "image", "imgs"), ("masks", "mask")


@dataclass(frozen=True)
class Input:
    """One image to work on. `relative` is its place in a mirrored output tree."""

    path: Path
    relative: Path
    data: bytes | None = None
    """The encoded image itself, where it came through a pipe and is in no file."""

    @property
    def key(self) -> str:
        """What images, masks and predictions of one slice share."""
        return slice_key(self.relative)

    @property
    def patient_id(self) -> str | None:
        """The folder's name where it names the patient (`p/p_7.tif`, a folder below the input); else None."""
        parent = absolute(self.path).parent.name
        if parent.lower() in IMAGE_FOLDERS:
            return None
        named = self.path.stem.startswith(parent) or self.relative.parent != Path()
        return parent if parent and named else None

    @property
    def slice_index(self) -> int | None:
        """The number that the file's name ends with, else None."""
        return parse_slice_index(self.path.stem)


def parse_slice_index(stem: str) -> int | None:
    """`TCGA_x_12` -> 12, `TCGA_x_12_mask` -> 12, `scan` -> None."""
    found = re.search(r"(\d{1,9})$", stem.removesuffix(MASK_ENDING))
    return int(found[1]) if found else None


def natural_order(paths: Iterable[PathLike]) -> list[PathLike]:
    """Sorted as a person counts: `x_2` before `x_10`, folder by folder."""
    return sorted(paths, key=lambda path: _count_path(os.fspath(path)))


def slice_key(relative: Path) -> str:
    """A relative path without its suffix and without a trailing `_mask`: `p/p_7_mask.tif` -> `p/p_7`."""
    return relative.with_suffix("").as_posix().removesuffix(MASK_ENDING)


def mask_key(relative: Path, suffix: str = "") -> str:
    """`slice_key` for trees made elsewhere: folders called images or masks do not count, nor does `suffix`.

    `masks/p/p_7.png` -> `p/p_7`. Where nothing is left of the file's name, its folder names the slice: with
    the suffix `seg`, `p_7/seg.png` -> `p_7`, and `seg.png` -> "".
    """
    folders = [part for part in relative.parts[:-1] if part.lower() not in IMAGE_FOLDERS + MASK_FOLDERS]
    stem = relative.stem.removesuffix(suffix).removesuffix(MASK_ENDING)
    return "/".join([*folders, stem] if stem else folders)


def is_called_mask(relative: Path) -> bool:
    """Whether a path says that it is a mask: `x_mask.png`, or a file in a folder masks/."""
    folders = {part.lower() for part in relative.parts[:-1]}
    return relative.stem.endswith(MASK_ENDING) or not folders.isdisjoint(MASK_FOLDERS)


@dataclass(frozen=True)
class Listed(Collection[Input]):
    """Inputs of which the names alone are kept; each is made anew whenever it is come by."""

    names: Names
    make: Callable[[str], Input]

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[Input]:
        return map(self.make, self.names)

    def __contains__(self, item: object) -> bool:
        return any(item == one for one in self)

    def __getitem__(self, number: int) -> Input:
        return self.make(self.names[number])


def find_images(folder: Path) -> list[Path]:
    """`walk_images` without masks: `x_mask.*` beside an image `x.*`, and masks/ beside images/, are left out."""
    names = Names(_walk(str(folder), is_image_name, set()))
    is_mask = _tell_masks(names)
    return [Path(name) for name in names if not is_mask(name)]


def find_inputs(
    arguments: Sequence[str], *, accepts: Callable[[Path], bool] | None = None, root: Path | None = None
) -> Listed:
    """Files, folders (searched through) and globs to inputs in the order given, folders in natural order.

    Mirroring: below `root`, else below the one folder given; for several arguments, below their common parent. A
    file named twice is done once, and `x_mask.*` is left out where `x.*` is given too. `accepts` chooses among
    what folders (by the path below them) and globs give. InputError for a path that is not there, or a folder or
    glob without images; UsageError for nothing, and for a file that is not below `root`.
    """
    if not arguments:
        raise UsageError("no input was given", hint="name files, folders or globs")
    names, whole, seen = Names(), Names(), Numbers()
    tops: list[str] = []
    for argument in arguments:
        if not argument:  # to Path it is the present folder; to a shell, a variable that was not set
            raise UsageError("an input has an empty name")
        found, top = _find(argument, accepts)
        for name in found:
            if seen.add(one := os.path.abspath(name)) == len(names):
                names.append(name)
                whole.append(one)
        tops.append(os.path.dirname(top) if len(arguments) > 1 and os.path.isdir(argument) else top)
    common = os.path.join(os.path.commonpath(tops) if root is None else os.path.abspath(root), "")
    is_mask = _tell_masks(whole)
    kept = Names()
    for name, one in zip(names, whole, strict=True):
        if not one.startswith(common):
            raise UsageError(f"{name} is not below --relative-to {root}")
        if not is_mask(one):
            kept.append(name)
    return Listed(kept, lambda name: Input(Path(name), Path(os.path.abspath(name)[len(common) :])))


def _find(argument: str, accepts: Callable[[Path], bool] | None) -> tuple[Iterable[str], str]:
    """The images that one argument names, at least one, and the folder that they are all below, as a whole path."""
    path = Path(argument)
    names: Collection[str]
    if path.is_dir():
        names, top = Names(_walk(str(path), is_image_name, set())), os.path.abspath(path)
        if not names:
            raise InputError("holds no image", where=path, hint=f"looked for {' '.join(SUFFIXES)}")
        if accepts is not None:
            is_mask = _tell_masks(names)  # also of what is not accepted
            names = Names(name for name in names if not is_mask(name) and accepts(Path(name).relative_to(path)))
    elif path.exists():
        names, top = [str(path)], os.path.dirname(os.path.abspath(path))
    elif glob.has_magic(argument):
        matching = filter(is_image_name, glob.iglob(argument, recursive=True))  # Path.glob takes no absolute pattern
        names = Names(sort_names(matching, _count_path))
        if not names:
            raise InputError("matches no image", where=argument)
        top = os.path.commonpath({os.path.dirname(os.path.abspath(name)) for name in names})
        names = Names(name for name in names if accepts is None or accepts(Path(name)))
    else:
        raise InputError("is not there", where=path)
    if not names:
        raise InputError("holds no image that --include and --exclude let through", where=argument)
    return names, top


def index_by_key(folder: Path) -> dict[str, Path]:
    """Every image file below `folder`, masks included, by `slice_key`. InputError where two share one."""
    if not folder.is_dir():
        raise InputError("is not a folder", where=folder)
    index: dict[str, Path] = {}
    for path in walk_images(folder):
        key = slice_key(path.relative_to(folder))
        if key in index:
            # an image beside its own mask: the mask is what is wanted
            pair = {index[key].stem.endswith(MASK_ENDING): index[key], path.stem.endswith(MASK_ENDING): path}
            if len(pair) == 1:
                raise InputError(f"stands for the same slice as {index[key].name}", where=path)
            index[key] = pair[True]
        else:
            index[key] = path
    return index


def absolute(path: Path) -> Path:
    """Without `..`, so that no mirrored output climbs out of its folder."""
    return Path(os.path.abspath(path))  # resolve would follow links and change the names


def is_there(path: Path) -> bool:
    """Whether anything is at `path`; nothing is where the name is too long for the disk."""
    return os.path.exists(path)  # Path.exists raises for such a name


def walk_images(folder: Path, accepts: Callable[[str], bool] = is_image_name) -> list[Path]:
    """Every image file below `folder`, masks included, in natural order; another kind of file by `accepts`.

    Hidden folders are passed over, links followed once.
    """
    return list(map(Path, _walk(str(folder), accepts, set())))


def walk_unordered(folder: Path, accepts: Callable[[str], bool] = is_image_name) -> Iterator[Path]:
    """`walk_images` as the disk lists them, for who sorts anyway."""
    return map(Path, _walk(str(folder), accepts, set(), ordered=False))


def parent_of_masks(path: Path) -> Path | None:
    """The folder that holds the folder masks/ that `path` lies in; None where it lies in none."""
    above = _above(str(path.parent), MASK_FOLDERS)
    return None if above is None else Path(above)


def _walk(folder: str, accepts: Callable[[str], bool], seen: set[str], *, ordered: bool = True) -> Iterator[str]:
    """Names below a folder, of which one at a time is in memory. One that cannot be listed holds nothing."""
    real = os.path.realpath(folder)
    if real in seen:
        return
    seen.add(real)
    listed = _list_folder(folder, accepts)
    for entry in sort_names(listed, _count_entry) if ordered else list(listed):
        whole = os.path.join(folder, entry)
        if entry.endswith("/"):
            yield from _walk(whole[:-1], accepts, seen, ordered=ordered)
        else:
            yield whole


def _list_folder(folder: str, accepts: Callable[[str], bool]) -> Iterator[str]:
    """Names in a folder as the disk lists them, those of folders with a `/` at their end."""
    with suppress(OSError), os.scandir(folder) as listing:
        for entry in listing:
            if not _is_folder(entry):
                if accepts(entry.name):
                    yield entry.name
            elif not entry.name.startswith("."):
                yield entry.name + "/"


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


_count = natsort_keygen()
_count_parts = natsort_keygen(alg=ns.PATH)


@lru_cache(1024)
def _count_folder(folder: str) -> tuple[object, ...]:
    return tuple(map(_count, Path(folder).parts))


def _count_entry(entry: str) -> tuple[object, ...]:
    """As `_count_path`. Where that is the same, for `7` and `07` it is, a folder still comes as a whole."""
    name, is_folder = entry.removesuffix("/"), entry.endswith("/")
    first, *rest = (_count(name),) if is_folder else _count_parts(name)
    return first, is_folder, rest, name


def _count_path(path: str) -> tuple[object, ...]:
    """What natural order is by: of each folder, of the name and of its suffix the texts and the numbers in it.

    Where that is the same the path itself decides.
    """
    folder, name = os.path.split(path)
    return (*_count_folder(folder), *_count_parts(name)), path


def _tell_masks(names: Iterable[str]) -> Callable[[str], bool]:
    """Which of `names` are `x_mask.*` beside `x.*`, or lie in a folder masks/ beside a folder images/."""
    stems, beside = Numbers(), set()
    for name in names:
        stems.add(os.path.splitext(name)[0])
        beside.add(_above(os.path.dirname(name), IMAGE_FOLDERS))

    def is_mask(name: str) -> bool:
        stem = os.path.splitext(name)[0]
        if stem.endswith(MASK_ENDING) and stem.removesuffix(MASK_ENDING) in stems:
            return True
        above = _above(os.path.dirname(name), MASK_FOLDERS)
        return above is not None and above in beside

    return is_mask


@lru_cache(1024)
def _above(folder: str, names: tuple[str, ...]) -> str | None:
    """The path above the last folder that is called one of `names`, None without such a folder."""
    folders = (Path(folder), *Path(folder).parents)
    return next((str(one.parent) for one in folders if one.name.lower() in names), None)
