"""The convolutional part of the hybrid Vision Transformer: a ResNet-50 without its last stage, and its maps by size."""
# B batch, C channels, h w height and width of a map, S side of the image

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class StandardisedConv(nn.Conv2d):
    """A convolution whose filters have mean 0 and variance 1 (Qiao et al. 2019, arXiv 1903.10520), without a bias.

    Of each filter its mean is taken off, and it is divided by sqrt(v + 1e-5), v the biased variance.
    """

    def __init__(self, inputs: int, outputs: int, size: int, stride: int = 1) -> None:
        super().__init__(inputs, outputs, size, stride=stride, padding=size // 2, bias=False)

    def forward(self, x_BChw: Tensor) -> Tensor:
        """The map, (B, outputs, h / stride, w / stride), sides rounded up."""
        variance, mean = torch.var_mean(self.weight, dim=(1, 2, 3), keepdim=True, unbiased=False)
        weight = (self.weight - mean) / torch.sqrt(variance + 1e-5)
        return F.conv2d(x_BChw, weight, stride=self.stride, padding=self.padding[0])


class ChannelNorm(nn.GroupNorm):
    """Group norm of a channel a group. Of a map of one place it gives the biases, in a batch of one as in any other.

    PyTorch refuses the former, in evaluation too, though rows do not meet in a group norm.
    """

    def forward(self, x_BChw: Tensor) -> Tensor:
        """The normalised map."""
        return torch.group_norm(x_BChw, self.num_groups, self.weight, self.bias, self.eps)


class Unit(nn.Module):
    """ReLU(x + f(x)): f is 1x1, 3x3 (which strides) and 1x1 convolutions with group norms of 32 groups between.

    Called pre-activation in the official code, and activated after all. A shortcut that changes channels or size is a
    1x1 convolution, normalised channel by channel.
    """

    def __init__(self, inputs: int, middle: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = StandardisedConv(inputs, middle, 1)
        self.norm1 = nn.GroupNorm(32, middle, eps=1e-6)
        self.conv2 = StandardisedConv(middle, middle, 3, stride)
        self.norm2 = nn.GroupNorm(32, middle, eps=1e-6)
        self.conv3 = StandardisedConv(middle, outputs, 1)
        self.norm3 = nn.GroupNorm(32, outputs, eps=1e-6)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            conv = StandardisedConv(inputs, outputs, 1, stride)
            self.shortcut = nn.Sequential(conv, ChannelNorm(outputs, outputs))

    def forward(self, x_BChw: Tensor) -> Tensor:
        """The map, (B, outputs, h / stride, w / stride)."""
        y_BChw = F.relu(self.norm1(self.conv1(x_BChw)))
        y_BChw = F.relu(self.norm2(self.conv2(y_BChw)))
        return F.relu(self.shortcut(x_BChw) + self.norm3(self.conv3(y_BChw)))


class Stem(nn.Module):
    """Image (B, C, S, S) -> its map at S/16 with 16 `width` channels, and maps at S/8, S/4 and S/2 for skips.

    ResNet-v2-50 of BiT without the last stage (Kolesnikov et al. 2020, arXiv 1912.11370) has width 64 and (3, 4, 9)
    units. Its pooling is not padded, so the first block's maps are one pixel short; the skip gets zeros there. Sides
    are multiples of 16. Raises ValueError for a width that 32 groups don't divide.
    """

    def __init__(self, *, inputs: int, width: int, units: Sequence[int]) -> None:
        super().__init__()
        if width % 32:
            raise ValueError(
                f"stem_width: {width} channels; use {(width // 32 + 1) * 32}, which 32 divides, for 32 groups"
            )
        if len(units) != 3 or min(units) < 1:
            raise ValueError(f"units: {list(units)}; give three numbers, each 1 or more")
        self.root = nn.Sequential(
            StandardisedConv(inputs, width, 7, 2), nn.GroupNorm(32, width, eps=1e-6), nn.ReLU(inplace=True)
        )
        blocks, before = [], width
        for i, number in enumerate(units):
            middle = width * 2**i
            strides = [1 if i == 0 else 2] + [1] * (number - 1)
            blocks.append(
                nn.Sequential(
                    *(Unit(before if j == 0 else 4 * middle, middle, 4 * middle, s) for j, s in enumerate(strides))
                )
            )
            before = 4 * middle
        self.blocks = nn.ModuleList(blocks)

    def forward(self, image_BCSS: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The last map, and the others, coarsest first: (8w, S/8), (4w, S/4), (w, S/2)."""
        height, width = image_BCSS.shape[2:]
        x_BChw = self.root(image_BCSS)
        skips = [x_BChw]
        x_BChw = F.max_pool2d(x_BChw, 3, stride=2)
        for block, scale in zip(self.blocks[:2], (4, 8), strict=True):
            x_BChw = block(x_BChw)
            short = (0, width // scale - x_BChw.shape[3], 0, height // scale - x_BChw.shape[2])
            skips.append(F.pad(x_BChw, short))
        return self.blocks[2](x_BChw), skips[::-1]
