"""A source of slices to a dataset, against one pass that does only what must be done, and a plain script."""

import hashlib
import os
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from benchmarks.timing import tabulate, time_in_turns, write_results
from brainseg_cli.data.layouts import Pair, pair_files
from brainseg_cli.data.phantom import write_phantom
from brainseg_cli.io.archives import open_source
from brainseg_cli.io.rows import RowsWriter
from brainseg_cli.prepare import check, complete_dataset, new_dataset

ARRAYS = ("images.npy", "masks.npy")
AT_ONCE = 256


def run(source: Path | None, repeats: int) -> None:
    """Print the table and write it. The files are in the disk's cache, and the libraries loaded, for every side."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        if source is None:
            source = folder / "phantom"
            write_phantom(source)
        pairs = pair_files(open_source(source).sizes).pairs
        workers = min(16, os.cpu_count() or 1)
        ours = "brainseg: checked, split by patient, and written whole or not at all"
        sides = {
            ours: lambda: _prepare(source, folder / "ours"),
            f"only read, decoded, hashed and written, {workers} threads": lambda: _pass_once(
                source, pairs, folder / "limit", workers
            ),
            "a plain script: cv2.imread, np.stack, np.save": lambda: _prepare_plainly(source, folder / "plain"),
        }
        table = tabulate(time_in_turns(sides, repeats), len(pairs), ours=ours)
        sums = {side: [_sum(folder / side / name) for name in ARRAYS] for side in ("ours", "limit", "plain")}
    if len(set(map(tuple, sums.values()))) > 1:
        raise ValueError(f"the sides do not write the same pixels: {sums}")
    print(f"{len(pairs)} slices")  # noqa: T201
    print(table.to_string(index=False))  # noqa: T201
    versions = {name: version(name) for name in ("brainseg", "torch", "opencv-python-headless", "numpy")}
    print(write_results("prepare", table, versions))  # noqa: T201


def _prepare(source: Path, out: Path) -> None:
    with new_dataset(out, overwrite=True) as folder:
        complete_dataset(check(source, into=folder), folder)


def _pass_once(source: Path, pairs: list[Pair], out: Path, workers: int) -> None:
    """The limit: every file read, decoded and hashed once, the arrays written as they come; which files is known."""
    _make_anew(out)

    def look(pair: Pair) -> tuple[np.ndarray, np.ndarray]:
        image, mask = (
            cv2.imdecode(np.frombuffer((source / name).read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
            for name in (pair.image, pair.mask)
        )
        image, mask = cv2.cvtColor(image, cv2.COLOR_BGR2RGB), (mask > 0).astype(np.uint8)
        hashlib.sha256(image.data)
        hashlib.sha256(mask.data)
        return image, mask

    images, masks = (RowsWriter(out / name) for name in ARRAYS)
    with ThreadPoolExecutor(workers) as pool, images, masks:
        for start in range(0, len(pairs), AT_ONCE):
            for image, mask in pool.map(look, pairs[start : start + AT_ONCE]):
                images.append(image)
                masks.append(mask)


def _prepare_plainly(source: Path, out: Path) -> None:
    """What a notebook does, one file after the other; no check, no hash."""
    _make_anew(out)
    rows, images, masks = [], [], []
    for mask_path in sorted(source.glob("*/*_mask.tif")):
        image_path = mask_path.with_name(mask_path.name.replace("_mask", ""))
        image = cv2.cvtColor(cv2.imread(str(image_path)), cv2.COLOR_BGR2RGB)
        mask = (cv2.imread(str(mask_path), cv2.IMREAD_GRAYSCALE) > 0).astype(np.uint8)
        images.append(image)
        masks.append(mask)
        rows.append((image_path.parent.name, image_path.name, int(mask.sum())))
    np.save(out / "images.npy", np.stack(images))
    np.save(out / "masks.npy", np.stack(masks))
    table = pd.DataFrame(rows, columns=["patient_id", "image", "tumour_px"])
    patients = np.random.default_rng(0).permutation(sorted(set(table["patient_id"])))
    train, val = round(0.7 * len(patients)), round(0.85 * len(patients))
    split = dict.fromkeys(patients[:train], "train") | dict.fromkeys(patients[train:val], "val")
    table["split"] = table["patient_id"].map(split).fillna("test")
    table.to_csv(out / "slices.csv", index=False)


def _make_anew(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()


def _sum(path: Path) -> int:
    return int(np.load(path, mmap_mode="r").sum(dtype=np.int64))
