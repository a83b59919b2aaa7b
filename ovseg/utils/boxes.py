"""Boxes as (x_min, y_min, x_max, y_max) in pixels; the maxima lie outside."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["Box", "expand_box", "masks_to_boxes"]

Box = tuple[int, int, int, int]


def masks_to_boxes(masks: Tensor) -> Tensor:
    """Find the tight box of each mask.

    Args:
        masks: (N, H, W) bool.

    Returns:
        (N, 4) int64 boxes XYXY, `mask[y_min:y_max, x_min:x_max]` holding every set pixel; an
        empty mask gives (0, 0, 0, 0).

    Raises:
        ValueError: if the masks are not (N, H, W).
    """
    if masks.ndim != 3:
        raise ValueError(f"masks must be (N, H, W), got shape {tuple(masks.shape)}")
    if masks.numel() == 0:
        return torch.zeros(len(masks), 4, dtype=torch.int64, device=masks.device)
    x_min, x_max = _extent(masks.any(dim=1))
    y_min, y_max = _extent(masks.any(dim=2))
    return torch.stack([x_min, y_min, x_max, y_max], dim=1)  # (N, 4)


def expand_box(box: Box, ratio: float, size: tuple[int, int]) -> Box:
    """Scale a box about its centre and clip it to the image.

    Args:
        box: XYXY in pixels.
        ratio: factor on both sides.
        size: (height, width) of the image.

    Returns:
        XYXY; coordinates are truncated towards zero, as the released results were made so.
    """
    left, top, right, bottom = box
    center_x, center_y = (left + right) / 2, (top + bottom) / 2
    half_width, half_height = (right - left) * ratio / 2, (bottom - top) * ratio / 2
    height, width = size
    return (
        max(int(center_x - half_width), 0),
        max(int(center_y - half_height), 0),
        min(int(center_x + half_width), width),
        min(int(center_y + half_height), height),
    )


def _extent(occupied: Tensor) -> tuple[Tensor, Tensor]:
    """Return first and one past last set position of each row of (N, L)."""
    length = occupied.shape[1]
    occupied = occupied.to(torch.int8)
    first = occupied.argmax(dim=1)  # (N,)
    end = length - occupied.flip(1).argmax(dim=1)  # (N,)
    # argmax of a row without a set position is 0 from either end.
    return first, torch.where(occupied.any(dim=1), end, 0)
