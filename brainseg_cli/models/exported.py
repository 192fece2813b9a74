"""An exported network run on the CPU by OpenVINO or ONNX Runtime, slice by slice in parallel lanes. No torch here.

Each slice is a batch of its own in one lane: on a CPU that is as fast as larger batches or faster, and makes what a
slice gives independent, to the last bit, of what else is in its batch.
"""

import functools
import importlib
import os
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from brainseg_cli.errors import BrainsegError, InputError, UsageError
from brainseg_cli.models.locate import BundleInfo
from brainseg_cli.models.mixed import INNER, mix_precision
from brainseg_cli.models.segmenter import BATCH_SIZE, Pending, Squares

INPUT, OUTPUT = "pixels", "probabilities"
"""uint8 (N, size, size, C) and float32 (N, size, size)."""

MODULES = {"openvino": "openvino", "onnx": "onnxruntime"}
"""Which module each runtime is, the faster one first."""

_BEGINNING, _BEGUN = threading.Lock(), threading.Event()
"""OpenVINO's first inference in a process is one thread's alone: what its Python side sets up in it, two at once wait
for each other to do, for ever (it holds C++'s guard of a static and asks for the interpreter's lock, and the reverse).
"""

Infer: TypeAlias = Callable[[npt.NDArray[np.uint8]], Squares]


class ExportedNetwork:
    """As `Network`. `infer` takes one slice (1, size, size, C) and may be called by `lanes` threads at a time."""

    def __init__(self, infer: Infer, lanes: int, info: BundleInfo, described: str) -> None:
        self.preprocess, self.in_channels = info.preprocess, len(info.channel_names)
        self.described, self.batch_size = described, BATCH_SIZE
        self._infer, self._pool = infer, ThreadPoolExecutor(lanes)
        self._cancelled = 0

    def submit(self, pixels: npt.NDArray[np.uint8]) -> Pending:
        """As `Network.submit`."""
        before = self._cancelled

        def infer(at: int) -> Squares:
            if self._cancelled != before:
                raise CancelledError
            return self._infer(pixels[at : at + 1])

        slices = [self._pool.submit(infer, at) for at in range(len(pixels))]
        return lambda: np.concatenate([each.result() for each in slices])

    def cancel(self) -> None:
        """As `Network.cancel`."""
        self._cancelled += 1


def open_exported(
    path: Path, parts: Sequence[bytes], info: BundleInfo, runtime: str, precision: str
) -> ExportedNetwork:
    """Load an ONNX file (OpenVINO: its own .xml too) with the input and output that `models.export` gives it.

    `parts` are its bytes, an .xml's weights the second; `path` is what it is called. InputError where it cannot be
    loaded; UsageError as `check_precision`, and where there is nothing in it to mix.
    """
    check_precision(runtime, precision)
    size, channels = info.preprocess.size, len(info.channel_names)
    open_as = _open_openvino if runtime == "openvino" else _open_onnx
    infer, lanes = open_as(path, parts, (1, size, size, channels), precision)
    return ExportedNetwork(infer, lanes, info, f"{runtime} {precision} cpu")


def check_precision(runtime: str, precision: str) -> None:
    """UsageError for a precision that the runtime or this CPU does not have. `int8` is a file's own."""
    if precision not in ("fp32", "int8", *(("mixed", "bf16") if runtime == "openvino" else ())):
        hint = "--runtime openvino, or --precision fp32" if precision in ("mixed", "bf16") else "--precision auto"
        raise UsageError(f"--runtime {runtime} does not compute in {precision}", hint=hint)
    if precision in ("mixed", "bf16") and not computes_bf16():
        raise UsageError(f"--precision {precision}: this CPU does not compute in bf16", hint="--precision fp32")


def computes_bf16() -> bool:
    """Whether OpenVINO takes bf16 on this CPU."""
    return "BF16" in _list_capabilities()


def multiplies_bf16() -> bool:
    """Whether that is faster: a CPU that has it without AVX-512 converts bf16 and multiplies fp32."""
    return {"BF16", "WINOGRAD"} <= _list_capabilities()  # WINOGRAD is what OpenVINO calls AVX-512


def _list_capabilities() -> set[str]:
    return set(load_openvino().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))


def import_runtime(runtime: str) -> Any:
    """The module `openvino` or `onnxruntime`.

    OpenVINO's converter, which when it is imported reports to its maker over the network, is left out.
    """
    if runtime != "openvino" or "openvino" in sys.modules:
        return importlib.import_module(MODULES[runtime])
    sys.modules["openvino.tools"] = None  # type: ignore[assignment]  # to import it is then an ImportError
    try:
        return importlib.import_module("openvino")
    finally:
        del sys.modules["openvino.tools"]


@functools.cache
def load_openvino() -> Any:
    """OpenVINO's one Core of this process, never freed: each brings a stack for signals, and one that is freed after
    another leaves the process with a stack that is gone, so that the next signal ends it."""
    return import_runtime("openvino").Core()


def _open_openvino(path: Path, parts: Sequence[bytes], shape: tuple[int, ...], precision: str) -> tuple[Infer, int]:
    core = load_openvino()
    hints = {
        "PERFORMANCE_HINT": "THROUGHPUT",
        "INFERENCE_PRECISION_HINT": "f32",
        "ENABLE_CPU_PINNING": False,  # readers and writers need the cores too
    }
    try:
        model = core.read_model(*parts)
        model.reshape(list(shape))
    except RuntimeError as error:
        raise _unloadable(path, "OpenVINO", error) from None
    try:
        if precision == "bf16":
            mix_precision(model, None)
        elif precision == "mixed" and not mix_precision(model, shape[1] // INNER):
            raise UsageError("--precision mixed: this network has no maps small enough", hint="--precision fp32")
        compiled = core.compile_model(model, "CPU", hints)
    except (RuntimeError, TypeError, AttributeError, ValueError) as error:  # another OpenVINO may have another Python
        unloadable = _unloadable(path, "OpenVINO", error)
        if precision in ("fp32", "int8"):
            raise unloadable from None
        raise BrainsegError(f"OpenVINO cannot run it in {precision}: {unloadable.what}") from None
    own = threading.local()

    def run(pixels: npt.NDArray[np.uint8]) -> Squares:
        if not hasattr(own, "request"):
            own.request = compiled.create_infer_request()
        own.request.infer({0: pixels}, share_inputs=True)
        found: Squares = own.request.get_output_tensor(0).data.copy()
        return found

    def infer(pixels: npt.NDArray[np.uint8]) -> Squares:
        if not _BEGUN.is_set():
            with _BEGINNING:
                if not _BEGUN.is_set():
                    found = run(pixels)
                    _BEGUN.set()
                    return found
        return run(pixels)

    return infer, int(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))


def _open_onnx(path: Path, parts: Sequence[bytes], shape: tuple[int, ...], _: str) -> tuple[Infer, int]:
    onnxruntime = import_runtime("onnx")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # the lanes are what is parallel
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(parts[0], options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions share no base but this
        raise _unloadable(path, "ONNX Runtime", error) from None

    def infer(pixels: npt.NDArray[np.uint8]) -> Squares:
        found: Squares = session.run([OUTPUT], {INPUT: pixels})[0]
        return found

    return infer, count_cores()


def count_cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _unloadable(path: Path, runtime: str, error: Exception) -> BrainsegError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
    return InputError(f"cannot be loaded by {runtime}: {reason}", where=path)
