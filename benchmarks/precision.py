"""What fewer bits cost and save on a CPU: each precision against PyTorch in fp32, slice by slice, on real slices."""

import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmarks.timing import write_results
from brainseg_cli.data.manifest import load_dataset
from brainseg_cli.metrics.counts import compute_counts, dice
from brainseg_cli.models.exported import computes_bf16
from brainseg_cli.models.locate import find_bundle, open_bundle
from brainseg_cli.models.runtimes import Choice, open_network
from brainseg_cli.models.segmenter import Network, Squares, apply_threshold
from brainseg_cli.preprocess import fit_image
from brainseg_cli.types import PredictPrecision

BATCH = 16


def run(data: Path, model: Path, *, slices: int) -> None:
    """Print the table and write it: of masks in the network's square, at the model's threshold."""
    dataset, bundle = load_dataset(data), open_bundle(find_bundle(model))
    rows = np.unique(np.linspace(0, len(dataset.slices) - 1, slices).astype(int)).tolist()
    images = [dataset.image(row) for row in rows]
    squares = np.stack([fit_image(image, bundle.info.preprocess).image(image) for image in images])
    exact = open_network(bundle, Choice("torch", "cpu"))
    wanted = segment(exact, squares)
    reference = apply_threshold(wanted, bundle.info.threshold)
    table = []
    precisions: list[PredictPrecision] = ["fp32", *(["mixed", "bf16"] if computes_bf16() else [])]  # type: ignore[list-item]
    for precision in precisions:
        network = open_network(bundle, Choice("openvino", "cpu", precision))
        network.submit(squares[:BATCH])()
        start = time.process_time()
        found = segment(network, squares)
        spent = time.process_time() - start
        masks = apply_threshold(found, bundle.info.threshold)
        tp, fp, fn, _ = compute_counts(masks, reference)
        table.append(
            {
                "run by": network.described,
                "core_ms": round(spent / len(squares) * 1000, 1),
                "dice": round(float(dice(tp, fp, fn)), 6),
                "flipped_px": fp + fn,
                "tumour_px": int(reference.sum()),
                "max_error": round(float(np.abs(found - wanted).max()), 4),
            }
        )
    shown = pd.DataFrame(table)
    name = model.name
    print(f"{name}, {len(squares)} slices, threshold {bundle.info.threshold:g}, against {exact.described}")  # noqa: T201
    print(shown.to_string(index=False))  # noqa: T201
    versions = {each: version(each) for each in ("brainseg", "torch", "openvino")}
    shown.insert(0, "slices", len(squares))
    print(write_results(f"precision-{name}", shown, versions))  # noqa: T201


def segment(network: Network, squares: npt.NDArray[np.uint8]) -> Squares:
    """Batch by batch."""
    return np.concatenate([network.submit(squares[at : at + BATCH])() for at in range(0, len(squares), BATCH)])
