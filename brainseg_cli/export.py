"""A trained model as one file, for other programs and for predict: written, loaded anew and compared with PyTorch."""

import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from brainseg_cli.data.manifest import Dataset, load_dataset
from brainseg_cli.errors import InputError, UsageError
from brainseg_cli.io.atomic import check_absent, telling
from brainseg_cli.io.folders import folder_aside
from brainseg_cli.io.locks import lock
from brainseg_cli.metrics.aggregate import measure_slice, summarise
from brainseg_cli.models import export as forms
from brainseg_cli.models.cache import move
from brainseg_cli.models.exported import MODULES, open_exported
from brainseg_cli.models.locate import BundleInfo, find_bundles, open_bundle
from brainseg_cli.models.metadata import is_export, list_parts, seal
from brainseg_cli.models.mixed import MIXED
from brainseg_cli.models.parity import Parity, measure_error, measure_parity
from brainseg_cli.models.quantise import quantise
from brainseg_cli.models.runtimes import MAKERS, list_missing, require
from brainseg_cli.models.segmenter import Network, Segmenter, apply_threshold
from brainseg_cli.preprocess import fit_image
from brainseg_cli.training.measure import predict_split
from brainseg_cli.types import ExportFormat, Json, Progress, no_progress

SUFFIXES: dict[ExportFormat, str] = {"onnx": ".onnx", "openvino": ".xml", "torchscript": ".pt", "torch": ".pt2"}
SCORES = ("dice_patient", "dice_pooled")
MAX_LOSS = 0.002
"""Of each of SCORES on val: what int8 may cost."""
CALIBRATION = 32
"""Training slices with tumour, and as many without, that int8 is fitted to."""


@dataclass(frozen=True)
class Comparison:
    """The file against PyTorch in fp32 on the val slices, at their own size and the model's threshold."""

    runtime: str
    """What ran the file."""
    slices: int
    parity: Parity
    torch: dict[str, float]
    """SCORES, each in [0, 1]."""
    exported: dict[str, float]

    @property
    def loss(self) -> dict[str, float]:
        """By how much each score is less; below 0 where it is more."""
        return {name: self.torch[name] - self.exported[name] for name in SCORES}


@dataclass(frozen=True)
class Exported:
    """What was made."""

    path: Path
    format: ExportFormat
    precision: str
    size_bytes: int
    parity: dict[str, Parity]
    """On made-up images, by what ran the file."""
    val: Comparison | None
    """By what ran the file; of int8, by the one that loses most."""
    notes: list[str] = field(default_factory=list)

    @property
    def met(self) -> bool:
        """Whether int8 costs less than MAX_LOSS; where it does not, nothing was written."""
        return self.precision == "fp32" or (self.val is not None and max(self.val.loss.values()) < MAX_LOSS)

    def to_json(self) -> Json:
        """For `--json`; path is null where nothing was written."""
        val = self.val
        told = asdict(self) | {"path": str(self.path) if self.met else None, "met": self.met}
        told["parity"] = {name: parity._asdict() for name, parity in self.parity.items()}
        if val is not None:
            told["val"] |= {"parity": val.parity._asdict(), "loss": val.loss}
        return told


class _Asked(NamedTuple):
    bundle: Path
    target: Path
    form: ExportFormat
    int8: bool


def export(
    path: Path,
    out: Path,
    *,
    form: ExportFormat | None = None,
    int8: bool = False,
    dataset_path: Path | None = None,
    overwrite: bool = False,
    verify: bool = True,
    progress: Progress = no_progress,
) -> Exported:
    """Write the network of a run, or of its model/ folder, to `out`, and say how near to PyTorch it came.

    `out` is a file, whose ending says the format where that is not given, or a folder, in which the file is named as
    the run is; OpenVINO keeps its weights beside it, in .bin. With a dataset it is held against its val slices too.
    `int8` (onnx and openvino) fits 8-bit convolutions to its train slices.

    What was written is read again and run by everything installed that takes it. BrainsegError where in fp32 a
    probability differs by more than `models.export.MAX_ERROR`, or the network has no such form; an int8 file that
    costs MAX_LOSS or more is not `met`; in both cases nothing is left behind. OutputExistsError for a file that is
    there, unless `overwrite`; BusyError where another command writes it, DiskError where it cannot be written;
    UsageError and InputError for what cannot be asked for or read, before any work.
    """
    asked = _ask(path, out, form, int8)
    if int8 and dataset_path is None:
        raise UsageError("--int8 is fitted and measured on slices", hint="--data DATASET")
    with lock(asked.target, "export"), telling(asked.target):
        for part in list_parts(asked.target):
            check_absent(part, overwrite=overwrite)
        return _export(asked, dataset_path, progress, verify=verify)


def _export(asked: _Asked, dataset_path: Path | None, progress: Progress, *, verify: bool) -> Exported:
    exact = forms.load_exact(open_bundle(asked.bundle, verify=verify))
    dataset, notes = (None, []) if dataset_path is None else _open_dataset(dataset_path, exact.info, verify=verify)
    squares = _choose_squares(dataset, exact.info) if asked.int8 and dataset is not None else []
    with folder_aside(asked.target) as aside:
        made = _write(exact, aside / asked.target.name, asked, squares)
        networks = _reopen(made, exact.info, asked)
        parity = {each.described: measure_parity(each, exact.network) for each in networks}
        if not asked.int8:
            for name, found in parity.items():
                forms.check_parity(found, name)
        compared = []
        if dataset is not None:
            # runtimes round differently in int8: what a file costs is what it costs where it costs most
            judges = networks if asked.int8 else networks[:1]
            compared = [_compare(each, exact.network, dataset, exact.info.threshold, progress) for each in judges]
        val = max(compared, key=lambda one: max(one.loss.values()), default=None)
        if val is not None and not asked.int8:
            forms.check_parity(val.parity, val.runtime)
        parts = list_parts(made)
        size = sum(part.stat().st_size for part in parts)
        done = Exported(asked.target, asked.form, "int8" if asked.int8 else "fp32", size, parity, val, notes)
        if done.met:
            if len(parts) > 1:
                asked.target.unlink(missing_ok=True)  # a graph never stands beside the weights of another
            move(parts[::-1], asked.target.parent)
    return done


def _ask(path: Path, out: Path, wanted: ExportFormat | None, int8: bool) -> _Asked:
    if str(out) == "-":
        raise UsageError("a model is a file, and cannot go to stdout", hint="-o FILE")
    bundles = find_bundles(path)
    if len(bundles) > 1:
        raise UsageError(f"holds {len(bundles)} models, and a file holds one", where=path, hint="name one of them")
    if is_export(bundles[0]):
        raise UsageError("is an exported file", where=path, hint="give the run it is of")
    suffix = "" if out.is_dir() else out.suffix.lower()
    by_suffix = {ending: name for name, ending in SUFFIXES.items()}
    form = wanted or by_suffix.get(suffix, "onnx")
    if suffix not in ("", SUFFIXES[form]):
        raise UsageError(f"a file of the format {form} ends in {SUFFIXES[form]}", where=out)
    if int8 and form not in MODULES:
        raise UsageError(f"--int8 is for {' and '.join(MODULES)}, not for {form}")
    if form in MODULES:
        require(f"--format {form}", *MAKERS, *(["openvino"] if form == "openvino" else []))
    if int8:
        require("--int8", MODULES["onnx"])
    if not suffix:
        run = Path(os.path.realpath(bundles[0]))
        out /= (run.parent if run.name == "model" else run).name + SUFFIXES[form]
    return _Asked(bundles[0], out, form, int8)


def _open_dataset(path: Path, info: BundleInfo, *, verify: bool) -> tuple[Dataset, list[str]]:
    """With the model's own fold, where there are folds. InputError where val has no tumour to measure a dice on."""
    dataset = load_dataset(path, verify=verify)
    if dataset.has_folds:
        numbers = range(dataset.slices["split"].nunique())
        folds = (dataset.with_fold(number, val=val) for number in numbers for val in (True, False))
        own = next((each for each in folds if each.split_hash() == info.split_hash), None)
        if own is None:
            raise UsageError("has folds, and the model was trained with none of them", where=path)
        dataset = own
    if not dataset.slices["tumour_px"].iloc[dataset.rows("val")].any():
        raise InputError("has no val slices with tumour, to measure a dice on", where=path)
    notes = []
    if (dataset.info.content_hash, dataset.split_hash()) != (info.dataset_hash, info.split_hash):
        notes.append("this dataset, or its split, is not the one the model was trained with")
    return dataset, notes


def _choose_squares(dataset: Dataset, info: BundleInfo) -> list[npt.NDArray[np.uint8]]:
    """Always the same training slices, as the network sees them."""
    rng = np.random.default_rng(0)
    rows = dataset.rows("train")
    if not len(rows):
        raise InputError("has no train slices, to fit int8 to", where=dataset.folder)
    tumour = dataset.slices["tumour_px"].to_numpy()[rows] > 0
    chosen = [rng.permutation(some)[:CALIBRATION] for some in (rows[tumour], rows[~tumour])]
    images = [dataset.image(row) for row in np.concatenate(chosen).tolist()]
    return [fit_image(image, info.preprocess).image(image) for image in images]


def _write(exact: forms.Exact, made: Path, asked: _Asked, squares: list[npt.NDArray[np.uint8]]) -> Path:
    metadata = forms.describe_export(exact.info, "int8" if asked.int8 else "fp32")
    if asked.form == "torchscript":
        forms.export_torchscript(exact, made, metadata)
    elif asked.form == "torch":
        forms.export_program(exact, made, metadata)
    else:
        graph = exactly = made.with_name(f"{made.stem}.fp32.onnx")
        forms.export_onnx(exact, exactly)
        metadata |= {} if asked.int8 else {MIXED: f"{forms.measure_mixed(exact):.3g}"}
        if asked.int8:
            graph = made.with_name(f"{made.stem}.int8.onnx")
            quantise(exactly, graph, squares)
        if asked.form == "openvino":
            forms.convert_openvino(graph, made, metadata)
        else:
            forms.set_metadata(graph, metadata)
            graph.rename(made)
    if asked.form in MODULES:
        seal(made)
    return made


def _reopen(made: Path, info: BundleInfo, asked: _Asked) -> list[Network]:
    if asked.form == "torchscript":
        return [forms.open_torchscript(made, info)]
    if asked.form == "torch":
        return [forms.open_program(made, info)]
    readers = MODULES if asked.form == "onnx" else ["openvino"]
    precision = "int8" if asked.int8 else "fp32"
    parts = [part.read_bytes() for part in list_parts(made)]
    return [
        open_exported(made, parts, info, reader, precision) for reader in readers if not list_missing(MODULES[reader])
    ]


def _compare(network: Network, exact: Network, dataset: Dataset, threshold: float, progress: Progress) -> Comparison:
    rows = dataset.rows("val")
    names = dataset.slices[["image", "patient_id", "slice_index"]].iloc[rows].reset_index(drop=True)
    wanted = predict_split(Segmenter(exact), dataset, "val")
    found = predict_split(Segmenter(network), dataset, "val", progress=progress)
    measured: tuple[list[Json], list[Json]] = [], []
    max_error, flipped, pixels = 0.0, 0, 0
    for (row, one), (_, other) in zip(wanted, found, strict=True):
        masks = [apply_threshold(probs, threshold) for probs in (one, other)]
        for table, mask in zip(measured, masks, strict=True):
            table.append(measure_slice(dataset.mask(row), mask))
        max_error = max(max_error, measure_error(other, one))
        flipped, pixels = flipped + int((masks[0] != masks[1]).sum()), pixels + masks[0].size
    scores = [summarise(pd.concat([names, pd.DataFrame(table)], axis=1))["metrics"] for table in measured]
    torch, exported = ({name: each[name] for name in SCORES} for each in scores)
    return Comparison(network.described, len(rows), Parity(max_error, flipped / pixels), torch, exported)
