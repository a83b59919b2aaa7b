"""From features of groups to classes of pixels.

Source: Luo et al., "SegCLIP", ICML 2023, section 3.4, and its released evaluation.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


def window_starts(length: int, crop: int, stride: int) -> list[int]:
    """First pixels of the windows along one axis.

    Args:
        length: of the axis.
        crop: length of a window.
        stride: step between windows.

    Returns:
        Ascending starts; the last window is shifted back so that it ends with the axis. One window
        where the axis is shorter.
    """
    count = max(-(-(length - crop) // stride), 0) + 1
    return [min(index * stride, max(length - crop, 0)) for index in range(count)]


def group_map(soft: Tensor, grid: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Group of every pixel.

    Args:
        soft: (W, K, h * w) soft assignment of patches to groups.
        grid: (h, w).
        size: (height, width) of the patches in pixels.

    Returns:
        (W, height, width) int64.
    """
    maps = F.interpolate(soft.unflatten(2, grid), size=size, mode="bilinear", align_corners=False)
    return maps.argmax(1)


def class_logits(features: Tensor, text: Tensor, scale: float) -> Tensor:
    """Unit rows (..., D) and texts (N, D) to scaled cosines (..., N)."""
    return scale * features @ text.T


def group_affinity(group_logits: Tensor, image_logits: Tensor, top_classes: int) -> Tensor:
    """How much each group is of each class.

    Args:
        group_logits: (W, K, N), of the groups of W windows.
        image_logits: (W, N), of the windows; their best classes are the only ones.
        top_classes: how many those are.

    Returns:
        (W, K, N): the probability among all classes times that among the best ones.
    """
    best = image_logits.topk(min(top_classes, image_logits.shape[1]), dim=1).indices  # (W, k)
    others = torch.ones_like(image_logits, dtype=torch.bool).scatter(1, best, False)  # (W, N)
    among_best = group_logits.masked_fill(others[:, None], -torch.inf).softmax(-1)
    return group_logits.softmax(-1) * among_best


def background_groups(affinity: Tensor, threshold: float) -> Tensor:
    """Groups that are of no class.

    Args:
        affinity: (W, K, N).
        threshold: a group whose best class stays below it is background, but for the best group of
            a window.

    Returns:
        (W, K) bool.
    """
    best = affinity.amax(-1)  # (W, K)
    return best < best.amax(1, keepdim=True).clamp(max=threshold)


class WindowScores(NamedTuple):
    """What is known of one window.

    Args:
        scores: (K, C), of its groups.
        pixels: (h, w) integers, the group of every pixel.
        start: (top, left) in the picture.
    """

    scores: Tensor
    pixels: Tensor
    start: tuple[int, int]


def stitch(windows: Iterable[WindowScores], *, classes: int, size: tuple[int, int]) -> Tensor:
    """Averages windows where they overlap.

    Args:
        windows: of one picture, which they cover.
        classes: C.
        size: (height, width) of the picture.

    Returns:
        (C, height, width).
    """
    total, count = None, torch.zeros(size)
    for scores, pixels, (top, left) in windows:
        if total is None:
            total, count = scores.new_zeros(classes, *size), scores.new_zeros(size)
        height, width = pixels.shape
        rows, columns = slice(top, top + height), slice(left, left + width)
        total[:, rows, columns] += scores.T[:, pixels.long()]
        count[rows, columns] += 1
    assert total is not None, "a picture has at least one window"
    return total / count
