"""EfficientNet-Lite0 as a backbone: convolutions, batch norms and ReLU6, without squeeze and excitation."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

FEATURES = 1280
"""Features that come out."""

_BLOCKS = (
    # kernel, stride of the first, expansion, channels out, repeats
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)


class SameConv2d(nn.Conv2d):
    """A convolution under TensorFlow's "same" padding: ceil(side / stride) places on each side.

    At stride 2 the padding depends on the side; where it is odd in sum, the pixel more is right and below.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, *, groups: int = 1, bias: bool = False
    ) -> None:
        padding = kernel // 2 if stride == 1 else 0
        super().__init__(inputs, outputs, kernel, stride, padding, groups=groups, bias=bias)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the base class's name
        """Convolve a batch of shape (N, inputs, H, W)."""
        if self.stride[0] == 2:
            # Even sides want kernel - 2 pixels in all, odd ones kernel - 1.
            down, across = (self.kernel_size[0] - 2 + side % 2 for side in input.shape[2:])
            sides = (across // 2, across - across // 2, down // 2, down - down // 2)
            input = functional.pad(input, sides)  # noqa: A001
        return super().forward(input)


class _ConvNorm(nn.Module):
    """A convolution and its batch norm, then ReLU6 unless it is the last of a block."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, *, groups: int = 1, act: bool = True
    ) -> None:
        super().__init__()
        self.conv = SameConv2d(inputs, outputs, kernel, stride, groups=groups)
        self.norm = nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.01)
        self.act = nn.ReLU6(inplace=True) if act else nn.Identity()

    def forward(self, maps: Tensor) -> Tensor:
        out: Tensor = self.act(self.norm(self.conv(maps)))
        return out


class _Block(nn.Module):
    """Expansion, depthwise convolution and projection, added to what came in where the shapes agree."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inputs * expansion
        self.expand = _ConvNorm(inputs, wide, 1) if expansion > 1 else nn.Identity()
        self.depthwise = _ConvNorm(wide, wide, kernel, stride, groups=wide)
        self.project = _ConvNorm(wide, outputs, 1, act=False)
        self.skip = stride == 1 and inputs == outputs

    def forward(self, maps: Tensor) -> Tensor:
        out: Tensor = self.project(self.depthwise(self.expand(maps)))
        return maps + out if self.skip else out


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0 up to its pooled features; 3.4 million weights.

    Its makers trained it on 224 × 224 pixels, RGB as (x - 127) / 128; any side works.

    Args:
        channels: Of the input. Those after the third have no effect until they are trained: their weights
            start at zero.

    Source:
        Tan and Le 2019, "EfficientNet"; Liu 2020, "Higher accuracy on vision models with EfficientNet-Lite".
    """

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.stem = _ConvNorm(channels, 32, 3, 2)
        with torch.no_grad():
            self.stem.conv.weight[:, 3:] = 0
        blocks: list[_Block] = []
        width = 32
        for kernel, stride, expansion, outputs, repeats in _BLOCKS:
            for repeat in range(repeats):
                blocks.append(_Block(width, outputs, kernel, stride if repeat == 0 else 1, expansion))
                width = outputs
        self.blocks = nn.Sequential(*blocks)
        self.head = _ConvNorm(width, FEATURES, 1)

    def forward(self, pixels: Tensor) -> Tensor:
        """Pooled features, shape (N, 1280), of normalised pixels, shape (N, channels, H, W), float."""
        maps: Tensor = self.head(self.blocks(self.stem(pixels)))
        return maps.mean((2, 3))
