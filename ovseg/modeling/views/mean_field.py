"""Mean-field inference in a fully connected CRF, in numpy.

Sources: Krähenbühl and Koltun, "Efficient Inference in Fully Connected CRFs with Gaussian Edge
Potentials" (NeurIPS 2011), algorithm 1; the Gaussian filter over all pairs of pixels is that of
Adams, Baek and Davis, "Fast High-Dimensional Filtering Using the Permutohedral Lattice"
(Eurographics 2010), section 3.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_matrix
from scipy.special import softmax

__all__ = ["PermutohedralLattice", "mean_field"]

_TINY = 1e-20


class PermutohedralLattice:
    """A Gaussian filter among N points of a feature space, with a standard deviation of 1.

    Each point spreads its value over the corners of the simplex of the lattice that it lies in
    (splat), neighbouring lattice points are blurred into each other along each of the d + 1 axes,
    and the points read their values back (slice). What it computes stands for
    `sum_j exp(-|f_i - f_j|^2 / 2) v_j`, up to one factor for all.

    Args:
        features: (N, d) float.
    """

    def __init__(self, features: np.ndarray) -> None:
        count, d = features.shape
        corner, rank = _enclosing_simplex(elevated := _elevate(features))
        weights = _barycentric((elevated - corner) / (d + 1), rank)  # (N, d + 1)
        codes = _Codes(corner)
        keys = np.stack([codes(_vertex(corner, rank, r)) for r in range(d + 1)], 1)  # (N, d + 1)
        known, vertex = np.unique(keys, return_inverse=True)
        points = np.repeat(np.arange(count), d + 1)
        shape = (len(known), count)
        splat = (weights.ravel(), (vertex.ravel(), points))
        self._splat = csr_matrix(splat, shape=shape, dtype=np.float32)
        self._slice = self._splat.T.tocsr()
        self._neighbours = [
            (_find(known, known + step), _find(known, known - step)) for step in codes.steps
        ]
        self._scale = np.float32(1 / (1 + 2.0**-d))

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Filter values.

        Args:
            values: (N, C) float32.

        Returns:
            (N, C) float32.
        """
        spread = self._splat @ values  # (M, C)
        nothing = np.zeros((1, values.shape[1]), np.float32)
        for after, before in self._neighbours:
            padded = np.concatenate([spread, nothing])  # absent neighbours are at M
            spread = spread + 0.5 * (padded[after] + padded[before])
        return (self._slice @ spread) * self._scale


def mean_field(
    probabilities: np.ndarray,
    kernels: Sequence[tuple[float, np.ndarray]],
    *,
    iterations: int,
    clip: float = 1e-5,
) -> np.ndarray:
    """Let pixels that look alike agree on their labels.

    Args:
        probabilities: (K, N) float, a distribution over K labels at each of N pixels.
        kernels: per pairwise term (Potts) its weight and (N, d) features, divided by their
            standard deviations. Kernels are normalised symmetrically.
        iterations: updates of all pixels at once.
        clip: probabilities below this count as this.

    Returns:
        (K, N) float32, a distribution at each pixel.
    """
    logits = np.log(np.clip(probabilities, clip, 1.0)).T.astype(np.float32)  # (N, K)
    filters = []
    for weight, features in kernels:
        lattice = PermutohedralLattice(features)
        mass = lattice(np.ones((len(features), 1), np.float32))
        filters.append((weight, lattice, 1 / np.sqrt(mass + _TINY)))  # (N, 1)
    belief = softmax(logits, axis=1)
    for _ in range(iterations):
        energy = logits
        for weight, lattice, norm in filters:
            energy = energy + weight * norm * lattice(norm * belief)
        belief = softmax(energy, axis=1)
    return np.ascontiguousarray(belief.T)


def _elevate(features: np.ndarray) -> np.ndarray:
    """Features (N, d) in the plane x_0 + ... + x_d = 0, scaled to the lattice's blur."""
    count, d = features.shape
    axes = np.arange(d)
    scale = (d + 1) * np.sqrt(2 / 3) / np.sqrt((axes + 1) * (axes + 2))
    scaled = features.astype(np.float64) * scale
    elevated = np.zeros((count, d + 1))
    total = np.zeros(count)
    for axis in range(d, 0, -1):
        elevated[:, axis] = total - axis * scaled[:, axis - 1]
        total += scaled[:, axis - 1]
    elevated[:, 0] = total
    return elevated


def _enclosing_simplex(elevated: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The closest lattice point of remainder 0 (N, d + 1), and the order of the offsets from it."""
    size = elevated.shape[1]
    corner = np.round(elevated / size) * size
    # Rank 0 is the largest offset; equal offsets rank in the order of the axes.
    order = np.argsort(corner - elevated, axis=1, kind="stable")
    rank = np.argsort(order, axis=1, kind="stable")
    # Where the corner is off the plane, the axes that were rounded furthest go back.
    rank += (corner.sum(1) / size).round().astype(np.int64)[:, None]
    corner = corner + size * (rank < 0) - size * (rank >= size)
    return corner.astype(np.int64), rank % size


def _barycentric(offsets: np.ndarray, rank: np.ndarray) -> np.ndarray:
    """Weights (N, d + 1) of the corners of remainder 0 to d."""
    count, size = offsets.shape
    ordered = np.empty_like(offsets)
    np.put_along_axis(ordered, rank, offsets, axis=1)  # descending
    weights = np.empty((count, size))
    weights[:, 1:] = (ordered[:, :-1] - ordered[:, 1:])[:, ::-1]
    weights[:, 0] = 1 - weights[:, 1:].sum(1)
    return weights


def _vertex(corner: np.ndarray, rank: np.ndarray, remainder: int) -> np.ndarray:
    """The corner of the simplex with a remainder, (N, d + 1)."""
    size = corner.shape[1]
    return corner + remainder - size * (rank >= size - remainder)


class _Codes:
    """One number for each lattice point, such that neighbours lie at a fixed distance.

    Args:
        corner: (N, d + 1) the points around which all others lie.
    """

    def __init__(self, corner: np.ndarray) -> None:
        size = corner.shape[1]
        self._low = corner[:, :-1].min(0) - 2 * size
        span = corner[:, :-1].max(0) + 2 * size - self._low + 1
        if float(np.prod(span.astype(np.float64))) >= 2.0**62:
            raise ValueError("the features of the CRF spread too far for its lattice")
        self._stride = np.concatenate([[1], np.cumprod(span[:-1])])  # (d,)
        down = -int(self._stride.sum())
        # One step along an axis: d up on it, one down on all others.
        self.steps = [down + size * int(stride) for stride in self._stride] + [down]

    def __call__(self, points: np.ndarray) -> np.ndarray:
        return (points[:, :-1] - self._low) @ self._stride


def _find(known: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Places of codes in a sorted list; its length for those that are not in it."""
    place = np.searchsorted(known, wanted)
    found = known[np.minimum(place, len(known) - 1)] == wanted
    return np.where(found, place, len(known))
