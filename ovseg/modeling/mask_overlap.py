"""Masks that repeat one another."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def distinct_masks(masks: Tensor, iou: float) -> Tensor:
    """Find the masks that do not repeat an earlier one that is kept.

    Args:
        masks: (Q, H, W) bool, none empty.
        iou: overlap, intersection over union, from which on a mask is a repetition.

    Returns:
        (K,) int64, ascending indices of the masks to keep.
    """
    flat = masks.flatten(1).float()  # (Q, H * W)
    common = flat @ flat.T  # (Q, Q); counts below 2**24 are exact
    areas = flat.sum(1)
    repeats = (common >= iou * (areas[:, None] + areas - common)).cpu().numpy()
    kept: list[int] = []
    suppressed = np.zeros(len(masks), dtype=np.bool_)
    for index in range(len(masks)):
        if not suppressed[index]:
            kept.append(index)
            suppressed |= repeats[index]
    return torch.tensor(kept, dtype=torch.int64, device=masks.device)
