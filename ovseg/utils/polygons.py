"""Masks as polygons: one for each connected part, with its holes cut in."""

from __future__ import annotations

from collections import defaultdict

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

__all__ = ["mask_to_polygons"]


def mask_to_polygons(mask: NDArray[np.bool_], *, tolerance: float = 0.0) -> list[NDArray[np.int32]]:
    """Trace a mask.

    Vertices are pixels of the mask, by column and row; filled with its outline drawn, as OpenCV and
    Pillow fill it, a polygon gives the part back. Formats of polygons have no holes: each hole is
    joined to the outline by a cut of no width, there and back.

    Args:
        mask: (H, W) bool.
        tolerance: vertices are left out as long as the outline moves by at most so many pixels; 0
            keeps the outline exactly.

    Returns:
        Per connected part (pixels that touch at a corner are connected) its (N, 2) int32 vertices
        x, y, at least three; a part of one or two pixels repeats a vertex.

    Raises:
        ValueError: the mask is not a bool array of two dimensions, or the tolerance is negative.
    """
    if mask.ndim != 2 or mask.dtype != np.bool_:
        raise ValueError(f"mask must be (H, W) bool, got {mask.dtype} of shape {mask.shape}")
    if tolerance < 0:
        raise ValueError(f"tolerance: expected a number of pixels, 0 for none, got {tolerance}")
    contours, tree = cv2.findContours(
        mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE
    )
    if tree is None:
        return []
    if tolerance:
        contours = [cv2.approxPolyDP(contour, tolerance, True) for contour in contours]
    rings = [contour[:, 0].astype(np.int32) for contour in contours]  # each (N, 2)
    parents = tree[0, :, 3].tolist()
    holes = defaultdict(list)
    for ring, parent in zip(rings, parents, strict=True):
        holes[parent].append(ring)
    outlines = (index for index, parent in enumerate(parents) if parent < 0)
    return [_at_least_three(_cut_in(rings[index], holes[index])) for index in outlines]


def _cut_in(outline: NDArray[np.int32], holes: list[NDArray[np.int32]]) -> NDArray[np.int32]:
    """Join the holes to the outline, the nearest first, each where it is nearest."""
    if not holes:
        return outline
    points = np.concatenate((outline, *holes))
    owner = np.repeat(np.arange(len(holes) + 1), [len(outline), *map(len, holes)])  # 0: outline
    order = list(range(len(outline)))  # of points, along the polygon
    left = np.flatnonzero(owner > 0)  # points of holes that are not joined yet
    distance, joint = cKDTree(outline).query(points[left])
    while len(left):
        nearest = int(distance.argmin())
        start, anchor = int(left[nearest]), int(joint[nearest])
        ring = np.flatnonzero(owner == owner[start])
        around = [*range(start, int(ring[-1]) + 1), *range(int(ring[0]), start + 1)]
        place = order.index(anchor)
        order[place + 1 : place + 1] = [*around, anchor]
        rest = owner[left] != owner[start]
        left, distance, joint = left[rest], distance[rest], joint[rest]
        own_distance, own_joint = cKDTree(points[ring]).query(points[left])
        nearer = own_distance < distance
        distance[nearer], joint[nearer] = own_distance[nearer], ring[own_joint[nearer]]
    return points[order]


def _at_least_three(polygon: NDArray[np.int32]) -> NDArray[np.int32]:
    missing = max(0, 3 - len(polygon))
    return np.concatenate((polygon, np.repeat(polygon[-1:], missing, axis=0)))
