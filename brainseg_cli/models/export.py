"""A trained network in other forms: uint8 pixels to probabilities, intensity scaling inside."""

import copy
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from io import BytesIO, StringIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch._guards import detect_fake_mode

from brainseg_cli.config import PreprocessConfig
from brainseg_cli.errors import BrainsegError, InputError, hides_interrupt
from brainseg_cli.models.bundle import load_network
from brainseg_cli.models.devices import full_precision
from brainseg_cli.models.exported import INPUT, OUTPUT, import_runtime, load_openvino, open_exported
from brainseg_cli.models.folded import fold
from brainseg_cli.models.locate import Bundle, BundleInfo
from brainseg_cli.models.metadata import INFO, PRECISION
from brainseg_cli.models.mixed import INNER
from brainseg_cli.models.network import TorchNetwork
from brainseg_cli.models.parity import Parity, make_probes, measure_error, measure_parity
from brainseg_cli.models.segmenter import BATCH_SIZE, Pending
from brainseg_cli.preprocess import scale_intensity

MAX_ERROR = 1e-3
"""Of a probability: how far an export may be from PyTorch."""


class Exact(NamedTuple):
    """A bundle as PyTorch runs it on the CPU in fp32: what every export is held against."""

    network: TorchNetwork
    info: BundleInfo


class Deployed(nn.Module):
    """uint8 (N, size, size, C) -> probabilities float32 (N, size, size): what is left to do outside is geometry."""

    def __init__(self, model: nn.Module, preprocess: PreprocessConfig) -> None:
        super().__init__()
        self.model, self.preprocess = model, preprocess

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.model(scale_intensity(pixels.permute(0, 3, 1, 2).float(), self.preprocess))
        return logits.sigmoid()[:, 0]


class Reloaded:
    """As `Network`: an exported program of PyTorch's, on the CPU."""

    def __init__(self, program: Callable[[Tensor], Tensor], info: BundleInfo, described: str) -> None:
        self.preprocess, self.in_channels = info.preprocess, len(info.channel_names)
        self.described, self.batch_size = described, BATCH_SIZE
        self._program = program

    @torch.inference_mode()
    def submit(self, pixels: npt.NDArray[np.uint8]) -> Pending:
        """As `Network.submit`; it is done at once."""
        done = self._program(torch.from_numpy(pixels)).numpy()
        return lambda: done

    def cancel(self) -> None:
        """Nothing: what was submitted is done."""


def load_exact(bundle: Bundle) -> Exact:
    """InputError as `load_network`."""
    model, info = load_network(bundle), bundle.info
    return Exact(TorchNetwork(model, info.preprocess, len(info.channel_names), torch.device("cpu")), info)


def export_onnx(exact: Exact, target: Path) -> None:
    """Write an ONNX file whose batch may be of any size. BrainsegError where the network has no such form."""
    with exporting("ONNX"):
        module, probes = _deploy(exact)
        program = torch.onnx.export(
            module,
            (probes,),
            dynamo=True,
            verbose=False,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=({0: torch.export.Dim("slices")},),
        )
        assert program is not None and program.exported_program is not None
        _forget_shapes(program.exported_program)
    target.write_bytes(program.model_proto.SerializeToString())


def export_torchscript(exact: Exact, target: Path, metadata: Mapping[str, str]) -> None:
    """Write what `torch.jit.load` reads, the metadata among its extra files. BrainsegError as `export_onnx`."""
    written = BytesIO()  # what writes to a path itself ends the process where the disk is full
    with exporting("TorchScript"):
        module, probes = _deploy(exact)
        torch.jit.save(torch.jit.trace(module, (probes,)), written, _extra_files=dict(metadata))  # type: ignore[no-untyped-call]
    target.write_bytes(written.getbuffer())


def export_program(exact: Exact, target: Path, metadata: Mapping[str, str]) -> None:
    """Write what `torch.export.load` reads, the metadata among its extra files. BrainsegError as `export_onnx`."""
    written = BytesIO()
    with exporting("torch.export"):
        module, probes = _deploy(exact)
        program = torch.export.export(module, (probes,), dynamic_shapes=({0: torch.export.Dim("slices")},))
        torch.export.save(program, written, extra_files=dict(metadata))
        _forget_shapes(program)
    target.write_bytes(written.getbuffer())


def convert_openvino(source: Path, target: Path, metadata: Mapping[str, str]) -> None:
    """An ONNX file without metadata as OpenVINO's own .xml, the weights beside it in .bin, neither rounded."""
    openvino = import_runtime("openvino")
    model = load_openvino().read_model(source)
    for key, value in metadata.items():
        model.set_rt_info(value, [key])
    try:
        openvino.save_model(model, target, compress_to_fp16=False)
    except RuntimeError as error:
        target.write_bytes(bytes(source.stat().st_size))  # it does not say what is wrong with a disk, and this does
        raise BrainsegError(f"OpenVINO cannot write it: {error}", where=target) from None


def set_metadata(path: Path, metadata: Mapping[str, str]) -> None:
    """Give an ONNX file its metadata_props, in the place of those it has."""
    import onnx

    proto = onnx.load(path)
    onnx.helper.set_model_props(proto, dict(metadata))
    path.write_bytes(proto.SerializeToString())


def open_torchscript(path: Path, info: BundleInfo) -> Reloaded:
    """What `export_torchscript` wrote."""
    with quiet():
        program = torch.jit.load(str(path))  # type: ignore[no-untyped-call]
    return Reloaded(program, info, "torchscript fp32 cpu")


def open_program(path: Path, info: BundleInfo) -> Reloaded:
    """What `export_program` wrote."""
    with quiet():
        program = torch.export.load(path).module()
    return Reloaded(program, info, "torch.export fp32 cpu")


def describe_export(info: BundleInfo, precision: str = "fp32") -> dict[str, str]:
    """What a file says of itself, by key: the bundle's brainseg.json, and in words how it is to be used."""
    size, crop = info.preprocess.size, info.preprocess.crop
    window = "the head (brainseg's find_head)" if crop == "head" else "the whole slice"
    return {
        INFO: json.dumps(info.model_dump(mode="json")),
        PRECISION: precision,
        "input": f"{INPUT}: uint8 (N, {size}, {size}, {len(info.channel_names)}), channels "
        f"{', '.join(info.channel_names)}. Scale {window} to fit a square of {size} px, aspect kept (area averaging "
        "where it shrinks, else bilinear), centre it, pad with 0. Intensity scaling is done inside.",
        "output": f"{OUTPUT}: float32 (N, {size}, {size}) in [0, 1]. Cut off the padding, resize back; tumour is "
        f">= {info.threshold:g}.",
    }


def check_export(exact: Exact, path: Path, runtime: str) -> Parity:
    """Run an ONNX file and compare, as `check_parity`. BrainsegError where it cannot be run at all."""
    try:
        network = open_exported(path, [path.read_bytes()], exact.info, runtime, "fp32")
    except InputError as error:
        raise BrainsegError(error.what) from None
    return check_parity(measure_parity(network, exact.network), runtime)


def measure_mixed(exact: Exact) -> float:
    """About how far a probability is from `exact`, on the probes, where the inner convolutions multiply in bf16.

    Computed in fp32, with what they multiply and what they give rounded, so that a machine without bf16 can say it too.
    """
    module, _ = _deploy(exact)
    largest = exact.network.preprocess.size // INNER
    for each in module.modules():
        if isinstance(each, nn.Conv2d | nn.ConvTranspose2d) and (each.groups == 1 or each.in_channels > each.groups):
            _round_inner(each, largest)
    probes = make_probes(exact.network.preprocess.size, exact.network.in_channels)
    with torch.inference_mode(), full_precision():
        found = module(torch.from_numpy(probes)).numpy()
    return measure_error(found, exact.network.submit(probes)())


def _round_inner(convolution: nn.Module, largest: int) -> None:
    rounded = copy.deepcopy(convolution)
    rounded.weight.data = convolution.weight.data.bfloat16().float()

    def redo(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        if not 1 < max(output.shape[2:]) <= largest:
            return output
        done: Tensor = rounded(inputs[0].bfloat16().float())
        return done.bfloat16().float()

    convolution.register_forward_hook(redo)


def check_parity(parity: Parity, runtime: str) -> Parity:
    """BrainsegError where a probability differs by more than MAX_ERROR."""
    if parity.max_error > MAX_ERROR:
        raise BrainsegError(f"{runtime} differs from PyTorch by up to {parity.max_error:.2g} in a probability")
    return parity


@contextmanager
def quiet() -> Iterator[None]:
    """Exporters speak of themselves: to stdout, to the log, in warnings. Nothing in it a user can act on."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


@contextmanager
def exporting(form: str) -> Iterator[None]:
    """`quiet`; BrainsegError for whatever an exporter makes of a network's operators."""
    try:
        with quiet(), torch.no_grad():
            yield
    except OSError:
        raise
    except Exception as error:  # they share no base but this
        if hides_interrupt(error):
            raise KeyboardInterrupt from None
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise BrainsegError(f"this network has no {form} form: {reason}") from None


def _forget_shapes(program: torch.export.ExportedProgram) -> None:
    """Empty a cache of tracing's that holds what holds it, out of the collector's sight: half a megabyte a network."""
    mode = detect_fake_mode([node.meta.get("val") for node in program.graph.nodes])
    if mode is not None and mode.shape_env is not None:
        mode.shape_env.fake_tensor_cache.clear()


def _deploy(exact: Exact) -> tuple[Deployed, Tensor]:
    """The module that exports are made of, and an input to trace it with: a batch of 2."""
    network, size = exact.network, exact.network.preprocess.size
    probes = torch.from_numpy(make_probes(size, network.in_channels)[:2])
    folded = fold(network.model, (network.in_channels, size, size))
    return Deployed(folded, network.preprocess).eval(), probes
