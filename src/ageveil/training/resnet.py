"""dlib's face recogniser as a PyTorch module: attackers start from it, and an estimator."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional

from ageveil.alignment import LEFT_EYE, RIGHT_EYE

SIDE = 150
"""Side in pixels of the chips that the network looks at."""

BLOCKS = {
    "conv32_1": 32, "conv32_2": 32, "conv32_3": 32,
    "conv64_down": 64, "conv64_1": 64, "conv64_2": 64, "conv64_3": 64,
    "conv128_down": 128, "conv128_1": 128, "conv128_2": 128,
    "conv256_down": 256, "conv256_1": 256, "conv256_2": 256, "conv256_down_out": 256,
}  # fmt: skip
"""Blocks and their channels, in order; those with "down" in their name halve the size."""


class _Block(nn.Module):
    """Two 3 × 3 convolutions beside a shortcut, each with its batch norm folded in."""

    def __init__(self, inputs: int, outputs: int, *, down: bool) -> None:
        super().__init__()
        self.down = down
        self.conv1 = nn.Conv2d(inputs, outputs, 3, 2 if down else 1, 0 if down else 1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs = self.conv2(functional.relu(self.conv1(inputs)))
        if self.down:
            inputs = functional.avg_pool2d(inputs, 2)
            # Whichever of the two is smaller ends in zeros: rows and columns, or channels.
            missing = [inputs.shape[axis] - outputs.shape[axis] for axis in (3, 2)]
            outputs = functional.pad(outputs, (0, missing[0], 0, missing[1]))
            inputs = functional.pad(inputs, (0, 0, 0, 0, 0, outputs.shape[1] - inputs.shape[1]))
        return functional.relu(inputs + outputs)


class DlibResNet(nn.Module):
    """A ResNet of 29 layers that maps a face to 128 numbers; those of one person lie close together.

    Args:
        channels: Of its input: the colours, and what stands beside them.

    Source:
        King 2017, "High quality face recognition with deep metric learning", dlib; He et al. 2016, "Deep
        residual learning for image recognition".
    """

    mean: Tensor

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, 32, 7, 2)
        widths = [32, *BLOCKS.values()]
        self.blocks = nn.ModuleDict(
            {
                name: _Block(inputs, outputs, down="down" in name)
                for name, (inputs, outputs) in zip(BLOCKS, itertools.pairwise(widths), strict=True)
            }
        )
        self.embedding = nn.Linear(256, 128, bias=False)
        mean = torch.tensor([122.782, 117.001, 104.298]).view(1, 3, 1, 1)
        self.register_buffer("mean", mean, persistent=False)

    def forward(self, chips: Tensor) -> Tensor:
        """Embeddings of chips.

        Args:
            chips: Shape (N, 3, 150, 150), RGB in [0, 255], float.

        Returns:
            Shape (N, 128); dlib calls two of them one person where they lie closer than 0.6.
        """
        embeddings: Tensor = self.embedding(self.features(chips))
        return embeddings

    def features(self, chips: Tensor) -> Tensor:
        """What `embedding` is applied to, shape (N, 256), float32 whatever the maps are kept in.

        Args:
            chips: As for `forward`.
        """
        return self.pooled(self.normalised(chips))

    def normalised(self, colours: Tensor) -> Tensor:
        """Colours in [0, 255], RGB, as the stem wants them; same shape."""
        scaled: Tensor = (colours - self.mean) / 256
        return scaled

    def pooled(self, inputs: Tensor) -> Tensor:
        """As `features`, of normalised colours with what stands beside them, shape (N, channels, h, w)."""
        maps = functional.relu(self.stem(inputs))
        maps = functional.max_pool2d(maps, 3, 2)
        for block in self.blocks.values():
            maps = block(maps)
        return maps.float().mean((2, 3))


class CropRecogniser(nn.Module):
    """dlib's recogniser over canonical crops: the chip is cut by the fixed framing, as an attacker would.

    Args:
        network: The recogniser over chips.
    """

    # The mean face's eye centres in dlib's chip, as fractions of its side.
    _CHIP_EYES = ((0.3182, 0.3142), (0.6685, 0.3142))

    def __init__(self, network: DlibResNet) -> None:
        super().__init__()
        self.network = network
        (left, top), (right, _) = self._CHIP_EYES
        (own_left, own_top), (own_right, _) = LEFT_EYE, RIGHT_EYE
        side = SIDE * (right - left) / (own_right - own_left)
        self.side = round(side)
        self.before = round(SIDE * left - own_left * side), round(SIDE * top - own_top * side)

    def forward(self, crops: Tensor) -> Tensor:
        """Embeddings of crops, shape (N, 128).

        Args:
            crops: Shape (N, S, S, 3), uint8 RGB.
        """
        embeddings: Tensor = self.network(self.chips(crops))
        return embeddings

    def chips(self, crops: Tensor) -> Tensor:
        """The chips that the recogniser looks at, shape (N, 3, 150, 150).

        Args:
            crops: As for `forward`.
        """
        colours = crops.permute(0, 3, 1, 2).float()
        size = (self.side, self.side)
        inner = functional.interpolate(colours, size, mode="bilinear", align_corners=False, antialias=False)
        x, y = self.before
        rest = SIDE - self.side
        return functional.pad(inner, (x, rest - x, y, rest - y))
