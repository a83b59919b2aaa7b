"""Merging the small parts of a label map into what surrounds them."""

from __future__ import annotations

import heapq
from collections import defaultdict

import cv2
import numpy as np

__all__ = ["merge_specks"]

_Borders = dict[int, dict[int, int]]  # part -> its neighbours -> pixel sides that they share


def merge_specks(labels: np.ndarray, min_area: int) -> np.ndarray:
    """Merge connected parts below a size into their surroundings.

    Smallest first (of equal ones the one whose first pixel comes first), each such part takes the
    label that it shares the longest border with and is one with those neighbours from then on, so
    several may grow into one that stays. Of equally long borders that with the larger neighbours
    counts, then that with the earlier pixel: the numbers of the labels have no influence. Pixels
    that touch at a corner are connected.

    For looking at results and working with them, not for evaluation: what it removes may be right.

    Args:
        labels: (H, W) signed integers. Every value is a label like any other, a blank -1, too: a
            hole without a class is filled, and a speck amid blank pixels becomes blank.
        min_area: parts with fewer pixels are merged; 0 and 1 merge nothing.

    Returns:
        New label map of the same shape and type. A part without neighbours stays as it is.

    Raises:
        ValueError: `min_area` is negative.
    """
    if min_area < 0:
        raise ValueError(f"min_area: expected a number of pixels, 0 for none, got {min_area}")
    merged = labels.copy()
    if min_area <= 1 or not labels.size:
        return merged
    parts, names, areas = _connected_parts(labels)
    small = areas < min_area  # (P,)
    if small.any():
        graph = _PartGraph(names, areas, _first_pixels(parts, len(names)), _borders(parts, small))
        graph.merge(np.flatnonzero(small).tolist(), min_area)
        table = np.array([names[graph.root(part)] for part in range(len(names))], labels.dtype)
        changed = small[parts]  # (H, W)
        merged[changed] = table[parts[changed]]
    return merged


def _connected_parts(labels: np.ndarray) -> tuple[np.ndarray, list[int], np.ndarray]:
    """Number the connected parts: (H, W) int32, the label of each (P), the pixels of each (P,)."""
    parts = np.zeros(labels.shape, np.int32)
    names: list[int] = []
    lowest = int(labels.min())
    shifted = labels - lowest  # from 0
    before = np.zeros(shifted.max() + 1, np.int32)  # parts of earlier labels
    for label in np.flatnonzero(np.bincount(shifted.ravel())).tolist():
        mask = (shifted == label).view(np.uint8)
        x, y, width, height = cv2.boundingRect(mask)
        box = (slice(y, y + height), slice(x, x + width))
        count, numbers = cv2.connectedComponents(mask[box], connectivity=8)  # no stats: 5 x faster
        parts[box] += numbers  # 0 outside the mask, from 1 inside
        before[label] = len(names)
        names += [label + lowest] * (count - 1)
    parts += before[shifted] - 1
    return parts, names, np.bincount(parts.ravel())


def _first_pixels(parts: np.ndarray, count: int) -> list[int]:
    """Find the first pixel of each part in reading order."""
    begins = np.ones(parts.shape, bool)  # no part's first pixel has that part on its left
    begins[:, 1:] = parts[:, 1:] != parts[:, :-1]
    pixels = np.flatnonzero(begins)[::-1]
    first = np.zeros(count, np.int64)
    first[parts.ravel()[pixels]] = pixels  # of several the last one written stays
    return first.tolist()


def _borders(parts: np.ndarray, small: np.ndarray) -> _Borders:
    """Measure the borders of small parts; neighbours at a corner are there with length 0."""
    shifted = (
        (parts[:, :-1], parts[:, 1:], 1),
        (parts[:-1], parts[1:], 1),
        (parts[:-1, :-1], parts[1:, 1:], 0),
        (parts[:-1, 1:], parts[1:, :-1], 0),
    )
    borders: _Borders = defaultdict(dict)
    for first, second, length in shifted:
        apart = first != second
        pairs = np.stack((first[apart], second[apart]), 1).astype(np.int64)  # (N, 2)
        pairs = np.sort(pairs[small[pairs].any(1)], 1)
        codes, counts = np.unique(pairs @ [len(small), 1], return_counts=True)
        for code, count in zip(codes.tolist(), (counts * length).tolist(), strict=True):
            one, other = divmod(code, len(small))
            borders[one][other] = borders[other][one] = borders[one].get(other, 0) + count
    return borders


class _PartGraph:
    """Parts that grow together; one that was merged points to its heir.

    Args:
        names: label of each part.
        areas: (P,) pixels of each.
        first: first pixel of each in reading order.
        borders: of the small parts.
    """

    def __init__(
        self, names: list[int], areas: np.ndarray, first: list[int], borders: _Borders
    ) -> None:
        self.names, self.first, self.borders = names, first, borders
        self.areas: list[int] = areas.tolist()
        self.heirs = list(range(len(names)))

    def root(self, part: int) -> int:
        """Follow a part to what it is merged into."""
        while self.heirs[part] != part:
            self.heirs[part] = part = self.heirs[self.heirs[part]]
        return part

    def merge(self, specks: list[int], min_area: int) -> None:
        """Merge the parts below a size, smallest first."""
        queue = [(self.areas[part], self.first[part], part) for part in specks]
        heapq.heapify(queue)
        while queue:
            area, _, part = heapq.heappop(queue)
            if self.root(part) != part or self.areas[part] != area:
                continue  # it has grown or was merged since
            joined = self._best_neighbours(part)
            if not joined:
                continue
            heir = max(joined, key=lambda other: len(self.borders[other]))
            members = [other for other in (*joined, part) if other != heir]
            for other in members:
                self.heirs[other] = heir
                self.areas[heir] += self.areas[other]
                self.first[heir] = min(self.first[heir], self.first[other])
            if self.areas[heir] < min_area:
                for other in members:
                    for neighbour, length in self.borders.pop(other).items():
                        own = self.borders[heir]
                        own[neighbour] = own.get(neighbour, 0) + length
                heapq.heappush(queue, (self.areas[heir], self.first[heir], heir))

    def _best_neighbours(self, part: int) -> list[int]:
        """List the neighbours of the label that the part shares the longest border with."""
        around: dict[int, dict[int, int]] = defaultdict(lambda: defaultdict(int))
        for other, length in self.borders[part].items():
            neighbour = self.root(other)
            if neighbour != part:
                around[self.names[neighbour]][neighbour] += length

        def rank(found: dict[int, int]) -> tuple[int, int, int]:
            area = sum(self.areas[neighbour] for neighbour in found)
            return sum(found.values()), area, -min(self.first[neighbour] for neighbour in found)

        best = max(around.values(), key=rank, default={})
        return list(best)
