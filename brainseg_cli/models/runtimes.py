"""What runs a trained network: PyTorch on a GPU; on a CPU an export of it, made once and kept beside the bundle.

No torch here, nor in what it opens from an export: segmenting a slice on a CPU need not wait for PyTorch to load.
"""

import ctypes
import importlib.util
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, get_args

import numpy as np

from brainseg_cli.errors import BrainsegError, InputError, UsageError, hides_interrupt
from brainseg_cli.io.images import read_bytes
from brainseg_cli.models.exported import MODULES, check_precision, multiplies_bf16, open_exported
from brainseg_cli.models.locate import Bundle, BundleInfo
from brainseg_cli.models.metadata import OPENVINO, PRECISION, is_export, is_sealed, read_properties
from brainseg_cli.models.mixed import read_mixed_error
from brainseg_cli.models.segmenter import Network
from brainseg_cli.types import PredictPrecision, Runtime

Tell: TypeAlias = Callable[[str], None]
MAKERS = ("onnx", "onnxscript")
"""The modules that an export is made with."""
HALF_ERROR = 2e-2
"""Of a probability: how far fp16, or mixed precision, may be from fp32 and still be chosen for its speed."""


def tell_nobody(text: str) -> None:
    """Say nothing."""


@dataclass(frozen=True)
class Choice:
    """What a user may ask for. `auto` on a GPU is PyTorch in fp16; on a CPU OpenVINO, in mixed precision where the CPU
    multiplies bf16, else in fp32; else ONNX Runtime, else PyTorch, whichever is installed; and fp32, by PyTorch if need
    be, wherever the faster one does not agree with it. UsageError for a runtime or a precision that does not exist."""

    runtime: Runtime = "auto"
    device: str = "auto"
    precision: PredictPrecision = "auto"

    def __post_init__(self) -> None:
        for name, given, known in (("runtime", self.runtime, Runtime), ("precision", self.precision, PredictPrecision)):
            if given not in get_args(known):
                raise UsageError(f"there is no {name} {given!r}", hint=f"one of {', '.join(get_args(known))}")


def open_network(bundle: Bundle, choice: Choice, *, tell: Tell = tell_nobody) -> Network:
    """The network of a model/ folder or of an exported file, ready to run as `choice` says.

    Of a folder an export is made where there is none, in about ten seconds, and kept in its cache/, or where that
    cannot be written in the user's cache. UsageError for what cannot be combined or is not installed; InputError for
    a bundle or a file that cannot be loaded; BrainsegError where a runtime that was asked for by name cannot run this
    network or does not agree with PyTorch.
    """
    if is_export(bundle.path):
        return _open_file(bundle, choice)
    runtime = _choose_runtime(choice)
    if runtime == "torch":
        return _open_torch(bundle, choice)
    if choice.precision != "auto":
        check_precision(runtime, choice.precision)
    try:
        return _open_export(bundle, runtime, choice.precision, tell)
    except (InputError, UsageError):
        raise  # of the bundle itself, which PyTorch would not load either, or of what was asked for
    except BrainsegError as error:
        if choice.runtime != "auto" or choice.precision == "mixed":
            raise
        tell(f"{runtime} cannot be used: {error}; PyTorch runs the model instead, as with --runtime torch at once")
        return _open_torch(bundle, choice)


def list_missing(*modules: str) -> list[str]:
    """Those that are not installed."""
    return [name for name in modules if importlib.util.find_spec(name) is None]


def require(asked: str, *modules: str) -> None:
    """UsageError where what was `asked` for needs a module that is not installed."""
    if missing := list_missing(*modules):
        raise UsageError(f"{asked} needs {', '.join(missing)}", hint=f"pip install {' '.join(missing)}")


def may_have_gpu() -> bool:
    """Whether it is worth asking PyTorch for a GPU, which takes seconds: there is a driver with a device, or a Mac."""
    if sys.platform == "darwin":
        return True
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    count = ctypes.c_int(0)
    return driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0


def _choose_runtime(choice: Choice) -> Runtime:
    if choice.runtime == "torch" or choice.device not in ("auto", "cpu"):
        if choice.runtime not in ("auto", "torch"):
            raise UsageError(f"--runtime {choice.runtime} computes on the CPU, not on {choice.device!r}")
        return "torch"
    if choice.runtime != "auto":
        require(f"--runtime {choice.runtime}", MODULES[choice.runtime], *MAKERS)
        return choice.runtime
    by_gpu = choice.precision != "mixed" and choice.device == "auto" and may_have_gpu() and _has_gpu()
    if choice.precision == "fp16" or by_gpu:
        return "torch"
    runtimes: tuple[Runtime, ...] = ("openvino", "onnx")
    for runtime in runtimes:
        able = runtime == "openvino" or choice.precision not in ("mixed", "bf16")
        if able and not list_missing(MODULES[runtime], *MAKERS):
            return runtime
    return "torch"


def _has_gpu() -> bool:
    from brainseg_cli.models.devices import choose_device

    return choose_device("auto").type != "cpu"


def _open_torch(bundle: Bundle, choice: Choice) -> Network:
    from brainseg_cli.models.bundle import load_network
    from brainseg_cli.models.devices import choose_device
    from brainseg_cli.models.network import TorchNetwork
    from brainseg_cli.models.parity import measure_parity

    device = choose_device(choice.device)
    if choice.precision == "fp16" and device.type == "cpu":
        raise UsageError("--precision fp16 needs a GPU", hint="auto, fp32, mixed or bf16 on a CPU")
    if choice.precision == "mixed":
        raise UsageError("PyTorch does not compute in mixed precision", hint="--device cpu --runtime openvino")
    model, info = load_network(bundle), bundle.info
    channels = len(info.channel_names)
    if choice.precision != "auto":
        return TorchNetwork(model, info.preprocess, channels, device, choice.precision)
    exact = TorchNetwork(model, info.preprocess, channels, device)
    if device.type != "cuda":
        return exact
    half = TorchNetwork(model, info.preprocess, channels, device, "fp16")
    return half if measure_parity(half, exact).max_error <= HALF_ERROR else exact


def _open_export(bundle: Bundle, runtime: Runtime, asked: PredictPrecision, tell: Tell) -> Network:
    from brainseg_cli.models.cache import find_exports, name_export, write_export

    try:
        name = name_export(bundle, runtime)
        for path in find_exports(bundle.path, name):
            try:
                data = read_bytes(path)
                if is_sealed(path, [data]):
                    return _open_parts(path, [data], bundle.info, runtime, asked)
            except InputError:
                pass  # another user's; as a damaged one it is made anew
        tell(f"making a copy of {bundle.path} that this CPU runs faster: once, some ten seconds")
        made = write_export(bundle, name, runtime)
        return _open_parts(made, [read_bytes(made)], bundle.info, runtime, asked)
    except (RuntimeError, ImportError) as error:  # the runtime's, when it is loaded or first computes
        if hides_interrupt(error):
            raise KeyboardInterrupt from None
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise BrainsegError(f"{runtime} cannot run this network: {reason}") from None


def _open_file(bundle: Bundle, choice: Choice) -> Network:
    path = bundle.path
    if choice.runtime == "torch" or choice.device not in ("auto", "cpu"):
        asked = "--runtime torch" if choice.runtime == "torch" else f"--device {choice.device}"
        raise UsageError(f"an exported file runs on the CPU without PyTorch, not with {asked}", where=path)
    able = ["openvino"] if path.suffix.lower() == OPENVINO else list(MODULES)
    if choice.runtime not in ("auto", *able):
        raise UsageError(f"--runtime {choice.runtime} does not read {OPENVINO} files", where=path)
    there = [runtime for runtime in able if not list_missing(MODULES[runtime])]
    runtime = choice.runtime if choice.runtime != "auto" else next(iter(there), able[-1])
    require(f"--runtime {runtime}", MODULES[runtime])
    parts = [bundle.read(name) for name in bundle.sums]
    return _open_parts(path, parts, bundle.info, runtime, choice.precision)


def _open_parts(path: Path, parts: Sequence[bytes], info: BundleInfo, runtime: str, asked: PredictPrecision) -> Network:
    """As `open_exported`, in the precision that was asked for. UsageError where an int8 file was asked for another."""
    told = read_properties(path, parts[0])
    own = told.get(PRECISION, "fp32")
    if own == "int8" and asked != "auto":
        raise UsageError(f"this file computes in int8, not in {asked}", where=path, hint="--precision auto")
    agrees = own == "fp32" and read_mixed_error(told) <= HALF_ERROR
    if asked == "auto" and runtime == "openvino" and agrees and multiplies_bf16():
        with suppress(BrainsegError):  # it cannot be loaded so, or there is nothing in it to mix
            mixed = open_exported(path, parts, info, runtime, "mixed")
            if _computes(mixed):
                return mixed
    return open_exported(path, parts, info, runtime, own if asked == "auto" else asked)


def _computes(network: Network) -> bool:
    """Whether it gives numbers for a slice: what was compiled may still not run."""
    ramp = np.linspace(0, 255, network.preprocess.size).astype(np.uint8)
    pixels = np.ascontiguousarray(np.broadcast_to(ramp[:, None], (1, len(ramp), len(ramp), network.in_channels)))
    try:
        return bool(np.isfinite(network.submit(pixels)()).all())
    except RuntimeError as error:
        if hides_interrupt(error):
            raise KeyboardInterrupt from None
        return False
