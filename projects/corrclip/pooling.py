"""Mean features of regions, at the size of the regions' map."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ovseg.modeling import DensePrediction
from ovseg.modeling.prediction import BAND_BYTES


def region_means(features: Tensor, ids: Tensor, *, unit: bool = False) -> tuple[Tensor, Tensor]:
    """Average features over each region, as if they were resized to the map of the regions.

    They are resized in bands of rows, so the features at full size never exist.

    Args:
        features: (C, h, w).
        ids: (H, W) integers on the same device.
        unit: bring the vector of each pixel to unit length first.

    Returns:
        region_ids: (R,) int64, every id that occurs, ascending.
        means: (R, C) float32.
    """
    found, where = ids.unique(return_inverse=True)  # (R,), (H, W)
    total = torch.zeros(len(found), len(features), device=features.device)
    resized = DensePrediction(features, (ids.shape[0], ids.shape[1]))
    for rows, values in resized.bands(max(1, BAND_BYTES // (4 * len(features) * ids.shape[1]))):
        values = F.normalize(values, dim=-1) if unit else values  # (rows, W, C)
        total.index_add_(0, where[rows].flatten(), values.flatten(0, 1))
    return found.long(), total / where.flatten().bincount()[:, None]
