"""Overlapping crops of a resized picture, and averages over them.

Source: CorrCLIP (Zhang et al., ICCV 2025), released code: windows every STRIDE pixels, the last
shifted back inside; one that is smaller than the crop is padded evenly to a multiple.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Window(NamedTuple):
    """A crop of a picture: pixels [top, bottom) x [left, right), and the padding around it."""

    top: int
    left: int
    bottom: int
    right: int
    pad_top: int
    pad_left: int
    pad_bottom: int
    pad_right: int

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) with the padding."""
        return (
            self.bottom - self.top + self.pad_top + self.pad_bottom,
            self.right - self.left + self.pad_left + self.pad_right,
        )

    def cut(self, maps: Tensor, value: float = 0.0) -> Tensor:
        """Cut the window out of a picture and pad it.

        Args:
            maps: (..., H, W).
            value: of the padding.

        Returns:
            (..., *size).
        """
        inside = maps[..., self.top : self.bottom, self.left : self.right]
        sides = (self.pad_left, self.pad_right, self.pad_top, self.pad_bottom)
        return F.pad(inside, sides, value=value) if any(sides) else inside

    def sample(self, maps: Tensor, size: tuple[int, int], grid: tuple[int, int]) -> Tensor:
        """Cut the window out of unit features of a whole picture, whatever their resolution.

        As if they were resized to the picture, brought to unit length, cut, padded by repeating the
        edge, and resized to the grid; only the window exists at the picture's resolution.

        Args:
            maps: (C, h', w') features of the whole picture.
            size: (H, W) of the picture that the window lies in.
            grid: (h, w) that is wanted.

        Returns:
            (C, h, w).
        """
        starts = (self.top - self.pad_top, self.left - self.pad_left)
        y, x = (
            (torch.arange(length, device=maps.device) + start + 0.5) / side * 2 - 1
            for start, length, side in zip(starts, self.size, size, strict=True)
        )
        points = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)[None]  # (1, H, W, 2)
        pixels = F.grid_sample(maps[None], points, padding_mode="border", align_corners=False)
        unit = F.normalize(pixels, dim=1)
        return F.interpolate(unit, size=grid, mode="bilinear", align_corners=False)[0]

    def unpad(self, maps: Tensor) -> Tensor:
        """Take the padding off maps (..., *size)."""
        height, width = maps.shape[-2:]
        return maps[
            ..., self.pad_top : height - self.pad_bottom, self.pad_left : width - self.pad_right
        ]


def plan_windows(
    height: int, width: int, *, crop: int, stride: int, pad_multiple: int = 1
) -> list[Window]:
    """Lay windows over a picture.

    Args:
        height: of the picture, pixels.
        width: likewise.
        crop: side of a window.
        stride: step between windows.
        pad_multiple: sides of a window are padded to multiples of this.

    Returns:
        The windows, row by row; all of one size.

    Raises:
        ValueError: a number below 1.
    """
    for name, value in (("CROP", crop), ("STRIDE", stride), ("PAD_MULTIPLE", pad_multiple)):
        if value < 1:
            raise ValueError(f"MODEL.CORRCLIP.WINDOW.{name}: expected at least 1, got {value}")
    rows, columns = _spans(height, crop, stride), _spans(width, crop, stride)
    pad_top, pad_bottom = _padding(min(height, crop), pad_multiple)
    pad_left, pad_right = _padding(min(width, crop), pad_multiple)
    return [
        Window(top, left, bottom, right, pad_top, pad_left, pad_bottom, pad_right)
        for top, bottom in rows
        for left, right in columns
    ]


def average_windows(
    windows: Sequence[Window], maps: Iterable[Tensor], size: tuple[int, int]
) -> Tensor:
    """Average maps of windows where they overlap.

    Args:
        windows: of one picture.
        maps: per window (C, h', w') at any resolution, its padding included.
        size: (H, W) of the picture.

    Returns:
        (C, H, W) float32.
    """
    total = count = None
    for window, one in zip(windows, maps, strict=True):
        if total is None or count is None:
            total = one.new_zeros(len(one), *size, dtype=torch.float32)
            count = total.new_zeros(size)
        resized = F.interpolate(
            one[None].float(), size=window.size, mode="bilinear", align_corners=False
        )
        inside = (slice(window.top, window.bottom), slice(window.left, window.right))
        total[(slice(None), *inside)] += window.unpad(resized[0])
        count[inside] += 1
    assert total is not None and count is not None
    return total.div_(count)


def _spans(length: int, crop: int, stride: int) -> list[tuple[int, int]]:
    number = max(length - crop + stride - 1, 0) // stride + 1
    ends = [min(index * stride + crop, length) for index in range(number)]
    return [(max(end - crop, 0), end) for end in ends]


def _padding(length: int, multiple: int) -> tuple[int, int]:
    missing = -length % multiple
    return missing // 2, missing - missing // 2
