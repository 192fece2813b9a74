"""A U-Net rearranged so that a CPU has less to do for the same sums.

The decoder's enlarging is folded into the convolution after it: nearest-neighbour enlarging repeats each pixel of a
small map in a square of 2x2, and a convolution of 3x3 over that multiplies 9 times where 4 summed weights do. It is a
ninth of all products of a ResNet-34 U-Net, and the large map is never written.

The last convolution, which has one channel where a CPU's registers hold 16, makes a square of 4x4 pixels at a time.

Both are ideas of sub-pixel convolution (Shi et al. 2016, CVPR).
"""

import copy
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

PLAIN = (3, 3), (1, 1), (1, 1), (1, 1), 1
"""A convolution of 3x3 that keeps the map's size: kernel, stride, padding, dilation, groups."""
TILE = 4
"""Pixels a side that the last convolution makes at a time: it divides every size that a U-Net of three stages takes."""


def fold(model: nn.Module) -> nn.Module:
    """A U-Net of `build_model` as another, in eval mode, that gives the same but for rounding; it is left alone itself.

    What has another form than `build_model` gives (another enlarging or norm, attention, more classes) stays as it is.
    """
    folded: Any = copy.deepcopy(model).eval()
    blocks, channels = folded.decoder.blocks, folded.encoder.out_channels[-1]
    for at, block in enumerate(blocks):
        if _is_plain(block):
            blocks[at] = _FoldedBlock(block, channels)
        channels = block.conv2[0].out_channels
    last = folded.segmentation_head[0]
    if last.out_channels == 1 and _shape(last) == PLAIN:
        folded.segmentation_head[0] = _tile(last)
    return cast(nn.Module, folded)


class _FoldedBlock(nn.Module):
    """As smp's UnetDecoderBlock: `channels` of its input are the small map's, the others the encoder's."""

    def __init__(self, block: Any, channels: int) -> None:
        super().__init__()
        fused = fuse_conv_bn_eval(block.conv1[0], block.conv1[1])
        weight = fused.weight.detach()
        self.enlarge = nn.ConvTranspose2d(channels, fused.out_channels, 4, stride=2, padding=1)
        self.enlarge.weight = nn.Parameter(_sum_weights(weight[:, :channels]))
        self.enlarge.bias = fused.bias
        self.skip: nn.Conv2d | None = None
        if channels < fused.in_channels:
            self.skip = nn.Conv2d(fused.in_channels - channels, fused.out_channels, 3, padding=1, bias=False)
            self.skip.weight = nn.Parameter(weight[:, channels:].clone())
        self.conv2 = block.conv2

    def forward(self, small: Tensor, height: int, width: int, skip_connection: Tensor | None = None) -> Tensor:
        """ValueError where the small map is not half of height and width."""
        if (height, width) != (2 * small.shape[2], 2 * small.shape[3]):
            raise ValueError(f"a map of {small.shape[2]}x{small.shape[3]} is enlarged to {height}x{width}")
        found = self.enlarge(small)
        if self.skip is not None:
            found = found + self.skip(skip_connection)
        done: Tensor = self.conv2(found.relu())
        return done


def _shape(convolution: nn.Conv2d) -> tuple[object, ...]:
    return convolution.kernel_size, convolution.stride, convolution.padding, convolution.dilation, convolution.groups


def _tile(last: nn.Conv2d) -> nn.Sequential:
    """A convolution of 3x3 to one channel as one with stride TILE, to a channel for each pixel of a tile."""
    tiled = nn.Conv2d(last.in_channels, TILE**2, TILE + 2, stride=TILE, padding=1)
    weight = torch.zeros_like(tiled.weight)
    for row in range(TILE):
        for column in range(TILE):
            weight[row * TILE + column, :, row : row + 3, column : column + 3] = last.weight.detach()[0]
    tiled.weight = nn.Parameter(weight)
    bias = torch.zeros(1) if last.bias is None else last.bias.detach()
    tiled.bias = nn.Parameter(bias.repeat(TILE**2))
    return nn.Sequential(tiled, nn.PixelShuffle(TILE))


def _is_plain(block: Any) -> bool:
    convolution, norm, activation = block.conv1
    return (
        block.interpolation_mode == "nearest"
        and isinstance(norm, nn.BatchNorm2d)
        and isinstance(activation, nn.ReLU)
        and _shape(convolution) == PLAIN
        and all(isinstance(each.attention, nn.Identity) for each in (block.attention1, block.attention2))
    )


def _sum_weights(weight: Tensor) -> Tensor:
    """(O, I, 3, 3) of a convolution after enlarging -> (I, O, 4, 4) of a transposed one, stride 2, on the small map.

    Seen from the small map's pixel, which stands for two rows and columns, weight u reaches the enlarged rows 2 - u
    and 3 - u of the four that it has a part in.
    """
    summed = torch.zeros(weight.shape[1], weight.shape[0], 4, 4, dtype=torch.float64)
    turned = weight.double().flip(2, 3).transpose(0, 1)
    for row in (0, 1):
        for column in (0, 1):
            summed[:, :, row : row + 3, column : column + 3] += turned
    return summed.to(weight.dtype)
