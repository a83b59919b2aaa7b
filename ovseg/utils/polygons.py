"""Masks as polygons: one for each connected part, with its holes cut in."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["mask_to_polygons"]

_Pixel = tuple[int, int]  # column, row


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
    contours, tree = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    if tree is None:
        return []
    rings = [contour[:, 0].astype(np.int32) for contour in contours]  # each (N, 2)
    parents = tree[0, :, 3].tolist()
    holes = defaultdict(list)
    for ring, parent in zip(rings, parents, strict=True):
        holes[parent].append(ring)
    polygons = []
    for index in (index for index, parent in enumerate(parents) if parent < 0):
        polygon = _without_runs(_cut_in(rings[index], holes[index]))
        if tolerance:
            coarse = cv2.approxPolyDP(polygon[:, None], tolerance, True)[:, 0]
            polygon = coarse.astype(np.int32)
        polygons.append(_at_least_three(polygon))
    return polygons


def _cut_in(outline: NDArray[np.int32], holes: list[NDArray[np.int32]]) -> NDArray[np.int32]:
    """Join the holes to the outline, each by a cut to its left; all pixels of a ring are given.

    From a hole's leftmost pixel a row leads through the part to the outline or to a hole that
    begins further left, which is joined already. A slanted cut to whatever is nearest would lose
    pixels beside it where Pillow fills it, and could cross a gap.
    """
    if not holes:
        return outline
    joined: set[_Pixel] = set(map(tuple, outline.tolist()))
    attached: dict[_Pixel, list[list[_Pixel]]] = defaultdict(list)
    for ring in sorted(holes, key=lambda ring: int(ring[:, 0].min())):
        around = list(map(tuple, np.roll(ring, -int(ring[:, 0].argmin()), axis=0).tolist()))
        column, row = around[0]
        while (column, row) not in joined:
            column -= 1
            assert column >= 0  # the outline is further left than any hole
        attached[column, row].append([*around, around[0], (column, row)])
        joined.update(around)
    points: list[_Pixel] = []
    paths: list[Iterator[_Pixel]] = [iter(map(tuple, outline.tolist()))]
    while paths:
        point = next(paths[-1], None)
        if point is None:
            paths.pop()
            continue
        points.append(point)
        paths += [iter(path) for path in attached.pop(point, [])]
    return np.array(points, np.int32)


def _without_runs(polygon: NDArray[np.int32]) -> NDArray[np.int32]:
    """Leave out pixels at which a polygon goes straight on, or stays."""
    polygon = polygon[(polygon != np.roll(polygon, 1, axis=0)).any(axis=1) | (len(polygon) == 1)]
    came = np.sign(polygon - np.roll(polygon, 1, axis=0))
    goes = np.sign(np.roll(polygon, -1, axis=0) - polygon)
    return polygon[(came != goes).any(axis=1) | (len(polygon) == 1)]


def _at_least_three(polygon: NDArray[np.int32]) -> NDArray[np.int32]:
    missing = max(0, 3 - len(polygon))
    return np.concatenate((polygon, np.repeat(polygon[-1:], missing, axis=0)))
