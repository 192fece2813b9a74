"""predict: images to masks, one record a slice as it is done."""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from brainseg_cli.errors import BrainsegError, OutputExistsError, UsageError
from brainseg_cli.io.images import MASK_SUFFIXES, read_image, write_mask
from brainseg_cli.io.inputs import Input, find_inputs, plan_outputs
from brainseg_cli.models.bundle import BundleInfo, load_bundle
from brainseg_cli.models.devices import choose_device
from brainseg_cli.models.segmenter import Segmenter, apply_threshold
from brainseg_cli.types import Image, Json, MaskFormat, Probs

BATCH_SIZE = 16
WORKERS = 4


@dataclass(frozen=True)
class Prediction:
    """A loaded model and a list of images with a place for each mask. Nothing is written before `run`."""

    segmenter: Segmenter
    bundle: BundleInfo
    threshold: float
    inputs: list[Input]
    targets: list[Path]
    batch_size: int

    def run(self) -> Iterator[Json]:
        """Predict and write, in the order of the inputs; yield a record a slice as soon as its mask is on disk.

        A slice that cannot be read, segmented or written has `status` `failed` and `error` instead of
        numbers; the others go on. Memory holds two batches, however many inputs there are.
        """
        jobs = list(zip(self.inputs, self.targets, strict=True))
        batches = [jobs[start : start + self.batch_size] for start in range(0, len(jobs), self.batch_size)]
        with ThreadPoolExecutor(WORKERS) as pool:
            ahead = [pool.submit(_read, item) for item, _ in batches[0]] if batches else []
            for number, batch in enumerate(batches):
                images = [future.result() for future in ahead]
                following = batches[number + 1] if number + 1 < len(batches) else []
                ahead = [pool.submit(_read, item) for item, _ in following]
                started = time.perf_counter()
                outcomes = self._segment(images)
                seconds = (time.perf_counter() - started) / len(batch)
                items, targets = zip(*batch, strict=True)
                yield from pool.map(self._finish, items, targets, outcomes, [seconds] * len(batch))

    def _segment(self, images: Sequence[Image | BrainsegError]) -> list[Probs | BrainsegError]:
        outcomes: list[Probs | BrainsegError] = []
        fit: list[Image] = []
        for image in images:
            try:
                if isinstance(image, BrainsegError):
                    raise image
                self.segmenter.check_channels(image)
                fit.append(image)
            except BrainsegError as error:
                outcomes.append(error)
            else:
                outcomes.append(np.empty(0, np.float32))  # its place; filled below
        found = iter(self.segmenter.predict_probs(fit))
        return [outcome if isinstance(outcome, BrainsegError) else next(found) for outcome in outcomes]

    def _finish(self, item: Input, target: Path, outcome: Probs | BrainsegError, seconds: float) -> Json:
        record: Json = {
            "image": str(item.path),
            "mask": str(target),
            "patient_id": item.patient_id,
            "slice_index": item.slice_index,
        }
        try:
            if isinstance(outcome, BrainsegError):
                raise outcome
            mask = apply_threshold(outcome, self.threshold)
            write_mask(target, mask)
        except (BrainsegError, OSError) as error:
            with suppress(OSError):
                target.unlink()  # an older mask would be taken for this one
            return record | {"mask": None, "status": "failed", "error": str(error)}
        area_px = int(np.count_nonzero(mask))
        return record | {
            "tumour": area_px > 0,
            "area_px": area_px,
            "area_mm2": None,
            "max_prob": round(float(outcome.max()), 4),
            "seconds": round(seconds, 4),
            "status": "ok",
        }


def plan(
    arguments: Sequence[str],
    model: Path,
    out: Path,
    *,
    threshold: float | None = None,
    mask_format: MaskFormat = "png",
    batch_size: int = BATCH_SIZE,
    device_name: str = "auto",
    overwrite: bool = False,
) -> Prediction:
    """Find the images, decide where each mask goes, load the model once. Nothing is written.

    `arguments` are files, folders and globs; the mask of `p/p_7.tif` is `out/p/p_7.png` (or `.tif`), at the
    image's own size, 0 and 255. `threshold` defaults to the bundle's. InputError where an input or the model
    is missing; UsageError where two inputs would share a mask or a mask would replace an input;
    OutputExistsError for a mask that is there, unless `overwrite`.
    """
    inputs = find_inputs(arguments)
    targets = plan_outputs(inputs, out, MASK_SUFFIXES[mask_format])
    sources = {item.path.resolve() for item in inputs}
    if clash := next((target for target in targets if target.resolve() in sources), None):
        raise UsageError(f"the mask would replace an input: {clash}", hint="give another -o")
    if not overwrite and (there := [target for target in targets if target.exists()]):
        raise OutputExistsError(
            f"{len(there)} of {len(targets)} masks are already there", where=there[0], hint="--overwrite replaces them"
        )
    network, bundle = load_bundle(model)
    segmenter = Segmenter(network, bundle.preprocess, len(bundle.channel_names), choose_device(device_name))
    return Prediction(
        segmenter, bundle, bundle.threshold if threshold is None else threshold, inputs, targets, batch_size
    )


def _read(item: Input) -> Image | BrainsegError:
    try:
        return read_image(item.path)
    except BrainsegError as error:
        return error
