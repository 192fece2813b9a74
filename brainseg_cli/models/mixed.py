"""Products in bf16 on a CPU: all of an OpenVINO network's, or those of its inner maps alone. No torch here.

Only what is multiplied is rounded, weights and pixels; sums, and what is passed on, stay fp32. The inner maps of a
U-Net have most of the products and few of the pixels: they see where a lesion is, and the outer ones draw its edge.
"""

import importlib
from typing import Any

import numpy as np
import numpy.typing as npt

INNER = 8
"""Times smaller than the image, or more: the maps that are computed in bf16 in mixed precision."""
CONVOLUTIONS = ("Convolution", "ConvolutionBackpropData")


def mix_precision(model: Any, largest: int | None) -> int:
    """Change an `openvino.Model` of fp32, its shapes static: how many operations multiply in bf16 then.

    They are the convolutions on maps of no more than `largest` pixels a side; where it is None all of them, and the
    matrix products. Maps of a single pixel, means of whole ones, stay fp32.
    """
    openvino = importlib.import_module("openvino")
    opset, bf16, fp32 = openvino.opset13, openvino.Type.bf16, openvino.Type.f32
    chosen = [op for op in model.get_ordered_ops() if _is_inner(op, largest)]
    for op in chosen:
        readers = op.output(0).get_target_inputs()
        for value in op.inputs():
            source = value.get_source_output().get_node()
            if source.get_type_name() == "Constant":
                rounded = opset.constant(round_to_bf16(source.get_data()), dtype=bf16)
            else:
                rounded = opset.convert(value.get_source_output(), bf16)
            value.replace_source_output(rounded.output(0))
        op.validate_and_infer_types()
        exact = opset.convert(op.output(0), fp32)
        for reader in readers:
            reader.replace_source_output(exact.output(0))
    model.validate_nodes_and_infer_types()
    return len(chosen)


def round_to_bf16(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Each finite number's nearest that bf16 has, ties to even: OpenVINO 2026.4 cuts off where it makes a constant."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded: npt.NDArray[np.float32] = (
        ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)
    )
    return rounded


def _is_inner(op: Any, largest: int | None) -> bool:
    if op.get_type_name() not in CONVOLUTIONS:
        return largest is None and op.get_type_name() == "MatMul"
    side = max(op.output(0).shape[2:])
    return side > 1 and (largest is None or side <= largest)
