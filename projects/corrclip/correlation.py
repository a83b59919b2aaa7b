"""Which patches of a crop belong together, and how much they take of each other.

Source: CorrCLIP (Zhang et al., ICCV 2025, arXiv 2411.10086), scope reconstruction (which pairs may
correlate: those within a region) and value reconstruction (how much: the cosine of a vision
model's features).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from scipy.sparse.csgraph import connected_components
from torch import Tensor

UNCOVERED_RULES = ("either", "both", "none")
UNSEGMENTED_RULES = ("min", "zero")
Uncovered = Literal["either", "both", "none"]
Unsegmented = Literal["min", "zero"]


def resize_ids(ids: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize a map of ids to the nearest pixel, as torch's `interpolate` rounds.

    Args:
        ids: (H, W) integers below 2**24.
        size: (h, w).

    Returns:
        (h, w) of the same dtype.
    """
    if tuple(ids.shape) == tuple(size):
        return ids
    return F.interpolate(ids[None, None].float(), size=size, mode="nearest")[0, 0].to(ids.dtype)


def number_regions(ids: Tensor, rule: Unsegmented) -> Tensor:
    """Number the regions of a map without gaps, what is in none of them as 0.

    Args:
        ids: (h, w) integers.
        rule: "min": the smallest id of the map means "in no region", whatever it is (the released
            code); "zero": the id 0 does, and a map without it is covered.

    Returns:
        (h, w) int64: 0 for uncovered cells, the regions as 1..R in the order of their ids.
    """
    values, numbers = ids.unique(return_inverse=True)
    return numbers if rule == "min" or values[0] == 0 else numbers + 1


def region_distances(rows: Tensor, numbers: Tensor) -> Tensor:
    """Compare the mean features of regions.

    Args:
        rows: (N, C) unit features of the cells.
        numbers: (N,) int64 region of each cell, 0 for none, else 1..R.

    Returns:
        (R, R) float32: the largest cosine of two regions minus their cosine.
    """
    sums = rows.new_zeros(int(numbers.max()) + 1, rows.shape[1]).index_add_(0, numbers, rows)
    means = F.normalize(sums[1:], dim=1)  # (R, C); the length does not matter
    similarity = means @ means.T
    return similarity.max() - similarity


def cluster_regions(distances: Tensor, *, eps: float, min_samples: int = 1) -> Tensor:
    """Group regions that are near each other, in chains, too.

    With `min_samples` 1 these are the clusters of DBSCAN: connected components of the graph of near
    pairs. Above 1, regions with fewer near ones stay by themselves.

    Args:
        distances: (R, R).
        eps: regions up to this distance are near.
        min_samples: near regions, itself included, that a region needs to be joined with others.

    Returns:
        (R,) int64 cluster of each region, numbered by their first regions.
    """
    near = (distances <= eps).cpu().numpy()
    core = near.sum(1) >= min_samples
    near &= core[:, None] & core[None] | np.eye(len(near), dtype=bool)
    clusters = connected_components(near, directed=False)[1]
    return torch.from_numpy(clusters).to(distances.device, torch.int64)


def merge_regions(rows: Tensor, numbers: Tensor, *, eps: float, min_samples: int = 1) -> Tensor:
    """Join regions that look alike; uncovered cells stay as they are.

    Args:
        rows: (h * w, C) unit features of the cells, row by row.
        numbers: (h, w) int64, as `number_regions` gives them.
        eps: see `cluster_regions`.
        min_samples: see `cluster_regions`.

    Returns:
        (h, w) int64: 0 for uncovered cells, merged regions as 1, 2, ...
    """
    if int(numbers.max()) < 2:
        return numbers
    distances = region_distances(rows, numbers.flatten())
    clusters = cluster_regions(distances, eps=eps, min_samples=min_samples)  # (R,)
    return torch.cat([clusters.new_zeros(1), clusters + 1])[numbers]


def allowed_pairs(similarity: Tensor, numbers: Tensor, uncovered: Uncovered = "either") -> Tensor:
    """Tell which pairs of cells may correlate (scope reconstruction).

    Two cells of a region may. Where cells lie in no region, similar pairs may: those with more than
    the mean similarity of all pairs.

    Args:
        similarity: (N, N) cosines.
        numbers: (N,) int64 region of each cell, 0 for none.
        uncovered: similar pairs count where "either" cell lies in no region, where "both" do, or
            not at all ("none").

    Returns:
        (N, N) bool; a cell always may with itself.
    """
    bare = numbers == 0
    allowed = (numbers[:, None] == numbers) & ~bare
    if uncovered != "none":
        open_pair = bare[:, None] | bare if uncovered == "either" else bare[:, None] & bare
        allowed |= open_pair & (similarity > similarity.mean())
    return allowed.fill_diagonal_(True)


def rebuilt_attention(similarity: Tensor, allowed: Tensor, tau: float) -> Tensor:
    """Turn similarities into the attention that all heads share (value reconstruction).

    Args:
        similarity: (N, N) cosines.
        allowed: (N, N) bool, True on the diagonal.
        tau: factor before the softmax.

    Returns:
        (N, N), rows sum to 1.
    """
    return (tau * similarity).masked_fill(~allowed, -torch.inf).softmax(dim=-1)
