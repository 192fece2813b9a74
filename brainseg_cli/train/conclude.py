"""What is left to do once the weights are there: their threshold, what their training slices look like, curves."""

import torch

from brainseg_cli.data.manifest import Dataset
from brainseg_cli.figures.curves import draw_curves
from brainseg_cli.metrics.threshold import choose_threshold
from brainseg_cli.models.bundle import load_bundle, write_info
from brainseg_cli.models.network import TorchNetwork
from brainseg_cli.models.segmenter import Segmenter
from brainseg_cli.ood import learn_ranges
from brainseg_cli.training.engine import Observer
from brainseg_cli.training.measure import sweep_thresholds
from brainseg_cli.training.run_folder import RunFolder


def conclude(run: RunFolder, dataset: Dataset, device: torch.device, observer: Observer, *, best_epoch: int) -> None:
    """Into the bundle the threshold that scores best on val, and the ranges of the training slices; and the curves."""
    model, bundle = load_bundle(run.path)
    changes: dict[str, object] = {"ranges": learn_ranges(dataset.image(row) for row in dataset.rows("train"))}
    if len(dataset.rows("val")):
        segmenter = Segmenter(TorchNetwork(model, bundle.preprocess, len(bundle.channel_names), device))
        rows = sweep_thresholds(segmenter, dataset, "val")
        chosen = choose_threshold(rows)
        if chosen is None:
            observer.on_message(f"no val patient has tumour: the threshold stays at {bundle.threshold:g}")
        else:
            run.write_thresholds(rows)
            changes |= {"threshold": chosen, "threshold_from": "val"}
    write_info(run.model, bundle.model_copy(update=changes))
    title = f"{run.path.name}: {run.read_config().model.encoder}" + (" (LEAKY split)" if bundle.leaky else "")
    draw_curves(run.read_metrics(), run.figures / "curves.png", title=title, best_epoch=best_epoch)
