"""Mixed precision on a CPU: an OpenVINO network whose innermost convolutions multiply in bf16.

Of a U-Net they are where the most products are and the fewest pixels: they see where a lesion is, and its edge is
drawn by the others, which stay fp32, as all sums and what is passed on do. No torch here.
"""

import importlib
from typing import Any

INNERMOST = 16
"""Times smaller than the image, or more: the maps that are computed in bf16."""
CONVOLUTIONS = ("Convolution", "ConvolutionBackpropData")


def mix_precision(model: Any, size: int) -> int:
    """Change an `openvino.Model` of fp32 for images of size x size, its shapes static: how many convolutions it was."""
    convert = importlib.import_module("openvino.opset13").convert
    found = [op for op in model.get_ordered_ops() if op.get_type_name() in CONVOLUTIONS]
    inner = [op for op in found if 1 < max(op.output(0).shape[2:]) <= size // INNERMOST]  # 1: of a whole map's mean
    for op in inner:
        readers = op.output(0).get_target_inputs()
        for value in op.inputs():
            value.replace_source_output(convert(value.get_source_output(), "bf16").output(0))
        op.validate_and_infer_types()
        exact = convert(op.output(0), "f32")
        for reader in readers:
            reader.replace_source_output(exact.output(0))
    model.validate_nodes_and_infer_types()
    return len(inner)
