"""The same from Python: a trained model as an object that takes arrays, files and folders.

>>> from brainseg_cli import load_model
>>> model = load_model("runs/demo")
>>> for found in model.predict("slices"):
...     print(found.path.name, found.finding["area_px"])  # doctest: +ELLIPSIS
PHANTOM_...

PyTorch is loaded by `load_model`, where it is needed: on a GPU, or to prepare a model for this CPU once.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypedDict, Unpack, cast, overload

import numpy as np
import numpy.typing as npt

from brainseg_cli.errors import InputError, UsageError
from brainseg_cli.io.images import read_image, to_uint8
from brainseg_cli.io.inputs import find_inputs
from brainseg_cli.metrics.finding import describe_finding
from brainseg_cli.models.built_in import DEFAULT_MODEL, FOLDER, find_built_in, list_built_in
from brainseg_cli.postprocess import Postprocess, postprocess
from brainseg_cli.types import Image, Json, Mask, PredictPrecision, Probs, Runtime, Tta

if TYPE_CHECKING:
    from brainseg_cli.models.ensemble import Ensemble
    from brainseg_cli.models.locate import BundleInfo

KINDS = "an array, a list of arrays, a path or a list of paths"

Array: TypeAlias = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
"""(H, W) or (H, W, C), C in {1, 3}, RGB; 16 bits are scaled as those of a file are, array by array."""

AnyPath: TypeAlias = str | PathLike[str]


class Options(TypedDict, total=False):
    """What `Model.predict` may be told, for the type checker."""

    threshold: float | None
    tta: Tta
    largest_component: bool
    min_size: int
    fill_holes: bool
    batch_size: int | None


@dataclass(frozen=True, eq=False)
class Segmentation:
    """What a model found in one slice.

    `finding` says it in numbers: tumour, area_px, area_mm2 (None: a slice does not tell its spacing), max_prob,
    mean_prob, centroid_px, box_px and entropy as `metrics.finding.describe_finding`, and the disagreement of an
    ensemble's members as `measure_disagreement`, None for one network alone; ood is what of the slice is unlike the
    model's training, as `ood.find_unlike`.

    >>> found = model.predict(image)
    >>> found.mask.shape == found.probs.shape == image.shape[:2]
    True
    >>> bool(found.finding["area_px"] == found.mask.sum())
    True
    """

    mask: Mask = field(repr=False)
    """(H, W) uint8 in {0, 1}; 1 is tumour."""
    probs: Probs = field(repr=False)
    """(H, W) float32 in [0, 1], as they were before threshold and clean-up."""
    finding: Json
    path: Path | None = None
    """The file that was segmented; None for an array."""


class Model:
    """Trained networks on a device, one or an ensemble, as `load_model` makes them.

    >>> model.bundles[0].channel_names
    ['pre-contrast', 'FLAIR', 'post-contrast']
    >>> 0 < model.threshold < 1
    True
    """

    def __init__(self, ensemble: "Ensemble") -> None:
        self._ensemble = ensemble

    def __repr__(self) -> str:
        count = len(self.bundles)
        return f"<Model of {count} network{'s' * (count > 1)} on {self.device}, threshold {self.threshold:g}>"

    @property
    def bundles(self) -> "list[BundleInfo]":
        """What is known of each network: channels, preprocessing, threshold, the data and the epoch it is from."""
        return self._ensemble.bundles

    @property
    def threshold(self) -> float:
        """From which probability a pixel is tumour, where `predict` is not told: the mean of the networks'."""
        return self._ensemble.threshold

    @property
    def leaky(self) -> bool:
        """Whether a network was trained on a split with slices of one patient on several sides."""
        return self._ensemble.leaky

    @property
    def device(self) -> str:
        """What computes, where and how: `openvino fp32 cpu`, `torch fp16 cuda:1`."""
        return self._ensemble.described

    @overload
    def predict(self, image: Array, **options: Unpack[Options]) -> Segmentation: ...
    @overload
    def predict(self, image: AnyPath | Sequence[AnyPath], **options: Unpack[Options]) -> Iterator[Segmentation]: ...
    @overload
    def predict(self, image: Sequence[Array], **options: Unpack[Options]) -> list[Segmentation]: ...
    def predict(
        self,
        image: Array | Sequence[Array] | AnyPath | Sequence[AnyPath],
        *,
        threshold: float | None = None,
        tta: Tta = "none",
        largest_component: bool = False,
        min_size: int = 0,
        fill_holes: bool = False,
        batch_size: int | None = None,
    ) -> Segmentation | list[Segmentation] | Iterator[Segmentation]:
        """Segment an array, a list of arrays, or files.

        An array (H, W) or (H, W, C), uint8 or uint16, gives a Segmentation. A list of arrays, sizes may differ,
        gives a list; an empty one, an empty one. A file, a folder (searched through in natural order, masks left
        out) or a list of them, a file named twice done once, gives an iterator: `batch_size` slices
        (by machine, unless told) are read and segmented at a time, so memory does not grow with their number. A grey
        image is repeated for a network of three channels.

        `threshold` in [0, 1] takes the place of the model's. `tta` averages over mirrored views (`flips`: 4 times
        the work) and turned ones too (`d4`: 8 times). Then each slice's mask is cleaned: `fill_holes`, drop parts
        of fewer than `min_size` pixels, keep the `largest_component`.

        InputError for arrays of other shapes, types or channel counts, a path that is not there, a folder without
        images. A file that cannot be read or does not fit the model raises InputError in its turn; the iterator
        may then be asked for the next one. UsageError for an option out of its range.

        >>> [found.mask.shape for found in model.predict([image, image[:20, :30]], threshold=0.5)]
        [(40, 56), (20, 30)]
        >>> areas = {found.path: found.finding["area_px"] for found in model.predict("slices", tta="flips")}
        >>> len(areas)
        7
        """
        from brainseg_cli.models.tta import views

        if threshold is not None and not 0 <= threshold <= 1:
            raise UsageError(f"a threshold of {threshold}: probabilities lie in [0, 1]")
        batch_size = self._ensemble.batch_size if batch_size is None else batch_size
        if batch_size < 1:
            raise UsageError(f"a batch of {batch_size} slices")
        views(tta)  # so that it refuses now, not when the iterator is asked for the first slice
        used = self.threshold if threshold is None else threshold
        work = _Work(self._ensemble, used, tta, Postprocess(largest_component, min_size, fill_holes), batch_size)
        if isinstance(image, np.ndarray):
            return work.segment([work.check_array(image)])[0]
        if isinstance(image, str | PathLike):
            return work.walk([image])
        if not isinstance(image, Sequence):
            raise UsageError(f"a {type(image).__name__} cannot be segmented", hint=f"give {KINDS}")
        if all(isinstance(one, np.ndarray) for one in image):
            arrays = cast(Sequence[Array], image)
            return work.segment([work.check_array(array, f"array {number}") for number, array in enumerate(arrays)])
        if all(isinstance(one, str | PathLike) for one in image):
            return work.walk(cast(Sequence[AnyPath], image))
        raise UsageError("a list that is neither of arrays nor of paths cannot be segmented", hint=f"give {KINDS}")


def load_model(
    path_or_name: AnyPath | Sequence[AnyPath] = FOLDER / DEFAULT_MODEL,
    *,
    device: str = "auto",
    runtime: Runtime = "auto",
    precision: PredictPrecision = "auto",
    verify: bool = True,
) -> Model:
    """A trained model: a built-in one, a run, its model/ folder, a k-fold (a folder of runs fold*), or several as one.

    `device` is `auto` (the first GPU, else Apple's, else the CPU), `cpu`, `cuda`, `cuda:N` or `mps`. `runtime` and
    `precision` are `models.runtimes.Choice`'s: `auto` takes the fastest that is there and agrees with PyTorch in
    fp32, in fp16 and in mixed precision to 0.02 of a probability on made-up slices. Without `verify` a file that is
    not as it was written is loaded all the same. InputError for what is not there or holds no model that can be
    loaded; UsageError for a device or a runtime that is not there, for nothing, and for the same model twice.

    >>> load_model("runs/demo", device="cpu", runtime="torch").device
    'torch fp32 cpu'
    >>> len(load_model(["runs/demo", "runs/other"]).bundles)
    2
    """
    from brainseg_cli.models.ensemble import load_ensemble
    from brainseg_cli.models.runtimes import Choice

    several = [path_or_name] if isinstance(path_or_name, str | PathLike) else path_or_name
    paths = [Path(path) for path in several]
    if missing := next((path for path in paths if not path.exists() and find_built_in(path) is None), None):
        raise InputError(
            f"is not there, and no built-in model is called so: there is {', '.join(list_built_in())}",
            where=missing,
            hint="give a run, its model/ folder, or a folder of runs fold*",
        )
    return Model(load_ensemble(paths, Choice(runtime, device, precision), verify=verify))


@dataclass(frozen=True)
class _Work:
    """One call of `predict`."""

    ensemble: "Ensemble"
    threshold: float
    tta: Tta
    steps: Postprocess
    batch_size: int

    def walk(self, paths: Sequence[AnyPath]) -> Iterator[Segmentation]:
        """Every image of `paths`, each in its turn. UsageError and InputError as `find_inputs`, at once."""
        files = (item.path for item in find_inputs([fspath(path) for path in paths]))
        # a generator that raises is at its end; a map is not
        return map(_give_or_raise, self._read_and_segment(files))

    def segment(self, images: Sequence[Image], paths: Sequence[Path] | None = None) -> list[Segmentation]:
        """Images that have been checked, `batch_size` at a time."""
        done: list[Segmentation] = []
        for start in range(0, len(images), self.batch_size):
            for found in self.ensemble.predict(images[start : start + self.batch_size], tta=self.tta):
                decided, disagreement = found.decide(self.threshold)
                mask = postprocess(decided, self.steps)
                finding = describe_finding(mask, found.probs) | {"disagreement": disagreement}
                finding["ood"] = self.ensemble.find_unlike(images[len(done)])
                done.append(Segmentation(mask, found.probs, finding, paths[len(done)] if paths else None))
        return done

    def check_array(self, array: npt.NDArray[np.generic], name: str | None = None) -> Image:
        """An array as the image that a file of its pixels would be read as. InputError names what it is instead."""
        raw = array[..., None] if array.ndim == 2 else array
        if raw.ndim != 3 or raw.shape[2] not in (1, 3) or not raw.size or raw.dtype.name not in ("uint8", "uint16"):
            raise InputError(
                f"an array of shape {array.shape} and type {array.dtype}",
                where=name,
                hint="(H, W) or (H, W, C) of 1 or 3 channels in uint8 or uint16, one slice an array",
            )
        image = to_uint8(np.ascontiguousarray(raw, raw.dtype.newbyteorder("=")), name or "the array")
        return self._check_channels(image, name)

    def _read_and_segment(self, files: Iterator[Path]) -> Iterator[Segmentation | InputError]:
        while batch := list(islice(files, self.batch_size)):
            outcomes = [self._read(path) for path in batch]
            fit = [(one, path) for one, path in zip(outcomes, batch, strict=True) if not isinstance(one, InputError)]
            found = iter(self.segment([image for image, _ in fit], [path for _, path in fit]))
            for one in outcomes:
                yield one if isinstance(one, InputError) else next(found)

    def _read(self, path: Path) -> Image | InputError:
        try:
            return self._check_channels(read_image(path), path)
        except InputError as error:
            return error

    def _check_channels(self, image: Image, name: Path | str | None) -> Image:
        try:
            self.ensemble.check_channels(image)
        except InputError as error:
            raise InputError(error.what, where=name) from None
        return image


def _give_or_raise(outcome: Segmentation | InputError) -> Segmentation:
    if isinstance(outcome, InputError):
        raise outcome
    return outcome
