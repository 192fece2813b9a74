"""The model/ folder: everything that predict must repeat, and no more. Loading it runs no code and downloads nothing.

config.json and model.safetensors are what `segmentation_models_pytorch.from_pretrained` reads; brainseg.json
holds preprocessing, threshold, channels and where the weights come from.
"""

import hashlib
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn

from brainseg_cli.errors import InputError
from brainseg_cli.io.atomic import encode_json, parse_json, write_bytes, write_together
from brainseg_cli.io.sums import with_own_sum
from brainseg_cli.models.build import describe_model, rebuild_model
from brainseg_cli.models.locate import BUNDLE_FILES, BUNDLE_SCHEMA, Bundle, BundleInfo, find_bundle, open_bundle

ABOUT, CONFIG, WEIGHTS = BUNDLE_FILES


def save_bundle(folder: Path, model: nn.Module, info: BundleInfo) -> None:
    """Write the three files: all of them, or none takes the place of what is there.

    brainseg.json, the last to take its own, has the hashes of the others, and of itself.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    weights, config = save(tensors, metadata={"format": "pt"}), encode_json(describe_model(model))
    sums = {CONFIG: hashlib.sha256(config).hexdigest(), WEIGHTS: hashlib.sha256(weights).hexdigest()}
    about = _encode_info(info.model_copy(update={"sha256": sums}))
    write_together(folder, {ABOUT: about, CONFIG: config, WEIGHTS: weights}, sync=True)


def write_info(folder: Path, info: BundleInfo) -> None:
    """Replace brainseg.json alone, in the present schema: the weights stay, and so do the hashes that `info` has."""
    write_bytes(folder / ABOUT, _encode_info(info), sync=True)


def load_bundle(path: Path, *, verify: bool = True) -> tuple[nn.Module, BundleInfo]:
    """The trained network, in eval mode on the CPU, and its brainseg.json. `path` is a run or its model/.

    InputError as `open_bundle` and `load_network`.
    """
    bundle = open_bundle(find_bundle(path), verify=verify)
    return load_network(bundle), bundle.info


def load_network(bundle: Bundle) -> nn.Module:
    """The network of a bundle that was opened, in eval mode on the CPU, from the very bytes that were hashed.

    InputError for an exported file, what config.json does not describe, or weights that do not fit.
    """
    if bundle.path.is_file():
        raise InputError(
            "is an exported file, which PyTorch does not run", where=bundle.path, hint="give the run it is of"
        )
    weights = bundle.path / WEIGHTS
    model = rebuild_model(parse_json(bundle.read(CONFIG), bundle.path / CONFIG))
    try:
        model.load_state_dict(load(bundle.read(WEIGHTS)))
    except SafetensorError as error:
        raise InputError(f"is no safetensors file: {error}", where=weights) from None
    except RuntimeError:
        raise InputError("does not fit the network that config.json describes", where=weights) from None
    return model.eval()


def _encode_info(info: BundleInfo) -> bytes:
    return encode_json(with_own_sum(info.model_dump(mode="json") | {"schema_version": BUNDLE_SCHEMA}, ABOUT))
