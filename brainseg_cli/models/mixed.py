"""Products in bf16 on a CPU: all of an OpenVINO network's, or those of its inner maps alone. No torch here.

What is multiplied is rounded, weights and pixels, and a convolution's result may be; its sums, and all that is
computed between convolutions, stay fp32. The inner maps of a U-Net have most of the products and few of the pixels:
they see where a lesion is, and the outer ones draw its edge.
"""

import importlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

INNER = 8
"""Times smaller than the image, or more: the maps that are computed in bf16 in mixed precision."""
MIXED = f"mixed_error_{INNER}"
"""Key of an exported file's metadata: how far a probability is from fp32 in mixed precision, on made-up slices."""
CONVOLUTIONS = ("Convolution", "GroupConvolution", "ConvolutionBackpropData")


def mix_precision(model: Any, largest: int | None) -> int:
    """Change an `openvino.Model` of fp32, its shapes static: how many operations multiply in bf16 then.

    They are the convolutions on maps of no more than `largest` pixels a side; where it is None all of them, and the
    matrix products. Maps of a single pixel, means of whole ones, stay fp32, and so do depthwise convolutions, which
    wait for memory and not for products.
    """
    openvino, passes = importlib.import_module("openvino"), importlib.import_module("openvino.passes")
    opset, folding = openvino.opset13, passes.Manager()
    folding.register_pass(passes.ConstantFolding())  # weights of groups come as reshaped constants
    folding.run_passes(model)
    chosen = [op for op in model.get_ordered_ops() if _is_inner(op, largest)]
    for op in chosen:
        readers = op.output(0).get_target_inputs()
        for factor in op.inputs()[:2]:
            source = factor.get_source_output()
            if source.get_node().get_type_name() == "Constant":
                source = opset.constant(round_to_bf16(source.get_node().get_data())).output(0)
            factor.replace_source_output(opset.convert(source, "bf16").output(0))
        op.validate_and_infer_types()
        exact = opset.convert(op.output(0), "f32")
        for reader in readers:
            reader.replace_source_output(exact.output(0))
    model.validate_nodes_and_infer_types()
    return len(chosen)


def round_to_bf16(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Each finite number's nearest that bf16 has, ties to even: OpenVINO 2026.4 cuts off where it makes a constant."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    nearest = (bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000
    rounded: npt.NDArray[np.float32] = nearest.astype(np.uint32).view(np.float32)
    return rounded


def read_mixed_error(metadata: Mapping[str, str]) -> float:
    """Of a file's metadata; infinite where it does not say."""
    try:
        error = float(metadata[MIXED])
    except (KeyError, ValueError):
        return float("inf")
    return error if error >= 0 else float("inf")


def _is_inner(op: Any, largest: int | None) -> bool:
    kind = op.get_type_name()
    if kind not in CONVOLUTIONS:
        return largest is None and kind == "MatMul"
    if kind == "GroupConvolution" and op.input(1).get_shape()[2] == 1:  # (groups, outputs, inputs of one, ...)
        return False
    side = max(op.output(0).shape[2:])
    return side > 1 and (largest is None or side <= largest)
