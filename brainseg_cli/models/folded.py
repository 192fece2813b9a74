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
"""Pixels a side that the last convolution makes at a time."""


def fold(model: nn.Module, shape: tuple[int, int, int]) -> nn.Module:
    """A U-Net of `build_model` as another, in eval mode, that gives the same but for rounding for images of `shape`.

    `shape` is (channels, height, width). `model` is left alone. What has another form than `build_model` gives
    (another enlarging or norm, attention, more classes), and a map that is not doubled evenly, stays as it is.
    """
    folded: Any = copy.deepcopy(model).eval()
    with torch.no_grad():
        maps = folded.encoder(torch.zeros(1, *shape, device=next(model.parameters()).device))[::-1]
    sides = [tuple(each.shape[2:]) for each in maps]
    channels = maps[0].shape[1]
    for at, block in enumerate(folded.decoder.blocks):
        if _is_plain(block) and sides[at + 1] == (2 * sides[at][0], 2 * sides[at][1]):
            folded.decoder.blocks[at] = _FoldedBlock(block, channels)
        channels = block.conv2[0].out_channels
    last = folded.segmentation_head[0]
    if last.out_channels == 1 and _shape(last) == PLAIN and not any(side % TILE for side in shape[1:]):
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
        """`small` is (N, C, height / 2, width / 2)."""
        found = self.enlarge(small)
        if self.skip is not None:
            found = found + self.skip(skip_connection)
        done: Tensor = self.conv2(found.relu())
        return done


def _shape(convolution: nn.Conv2d) -> tuple[object, ...]:
    return convolution.kernel_size, convolution.stride, convolution.padding, convolution.dilation, convolution.groups


def _is_plain(block: Any) -> bool:
    convolution, norm, activation = block.conv1
    return (
        block.interpolation_mode == "nearest"
        and isinstance(norm, nn.BatchNorm2d)
        and norm.running_mean is not None
        and isinstance(activation, nn.ReLU)
        and _shape(convolution) == PLAIN
        and all(isinstance(each.attention, nn.Identity) for each in (block.attention1, block.attention2))
    )


def _sum_weights(weight: Tensor) -> Tensor:
    """(O, I, 3, 3) of a convolution after enlarging -> (I, O, 4, 4) of a transposed one, stride 2, on the small map.

    Seen from the small map's pixel, which stands for two rows and columns, weight u reaches the enlarged rows 2 - u
    and 3 - u of the four that it has a part in.
    """
    summed = torch.zeros(weight.shape[1], weight.shape[0], 4, 4, dtype=torch.float64, device=weight.device)
    turned = weight.double().flip(2, 3).transpose(0, 1)
    for row in (0, 1):
        for column in (0, 1):
            summed[:, :, row : row + 3, column : column + 3] += turned
    return summed.to(weight.dtype)


def _tile(last: nn.Conv2d) -> nn.Sequential:
    """A convolution of 3x3 to one channel as one with stride TILE, to a channel for each pixel of a tile."""
    tiled = nn.Conv2d(last.in_channels, TILE**2, TILE + 2, stride=TILE, padding=1)
    weight = last.weight.new_zeros(tiled.weight.shape)
    for row in range(TILE):
        for column in range(TILE):
            weight[row * TILE + column, :, row : row + 3, column : column + 3] = last.weight.detach()[0]
    tiled.weight = nn.Parameter(weight)
    bias = last.weight.new_zeros(1) if last.bias is None else last.bias.detach()
    tiled.bias = nn.Parameter(bias.repeat(TILE**2))
    return nn.Sequential(tiled, nn.PixelShuffle(TILE))
