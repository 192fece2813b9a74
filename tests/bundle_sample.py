"""What a bundle says of itself, made up: for tests of models that need no training."""

from typing import Any

from brainseg_cli.config import PreprocessConfig
from brainseg_cli.models.exported import multiplies_bf16
from brainseg_cli.models.locate import BundleInfo

SIZE = 32


def about(**changes: Any) -> BundleInfo:
    """A BundleInfo with `changes`."""
    known: dict[str, Any] = {
        "brainseg_version": "0.1.0",
        "torch_version": "2",
        "preprocess": PreprocessConfig(size=SIZE),
        "threshold": 0.4,
        "channel_names": ["pre-contrast", "FLAIR", "post-contrast"],
        "encoder_weights": "none",
        "dataset_hash": "d",
        "split": "70/15/15",
        "split_hash": "s",
        "leaky": False,
        "epoch": 1,
        "val_dice_patient": None,
    }
    return BundleInfo(**known | changes)


def name_fastest() -> str:
    """What `auto` is on a machine without a GPU."""
    return f"openvino {'mixed' if multiplies_bf16() else 'fp32'} cpu"
