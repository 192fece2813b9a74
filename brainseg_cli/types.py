"""Shapes and choices as named aliases. The arrays' are those of `brainseg_cli.arrays`, loaded when one is asked for."""

from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

if TYPE_CHECKING:
    from brainseg_cli.arrays import Image as Image
    from brainseg_cli.arrays import Mask as Mask
    from brainseg_cli.arrays import Probs as Probs
else:

    def __getattr__(name: str) -> object:
        """Image, Mask and Probs: who only asks for help does not wait for NumPy."""
        if name not in ("Image", "Mask", "Probs"):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from brainseg_cli import arrays

        return getattr(arrays, name)


Json = dict[str, Any]

Layout = Literal["auto", "lgg", "folders"]
SplitName = Literal["train", "val", "test"]
MaskFormat = Literal["png", "tiff"]
ProbsFormat = Literal["png", "npy"]
FigureFormat = Literal["png", "svg", "pdf"]
Style = Literal["contour", "fill", "errors"]
Tta = Literal["none", "flips", "d4"]
Precision = Literal["fp32", "bf16", "fp16"]
PredictPrecision = Literal["auto", "fp32", "mixed", "bf16", "fp16"]
Runtime = Literal["auto", "torch", "onnx", "openvino"]
ExportFormat = Literal["onnx", "openvino", "torchscript", "torch"]


class ZipBounds(NamedTuple):
    """What an archive may hold: entries of any kind, bytes of its images once unpacked, and how many times its own."""

    entries: int = 250_000
    unpacked_bytes: int = 64_000_000_000
    ratio: float = 100.0


class Progress(Protocol):
    """How a use-case tells how far it is. The command line draws it; tests pass nothing."""

    def __call__(self, done: int, total: int, what: str) -> None: ...


def no_progress(done: int, total: int, what: str) -> None:
    """Say nothing."""
