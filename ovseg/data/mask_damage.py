"""Masks as proposals are: too large, too small, coarse, misplaced, or with a part amiss.

A CLIP that has met true masks only is asked at inference about masks that a network drew. Every
kind of damage is sized by the radius of the largest disc in the region, so that thin and small
regions are spared what would leave nothing of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["DAMAGES", "MIN_IOU", "damage_mask"]

Mask = NDArray[np.bool_]

MIN_IOU = 0.5
"""A damaged mask that overlaps the plain one less than this no longer shows what the noun says."""


def damage_mask(mask: Mask, rng: np.random.Generator) -> Mask:
    """Damage a mask in one of the ways of `DAMAGES`, each as likely as the others.

    Args:
        mask: (H, W) bool of a whole picture, not empty; left as it is.
        rng: where kind, strength and place come from.

    Returns:
        (H, W) bool, not empty; the mask itself where the damage would leave less than `MIN_IOU`.
    """
    kind = list(DAMAGES)[int(rng.integers(len(DAMAGES)))]
    damaged = DAMAGES[kind](mask, _inner_radius(mask), rng)
    union = np.count_nonzero(damaged | mask)
    return damaged if np.count_nonzero(damaged & mask) >= MIN_IOU * union else mask


def _dilated(mask: Mask, radius: float, rng: np.random.Generator) -> Mask:
    return _distance(~mask) <= max(1.0, radius * rng.uniform(0.1, 0.4))


def _eroded(mask: Mask, radius: float, rng: np.random.Generator) -> Mask:
    return _distance(mask) > max(1.0, radius * rng.uniform(0.1, 0.3))


def _coarse(mask: Mask, radius: float, rng: np.random.Generator) -> Mask:
    """Down to cells of up to a radius and back, as a mask of few pixels is enlarged."""
    height, width = mask.shape
    cell = max(2.0, radius * rng.uniform(0.3, 1.0))
    cells = (max(round(width / cell), 1), max(round(height / cell), 1))
    small = cv2.resize(mask.astype(np.float32), cells, interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR) >= 0.5


def _shifted(mask: Mask, radius: float, rng: np.random.Generator) -> Mask:
    angle, length = rng.uniform(0, 2 * np.pi), max(1.0, radius * rng.uniform(0.1, 0.5))
    move = np.array([[1, 0, length * np.cos(angle)], [0, 1, length * np.sin(angle)]])
    size = (mask.shape[1], mask.shape[0])
    return cv2.warpAffine(mask.astype(np.uint8), move, size, flags=cv2.INTER_NEAREST) > 0


def _cut(mask: Mask, radius: float, rng: np.random.Generator) -> Mask:
    """What lies on one side of a line: between half and nearly all of the region."""
    angle, share = rng.uniform(0, 2 * np.pi), rng.uniform(0.55, 0.9)
    rows, columns = np.nonzero(mask)
    along = np.cos(angle) * columns + np.sin(angle) * rows  # (P,)
    kept = along <= np.quantile(along, share)
    result = np.zeros_like(mask)
    result[rows[kept], columns[kept]] = True
    return result


def _with_blob(mask: Mask, radius: float, rng: np.random.Generator) -> Mask:
    return mask | _blob(mask, radius, rng)


def _without_blob(mask: Mask, radius: float, rng: np.random.Generator) -> Mask:
    return mask & ~_blob(mask, radius, rng)


DAMAGES: Mapping[str, Callable[[Mask, float, np.random.Generator], Mask]] = {
    "dilate": _dilated,
    "erode": _eroded,
    "coarsen": _coarse,
    "shift": _shifted,
    "cut": _cut,
    "gain": _with_blob,
    "lose": _without_blob,
}
"""Each maps a mask (H, W) bool, the radius of its largest disc and a generator to a mask."""


def _blob(mask: Mask, radius: float, rng: np.random.Generator) -> Mask:
    """An ellipse about a point of the region's edge, or of a region without an edge."""
    edge = mask & (_distance(mask) <= 1)
    places = np.argwhere(edge if edge.any() else mask)  # (P, 2)
    row, column = places[int(rng.integers(len(places)))].tolist()
    axes = [max(1, round(radius * r)) for r in rng.uniform(0.3, 0.9, 2)]
    drawn = np.zeros(mask.shape, np.uint8)
    cv2.ellipse(drawn, (column, row), axes, float(rng.uniform(0, 180)), 0, 360, 1, cv2.FILLED)
    return drawn > 0


def _distance(mask: Mask) -> NDArray[np.floating]:
    """Distance (H, W) of each pixel of a mask to the nearest outside of it, 0 outside."""
    found = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return found.astype(np.float32, copy=False)


def _inner_radius(mask: Mask) -> float:
    """Radius of the largest disc in a region; the picture's border bounds it, too."""
    return float(_distance(np.pad(mask, 1)).max())
