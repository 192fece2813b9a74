"""Which prediction belongs to which reference, by name alone, and the two read to be compared."""

import os
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from brainseg_cli.errors import InputError
from brainseg_cli.io.images import FAINT, is_image_name, is_map_name, read_mask, read_probs
from brainseg_cli.io.inputs import IMAGE_FOLDERS, MASK_FOLDERS, find_images, is_called_mask, mask_key, walk_images
from brainseg_cli.types import Mask, Probs

READ_HINT = "PNG, TIFF, JPEG and .npy are read"
SUFFIX_HINT = "where names end differently, --reference-suffix and --prediction-suffix take the ends off"


@dataclass(frozen=True)
class Pair:
    """One slice. `key` names it in tables: the reference's path without what only says that it is a mask."""

    key: str
    reference: Path
    prediction: Path | None
    image: Path | None


@dataclass(frozen=True)
class Pairing:
    """Every reference, with its prediction where there is one, in natural order.

    The unmatched are file names relative to their folder; `notes` are for whoever reads the numbers.
    """

    pairs: list[Pair]
    unmatched_references: list[str]
    unmatched_predictions: list[str]
    notes: list[str]


@dataclass(frozen=True)
class _File:
    path: Path
    name: str  # relative to the folder that was given
    key: str
    is_mask: bool  # it says so itself

    @cached_property
    def real(self) -> Path:
        """Where links lead."""
        return Path(os.path.realpath(self.path))

    def shared(self, *, by_stem: bool = False) -> str:
        """What is matched, in one spelling: macOS takes `é` apart in file names, others do not."""
        return unicodedata.normalize("NFC", self.key.rpartition("/")[2] if by_stem else self.key)


def pair_masks(
    reference: Path,
    prediction: Path,
    *,
    reference_suffix: str = "",
    prediction_suffix: str = "",
    images: Path | None = None,
    wanted: Callable[[str], bool] | None = None,
) -> Pairing:
    """Match the masks below two folders by relative path or, where no path agrees, by file name.

    Extensions, a trailing `_mask`, and folders called images or masks do not count. With a suffix rule only
    files whose name ends with it (before the extension) are taken, and it is removed; where that leaves
    nothing, the folder names the slice. Without one, a reference folder in which some files are called
    `x_mask` or lie in masks/ gives only those, and in a prediction folder such a file goes before its
    namesake. Of two folders inside one another the inner one's files are its own. `wanted` is asked for each
    reference's key whether to take it.

    The slice itself is looked for in `images`, else beside its mask and in images/ beside masks/; one that
    is not found is None. InputError where a folder is none or holds no reference, where two references, or
    two predictions of one reference, share a name, and where references are there and none has a prediction.
    """
    references, others = _list_references(reference, reference_suffix, prediction, prediction_suffix)
    chosen = [file for file in references if wanted is None or wanted(file.key)]
    predictions = _masks_first(_list_files(prediction, prediction_suffix, reference, reference_suffix))
    notes = []
    found = _match(chosen, predictions)
    if not found and (found := _match(chosen, predictions, by_stem=True)):
        first = next(iter(found))
        notes.append(f"matched by file name alone, as no path agrees: {first.name} with {found[first].name}")
    if chosen and not found:
        raise _nothing_matches(chosen, predictions, prediction)

    taken = {file.real for file in (*references, *predictions)}
    slices = _find_slices(chosen, others, reference, images, taken)
    used, known = set(found.values()), _group(references).keys()
    missing = [file.name for file in chosen if file not in found]
    extra = [file.name for file in predictions if file not in used]
    own = [file.name for file, match in found.items() if file.real == match.real]
    unseen = [file.name for file in chosen if images and file not in slices]
    loose = [file.name for file in others if not reference_suffix and file.shared() not in known]
    notes += _note(own, "references are compared with themselves")
    notes += _note(unseen, f"references have no image in {images}")
    notes += _note(loose, "images have no reference mask beside them and are not counted")
    notes += _note(extra, "predictions have no reference and are not counted")
    paths = {file: match.path for file, match in found.items()}
    pairs = [Pair(file.key, file.path, paths.get(file), slices.get(file)) for file in chosen]
    return Pairing(pairs, missing, extra, notes)


def check_complete(pairing: Pairing, prediction: Path) -> None:
    """InputError, naming some from each side, where a reference has no prediction below `prediction`."""
    if missing := pairing.unmatched_references:
        told = f"has no prediction for {len(missing)} of {len(pairing.pairs)} references: {name_some(missing)}"
        left = f"; left over: {name_some(extra)}" if (extra := pairing.unmatched_predictions) else ""
        raise InputError(
            told,
            where=prediction,
            hint="--patients TABLE measures some alone, --missing-as-empty takes them for empty" + left,
        )


def read_prediction(path: Path, *, threshold: float | None, maps: bool = False) -> tuple[Mask, Probs | None]:
    """A prediction as a mask, and its probabilities where a threshold says that it holds some.

    Without a threshold the file is a mask, of {0, 1} or {0, 255}, and anything else an InputError. With one
    it is a map as `read_probs` takes it, tumour where the probability, in float32, is at least `threshold`.
    Whole numbers that come to nothing above 1/255 may be a mask of 0 and 1, of which a threshold would leave
    nothing: they are refused, unless `maps` vouches (see `hold_maps`).
    """
    if threshold is None:
        return read_mask(path, hint="--threshold takes it for a probability map"), None
    probs = read_probs(path, faint=maps)
    return (probs >= np.float32(threshold)).astype(np.uint8), probs


def hold_maps(paths: Iterable[Path]) -> bool:
    """Whether some file has a probability that no mask has: above 1/255 and under 1. Reads on until one is found.

    A mask of 0 and 1 and the map of a slice where a model is sure that there is no tumour can be one and the
    same file; the others in its folder say which it is.
    """
    maps = (read_probs(path, faint=True) for path in paths)
    return any(((probs > np.float32(FAINT)) & (probs < 1)).any() for probs in maps)


def read_pair(pair: Pair, *, threshold: float | None = None, maps: bool = False) -> tuple[Mask, Mask, Probs | None]:
    """Reference, prediction and, with a threshold, probabilities, all (H, W); `maps` as in `read_prediction`.

    A prediction that is None is read as empty, its probabilities as 0. InputError for sizes that differ.
    """
    reference = read_mask(pair.reference)
    if pair.prediction is None:
        nothing = np.zeros(reference.shape, np.float32)
        return reference, nothing.astype(np.uint8), None if threshold is None else nothing
    prediction, probs = read_prediction(pair.prediction, threshold=threshold, maps=maps)
    if prediction.shape != reference.shape:
        (height, width), (rows, columns) = prediction.shape, reference.shape
        told = f"is {width}x{height}, its reference {columns}x{rows}"
        raise InputError(told, where=pair.prediction, hint="masks are compared at the reference's size")
    return reference, prediction, probs


def _list_references(folder: Path, suffix: str, other: Path, other_suffix: str) -> tuple[list[_File], list[_File]]:
    """The references below `folder`, no two with one key, and the images among the other files there."""
    files = _list_files(folder, suffix, other, other_suffix)
    references = _masks_first(files)
    if Path(os.path.realpath(folder)).name.lower() not in MASK_FOLDERS:  # in there everything is one
        references = [file for file in references if file.is_mask] or references
    if not references:
        raise InputError("holds no reference mask", where=folder, hint=READ_HINT)
    for group in _group(references).values():
        _refuse_two(group)
    if suffix:
        files = _list_files(folder, "", other, other_suffix)
    chosen = {file.path for file in references}
    return references, [file for file in files if file.path not in chosen and is_image_name(file.name)]


def _list_files(folder: Path, suffix: str, other: Path, other_suffix: str) -> list[_File]:
    """What may be a mask below `folder`, in natural order, without what belongs to the other side."""
    if not folder.is_dir():
        raise InputError("is not a folder", where=folder)
    home, away = Path(os.path.realpath(folder)), Path(os.path.realpath(other))
    theirs = away.relative_to(home).as_posix() + "/" if home in away.parents else None
    listed, skipped = [], None
    for path in walk_images(folder, is_map_name):
        relative = path.relative_to(folder)
        named_for_other = home == away and other_suffix and not suffix and path.stem.endswith(other_suffix)
        if named_for_other or (theirs and relative.as_posix().startswith(theirs)):
            continue
        key = mask_key(relative, suffix)
        if key and path.stem.endswith(suffix):
            listed.append(_File(path, relative.as_posix(), key, not suffix and is_called_mask(relative)))
        else:
            skipped = skipped or path.name
    if suffix and skipped and not listed:
        raise InputError(f"holds no file named *{suffix} before its extension", where=folder, hint=f"but {skipped}")
    return listed


def _group(files: Iterable[_File], *, by_stem: bool = False) -> dict[str, list[_File]]:
    groups: dict[str, list[_File]] = defaultdict(list)
    for file in files:
        groups[file.shared(by_stem=by_stem)].append(file)
    return groups


def _masks_first(files: Iterable[_File]) -> list[_File]:
    """Without the image that lies beside its own mask."""
    return [file for group in _group(files).values() for file in [mask for mask in group if mask.is_mask] or group]


def _match(references: Sequence[_File], candidates: Sequence[_File], *, by_stem: bool = False) -> dict[_File, _File]:
    """Each reference's candidate of the same key, or stem. InputError where either side has two of it."""
    ours, theirs = _group(references, by_stem=by_stem), _group(candidates, by_stem=by_stem)
    shared = [both for both in ours if both in theirs]
    for both in shared:
        _refuse_two(ours[both], by_stem=by_stem)
        _refuse_two(theirs[both], by_stem=by_stem)
    return {ours[both][0]: theirs[both][0] for both in shared}


def _refuse_two(group: Sequence[_File], *, by_stem: bool = False) -> None:
    if len(group) > 1:
        told = "has the same name as" if by_stem else "stands for the same slice as"
        hint = "no path agrees; give folders that correspond" if by_stem else "a suffix rule may tell them apart"
        raise InputError(f"{told} {group[0].name}", where=group[1].path, hint=hint)


def _nothing_matches(references: Sequence[_File], predictions: Sequence[_File], folder: Path) -> InputError:
    told = f"has no prediction for {len(references)} of {len(references)} references"
    if not predictions:
        return InputError(f"{told}: it holds no mask", where=folder, hint=READ_HINT)
    names = f"a reference is {references[0].name}, a prediction {predictions[0].name}"
    return InputError(f"{told}: {names}", where=folder, hint=SUFFIX_HINT)


def _find_slices(
    references: Sequence[_File], others: list[_File], folder: Path, images: Path | None, taken: set[Path]
) -> dict[_File, Path]:
    """The image of each reference that has exactly one."""
    by_name = (False,) if images is None else (False, True)
    candidates = others if images is None else []
    if images is None and Path(os.path.realpath(folder)).name.lower() in MASK_FOLDERS:
        around = sorted(Path(os.path.realpath(folder)).parent.iterdir())
        images = next((path for path in around if path.name.lower() in IMAGE_FOLDERS and path.is_dir()), None)
    if images is not None:
        if not images.is_dir():
            raise InputError("is not a folder", where=images)
        names = ((path, path.relative_to(images)) for path in find_images(images))
        candidates = [_File(path, name.as_posix(), mask_key(name), False) for path, name in names] + candidates
    candidates = [file for file in candidates if file.real not in taken]
    for by_stem in by_name:
        ours, theirs = _group(references, by_stem=by_stem), _group(candidates, by_stem=by_stem)
        if alone := [both for both in ours if len(ours[both]) == len(theirs.get(both, [])) == 1]:
            return {ours[both][0]: theirs[both][0].path for both in alone}
    return {}


def _note(names: Sequence[str], what: str) -> list[str]:
    return [f"{len(names)} {what}: {name_some(names)}"] if names else []


def name_some(names: Sequence[str], most: int = 5) -> str:
    """The first few, and how many more there are; nothing of no names."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
