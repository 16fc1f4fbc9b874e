"""FaceNet's Inception-ResNet as a PyTorch module: larger estimators start from it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

_FEATURES = 1792  # width of what is pooled

# A layer is named as its makers named it; the end of the name is the size of its kernel. A name -> outputs.
_Branches = tuple[tuple[tuple[str, int], ...], ...]

_STEM = (
    ("Conv2d_1a_3x3", 32), ("Conv2d_2a_3x3", 32), ("Conv2d_2b_3x3", 64),
    ("Conv2d_3b_1x1", 80), ("Conv2d_4a_3x3", 192), ("Conv2d_4b_3x3", 256),
)  # fmt: skip
_HALVING = ("1a_3x3", "4b_3x3")  # layers whose name ends so have stride 2
_PADDED = "Conv2d_2b_3x3"  # of the stem, the one that keeps the size

_BLOCK35: _Branches = (
    (("Branch_0_Conv2d_1x1", 32),),
    (("Branch_1_Conv2d_0a_1x1", 32), ("Branch_1_Conv2d_0b_3x3", 32)),
    (("Branch_2_Conv2d_0a_1x1", 32), ("Branch_2_Conv2d_0b_3x3", 32), ("Branch_2_Conv2d_0c_3x3", 32)),
)
_MIXED_6A: _Branches = (
    (("Branch_0_Conv2d_1a_3x3", 384),),
    (("Branch_1_Conv2d_0a_1x1", 192), ("Branch_1_Conv2d_0b_3x3", 192), ("Branch_1_Conv2d_1a_3x3", 256)),
)
_BLOCK17: _Branches = (
    (("Branch_0_Conv2d_1x1", 128),),
    (("Branch_1_Conv2d_0a_1x1", 128), ("Branch_1_Conv2d_0b_1x7", 128), ("Branch_1_Conv2d_0c_7x1", 128)),
)
_MIXED_7A: _Branches = (
    (("Branch_0_Conv2d_0a_1x1", 256), ("Branch_0_Conv2d_1a_3x3", 384)),
    (("Branch_1_Conv2d_0a_1x1", 256), ("Branch_1_Conv2d_1a_3x3", 256)),
    (("Branch_2_Conv2d_0a_1x1", 256), ("Branch_2_Conv2d_0b_3x3", 256), ("Branch_2_Conv2d_1a_3x3", 256)),
)
_BLOCK8: _Branches = (
    (("Branch_0_Conv2d_1x1", 192),),
    (("Branch_1_Conv2d_0a_1x1", 192), ("Branch_1_Conv2d_0b_1x3", 192), ("Branch_1_Conv2d_0c_3x1", 192)),
)


def _convolution(name: str, inputs: int, outputs: int, *, padded: bool) -> nn.Conv2d:
    high, wide = (int(length) for length in name.rsplit("_", 1)[1].split("x"))
    halving = name.endswith(_HALVING)
    padding = (high // 2, wide // 2) if padded and not halving else 0
    return nn.Conv2d(inputs, outputs, (high, wide), 2 if halving else 1, padding)


class _Inception(nn.Module):
    """Branches side by side, each a chain of convolutions."""

    def __init__(self, inputs: int, branches: _Branches) -> None:
        super().__init__()
        self.branches = nn.ModuleList()
        for branch in branches:
            chain, width = nn.ModuleDict(), inputs
            for name, outputs in branch:
                chain[name], width = _convolution(name, width, outputs, padded=True), outputs
            self.branches.append(chain)
        self.width = sum(branch[-1][1] for branch in branches)

    def looked(self, maps: Tensor) -> list[Tensor]:
        """What comes out of each branch."""
        found = []
        for chain in self.branches:
            seen = maps
            for convolution in chain.children():
                seen = functional.relu(convolution(seen))
            found.append(seen)
        return found


class _Residual(_Inception):
    """Adds a share of what the branches see to the maps that they look at."""

    def __init__(self, channels: int, branches: _Branches, scale: float, *, last: bool = False) -> None:
        super().__init__(channels, branches)
        self.Conv2d_1x1 = nn.Conv2d(self.width, channels, 1)
        self.scale = scale
        self.last = last

    def forward(self, maps: Tensor) -> Tensor:
        summed: Tensor = maps + self.scale * self.Conv2d_1x1(torch.cat(self.looked(maps), 1))
        return summed if self.last else functional.relu(summed)


class _Reduction(_Inception):
    """Halves the size; the maps themselves go on beside the branches."""

    def forward(self, maps: Tensor) -> Tensor:
        return torch.cat([*self.looked(maps), functional.max_pool2d(maps, 3, 2)], 1)


class FaceNet(nn.Module):
    """Inception-ResNet (v1) that maps a face to 128 numbers, its batch norms folded into the convolutions.

    Args:
        channels: Of its input: the colours, and what stands beside them.

    Source:
        Schroff et al. 2015, "FaceNet"; Szegedy et al. 2016, "Inception-v4, Inception-ResNet and the impact of
        residual connections on learning"; Sandberg 2017, whose networks of 128 numbers were trained on
        MS-Celeb-1M or CASIA-WebFace.
    """

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.stem = nn.ModuleDict()
        for name, outputs in _STEM:
            self.stem[name] = _convolution(name, channels, outputs, padded=name == _PADDED)
            channels = outputs
        blocks: dict[str, nn.Module] = {}
        for at in range(5):
            blocks[f"Block35_{at + 1}"] = _Residual(256, _BLOCK35, 0.17)
        blocks["Mixed_6a"] = _Reduction(256, _MIXED_6A)
        for at in range(10):
            blocks[f"Block17_{at + 1}"] = _Residual(896, _BLOCK17, 0.1)
        blocks["Mixed_7a"] = _Reduction(896, _MIXED_7A)
        for at in range(5):
            blocks[f"Block8_{at + 1}"] = _Residual(_FEATURES, _BLOCK8, 0.2)
        blocks["Block8_6"] = _Residual(_FEATURES, _BLOCK8, 1.0, last=True)
        self.blocks = nn.ModuleDict(blocks)
        self.embedding = nn.Linear(_FEATURES, 128)

    def forward(self, faces: Tensor) -> Tensor:
        """Embeddings of faces, shape (N, 128); those of one person point the same way.

        Args:
            faces: Shape (N, 3, 160, 160), RGB in [0, 255], float.
        """
        embeddings: Tensor = self.embedding(self.pooled(self.normalised(faces)))
        return embeddings

    def normalised(self, colours: Tensor) -> Tensor:
        """Colours, RGB, less their mean and divided by their deviation, face by face; same shape."""
        flat = colours.flatten(1)
        # As its makers: a flat face is divided by what a single bright pixel would give.
        deviation = flat.std(1, correction=0).clamp(min=flat.shape[1] ** -0.5)
        return (colours - flat.mean(1).view(-1, 1, 1, 1)) / deviation.view(-1, 1, 1, 1)

    def pooled(self, inputs: Tensor) -> Tensor:
        """What `embedding` is applied to, shape (N, 1792), float32 whatever the maps are kept in.

        Args:
            inputs: Normalised colours with what stands beside them, shape (N, channels, h, w).
        """
        maps = inputs
        for name, convolution in self.stem.items():
            maps = functional.relu(convolution(maps))
            if name == _PADDED:
                maps = functional.max_pool2d(maps, 3, 2)
        for block in self.blocks.values():
            maps = block(maps)
        return maps.float().mean((2, 3))
