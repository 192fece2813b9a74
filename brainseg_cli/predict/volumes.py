"""Slices of one patient, taken together as a volume."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from brainseg_cli.errors import InputError
from brainseg_cli.io.inputs import MASK_ENDING, Input, absolute
from brainseg_cli.postprocess import Postprocess, postprocess
from brainseg_cli.predict.plan import Plan
from brainseg_cli.predict.slices import Slice, compare


def gather_patients(slices: Iterable[Slice], plan: Plan) -> Iterator[list[Slice]]:
    """Group slices that follow one another: a patient's in one folder; one of no known patient or number alone.

    A patient that comes again later is a fault of those slices, and so are two sizes or a number twice of all.
    """
    done: set[object] = set()
    group: list[Slice] = []
    owner: object = None
    for item in slices:
        found = _name_volume(item.job.item)
        if found != owner and group:
            yield _close(group, plan)
            done.add(owner)
            group = []
        owner = found
        if found in done:
            told = "comes after other patients' slices, and its own were done"
            item.fault = item.fault or InputError(told, where=item.job.item.path, hint="a patient's slices in a row")
        group.append(item)
    if group:
        yield _close(group, plan)


def postprocess_volume(slices: Sequence[Slice], steps: Postprocess) -> None:
    """`postprocess` the masks of one volume in 3-D, by their numbers; across a gap nothing touches."""
    masks = {item.job.item.slice_index or 0: item.mask for item in slices if item.mask is not None}
    if not masks:
        return
    places = _place_slices(sorted(masks))
    shape = next(iter(masks.values())).shape
    volume = np.zeros((max(places.values()) + 1, *shape), np.uint8)
    for index, mask in masks.items():
        volume[places[index]] = mask
    volume = postprocess(volume, steps)
    for item in slices:
        if item.mask is not None:
            item.mask = volume[places[item.job.item.slice_index or 0]]


def _name_volume(item: Input) -> object:
    """The folder, and the name without its number: however the slices were named on the command line."""
    if item.slice_index is None or item.data is not None:
        return item.path
    return absolute(item.path).parent, item.path.stem.removesuffix(MASK_ENDING).rstrip("0123456789")


def _close(group: list[Slice], plan: Plan) -> list[Slice]:
    """Now that the volume is whole: what it is made from, and whether that was done before."""
    readable = [item for item in group if item.fault is None]
    indices = [item.job.item.slice_index for item in readable]
    shapes = {item.shape for item in readable if item.shape is not None}
    if len(shapes) > 1 or len(set(indices)) < len(indices):
        told = "differ in size" if len(shapes) > 1 else "have a number twice"
        for item in readable:
            item.fault = InputError(f"the slices of its patient {told}: no volume", where=item.job.item.path)
        return group
    in_order = sorted(readable, key=lambda item: item.job.item.slice_index or 0)
    digest = hashlib.sha256(" ".join(item.sha256 for item in in_order).encode()).hexdigest()
    for item in readable:
        item.provenance = plan.tell_provenance(item.sha256, volume_sha256=digest)
        compare(item, plan)
    if any(item.recorded is None for item in readable):
        for item in readable:
            item.recorded = None
    return group


def _place_slices(indices: Sequence[int]) -> dict[int, int]:
    """Rising numbers to places in a stack: 3, 4, 9 -> 0, 1, 3. One empty slice is gap enough."""
    places: dict[int, int] = {}
    place = 0
    for at, index in enumerate(indices):
        place += 0 if at == 0 else 1 if index == indices[at - 1] + 1 else 2
        places[index] = place
    return places
