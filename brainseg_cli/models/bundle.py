"""The model/ folder: everything that predict must repeat, and no more. Loading it runs no code and downloads nothing.

config.json and model.safetensors are what `segmentation_models_pytorch.from_pretrained` reads; brainseg.json
holds preprocessing, threshold, channels and where the weights come from.
"""

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn

from brainseg_cli.errors import InputError
from brainseg_cli.io.atomic import encode_json, read_json, write_bytes, write_together
from brainseg_cli.io.images import read_bytes
from brainseg_cli.models.build import describe_model, rebuild_model
from brainseg_cli.models.locate import BUNDLE_SCHEMA, BundleInfo, find_bundle, read_info


def save_bundle(folder: Path, model: nn.Module, info: BundleInfo) -> None:
    """Write the three files: all of them, or none takes the place of what is there."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    files = {
        "brainseg.json": _encode_info(info),
        "config.json": encode_json(describe_model(model)),
        "model.safetensors": save(tensors, metadata={"format": "pt"}),
    }
    write_together(folder, files, sync=True)


def write_info(folder: Path, info: BundleInfo) -> None:
    """Replace brainseg.json alone, in the present schema: the weights stay."""
    write_bytes(folder / "brainseg.json", _encode_info(info), sync=True)


def load_bundle(path: Path) -> tuple[nn.Module, BundleInfo]:
    """The trained network, in eval mode on the CPU, and its brainseg.json. `path` is a run or its model/.

    InputError for anything missing, broken, newer than this program, or weights that do not fit.
    """
    folder = find_bundle(path)
    if folder.is_file():
        raise InputError("is an exported file, which PyTorch does not run", where=folder, hint="give the run it is of")
    info = read_info(folder)
    weights = folder / "model.safetensors"
    model = rebuild_model(read_json(folder / "config.json"))
    try:
        model.load_state_dict(load(read_bytes(weights)))
    except SafetensorError as error:
        raise InputError(f"is no safetensors file: {error}", where=weights) from None
    except RuntimeError:
        raise InputError("does not fit the network that config.json describes", where=weights) from None
    return model.eval(), info


def _encode_info(info: BundleInfo) -> bytes:
    return encode_json(info.model_dump(mode="json") | {"schema_version": BUNDLE_SCHEMA})
