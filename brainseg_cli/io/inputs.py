"""Which images a command was given, in natural order, and where each is mirrored to."""

import glob
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from natsort import natsorted, ns

from brainseg_cli.errors import InputError, UsageError
from brainseg_cli.io.images import SUFFIXES, is_image_name

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


def natural_order(paths: Iterable[Path]) -> list[Path]:
    """Sorted as a person counts: `x_2` before `x_10`, folder by folder."""
    return natsorted(paths, alg=ns.PATH)


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


def find_images(folder: Path) -> list[Path]:
    """`walk_images` without masks: `x_mask.*` beside an image `x.*`, and masks/ beside images/, are left out."""
    return _drop_masks(walk_images(folder))


def find_inputs(
    arguments: Sequence[str], *, accepts: Callable[[Path], bool] | None = None, root: Path | None = None
) -> list[Input]:
    """Files, folders (searched through) and globs to inputs in the order given, folders in natural order.

    Mirroring: below `root`, else below the one folder given; for several arguments, below their common parent. A
    file named twice is done once, and `x_mask.*` is left out where `x.*` is given too. `accepts` chooses among
    what folders (by the path below them) and globs give. InputError for a path that is not there, or a folder or
    glob without images; UsageError for nothing, and for a file that is not below `root`.
    """
    if not arguments:
        raise UsageError("no input was given", hint="name files, folders or globs")
    files: list[Path] = []
    roots: list[Path] = []
    for argument in arguments:
        if not argument:  # to Path it is the present folder; to a shell, a variable that was not set
            raise UsageError("an input has an empty name")
        path = Path(argument)
        if path.is_dir():
            found, top = find_images(path), absolute(path)
            if not found:
                raise InputError("holds no image", where=path, hint=f"looked for {' '.join(SUFFIXES)}")
            found = [image for image in found if accepts is None or accepts(image.relative_to(path))]
        elif path.exists():
            found, top = [path], absolute(path).parent
        elif glob.has_magic(argument):
            found = natural_order(
                Path(name)
                for name in glob.glob(argument, recursive=True)  # noqa: PTH207 (absolute patterns)
                if is_image_name(name)
            )
            if not found:
                raise InputError("matches no image", where=argument)
            top = Path(os.path.commonpath([absolute(p).parent for p in found]))
            found = [image for image in found if accepts is None or accepts(image)]
        else:
            raise InputError("is not there", where=path)
        if not found:
            raise InputError("holds no image that --include and --exclude let through", where=argument)
        files += found
        roots += [top] if len(arguments) == 1 else [(top.parent if path.is_dir() else top)]
    common = Path(os.path.commonpath(roots)) if root is None else absolute(root)
    once = {absolute(path): path for path in reversed(files)}
    if astray := next((path for path in once if not path.is_relative_to(common)), None):
        raise UsageError(f"{once[astray]} is not below --relative-to {root}")
    return [Input(once[path], path.relative_to(common)) for path in _drop_masks(dict.fromkeys(map(absolute, files)))]


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
    return Path(os.path.abspath(path))  # noqa: PTH100 (resolve would follow links and change the names)


def is_there(path: Path) -> bool:
    """Whether anything is at `path`; nothing is where the name is too long for the disk."""
    return os.path.exists(path)  # noqa: PTH110 (Path.exists raises for such a name)


def walk_images(folder: Path, accepts: Callable[[str], bool] = is_image_name) -> list[Path]:
    """Every image file below `folder`, masks included, in natural order; another kind of file by `accepts`.

    Hidden folders are passed over, links followed once.
    """
    found: list[Path] = []
    seen: set[str] = set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        folders[:] = [] if real in seen else [name for name in folders if not name.startswith(".")]
        if real not in seen:
            found += [Path(parent, name) for name in files if accepts(name)]
        seen.add(real)
    return natural_order(found)


def _drop_masks(paths: Iterable[Path]) -> list[Path]:
    """Without `x_mask.*` beside `x.*`, and without what lies in a folder masks/ beside a folder images/."""
    paths = list(paths)
    stems = {path.with_suffix("") for path in paths}
    beside = {_before(path, IMAGE_FOLDERS) for path in paths} - {None}

    def is_mask(path: Path) -> bool:
        named = path.stem.endswith(MASK_ENDING) and path.with_name(path.stem.removesuffix(MASK_ENDING)) in stems
        return named or _before(path, MASK_FOLDERS) in beside

    return [path for path in paths if not is_mask(path)]


def parent_of_masks(path: Path) -> Path | None:
    """The folder that holds the folder masks/ that `path` lies in; None where it lies in none."""
    return _before(path, MASK_FOLDERS)


def _before(path: Path, names: tuple[str, ...]) -> Path | None:
    """The path above the last folder that is called one of `names`, None without such a folder."""
    return next((folder.parent for folder in path.parents if folder.name.lower() in names), None)
