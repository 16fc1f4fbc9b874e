"""The network that paints back what an approach has hidden: an attacker, to be measured, never served."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

SIDE = 112
"""Pixels across at which the network looks and paints."""

WIDTHS = (32, 64, 96, 160)
"""Channels at sides of 56, 28, 14 and 7 cells."""


class _Block(nn.Module):
    """Two 3 × 3 convolutions beside a shortcut.

    Source:
        He et al. 2016, "Identity mappings in deep residual networks", without its norms: faces are few
        and alike, and a norm over a picture with a black bar would tell how large the bar is.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.second.weight)  # so that a block starts as nothing, whatever the depth
        nn.init.zeros_(cast(Tensor, self.second.bias))

    def forward(self, maps: Tensor) -> Tensor:
        inner: Tensor = self.second(functional.silu(self.first(functional.silu(maps))))
        return maps + inner


class Inpainter(nn.Module):
    """A small U-Net: the bare face from an anonymized one.

    It looks at the crop, and at where it is hidden, at 112 pixels across, and paints what it expects there;
    what was not hidden stays as it is.

    Args:
        widths: Channels at a half, a quarter, an eighth and so on of the side.

    Raises:
        ValueError: There are fewer than two widths, or more than halvings of the side.

    Source:
        Ronneberger, Fischer and Brox 2015, "U-Net"; Pathak et al. 2016, "Context encoders", for inpainting by
        regression.
    """

    def __init__(self, widths: Sequence[int] = WIDTHS) -> None:
        super().__init__()
        if not 2 <= len(widths) <= 4:
            raise ValueError(f"the side of {SIDE} halves one to four times, got {len(widths)} widths")
        # Four pixels beside each other become channels: the full side would cost most of the time.
        self.first = nn.Conv2d(4 * 4, widths[0], 3, padding=1)
        self.down = nn.ModuleList(
            nn.Conv2d(above, below, 2, stride=2) for above, below in itertools.pairwise(widths)
        )
        self.up = nn.ModuleList(nn.Conv2d(below, 4 * above, 1) for above, below in itertools.pairwise(widths))
        self.fine = nn.ModuleList(_Block(width) for width in widths[:-1])
        self.whole = nn.Sequential(*(_Block(widths[-1]) for _ in range(3)))
        self.join = nn.ModuleList(_Block(width) for width in widths[:-1])
        self.last = nn.Conv2d(widths[0], 4 * 3, 3, padding=1)

    def paint(self, colours: Tensor, hidden: Tensor) -> Tensor:
        """What the network expects of a face, at its own side.

        Args:
            colours: Shape (N, 3, 112, 112), in [0, 255].
            hidden: Share of each pixel that was hidden, shape (N, 1, 112, 112), in [0, 1].

        Returns:
            Shape (N, 3, 112, 112), about in [0, 255].
        """
        inputs = torch.cat([colours / 127.5 - 1, 2 * hidden - 1], 1)
        maps = self.first(functional.pixel_unshuffle(inputs, 2))
        kept = []
        for block, down in zip(self.fine, self.down, strict=True):
            maps = block(maps)
            kept.append(maps)
            maps = down(maps)
        maps = self.whole(maps)
        for block, up, beside in zip(reversed(self.join), reversed(self.up), reversed(kept), strict=True):
            maps = block(functional.pixel_shuffle(up(maps), 2) + beside)
        change = functional.pixel_shuffle(self.last(functional.silu(maps)), 2)
        # What is hidden by a blur or by cells is a start.
        return colours + 127.5 * change.float()

    def forward(self, crops: Tensor, hidden: Tensor) -> Tensor:
        """The restored faces.

        Args:
            crops: Anonymized, shape (N, S, S, 3), uint8 RGB.
            hidden: Where they are, shape (N, S, S), bool.

        Returns:
            Shape (N, S, S, 3), float32 in [0, 255]; as `crops` where nothing was hidden.
        """
        colours, where = crops.permute(0, 3, 1, 2).float(), hidden.unsqueeze(1).float()
        small = functional.interpolate(
            torch.cat([colours, where], 1), (SIDE, SIDE), mode="bilinear", align_corners=False
        )
        painted = self.paint(small[:, :3], small[:, 3:]).clamp(0, 255)
        size = (crops.shape[1], crops.shape[2])
        painted = functional.interpolate(painted, size, mode="bicubic", align_corners=False).clamp(0, 255)
        return torch.where(where > 0, painted, colours).permute(0, 2, 3, 1)
