"""What was found in a picture: how much of it a class covers, and where."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

__all__ = ["ClassArea", "Region", "xywh"]


@dataclass(frozen=True)
class ClassArea:
    """How much of the picture one class covers.

    Attributes:
        label: class index.
        name: class name.
        pixels: number of pixels.
        share: ``pixels`` over the picture's pixels, in [0, 1].
        score: the class's score (see :class:`Segmentation`).
    """

    label: int
    name: str
    pixels: int
    share: float
    score: float


@dataclass(frozen=True, eq=False)
class Region(ClassArea):
    """The pixels of one class; ``numpy.asarray(region)`` is its mask.

    Attributes:
        mask: (H, W) bool.
    """

    mask: np.ndarray = field(repr=False)

    @property
    def box(self) -> tuple[int, int, int, int] | None:
        """The tight box XYXY in pixels, right and lower ends not included; None without pixels."""
        if not self.pixels:
            return None
        x, y, width, height = xywh(self.mask)
        return x, y, x + width, y + height

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.mask, dtype=dtype, copy=True if copy else None)


def xywh(mask: np.ndarray) -> list[int]:
    """Find the tight box (x, y, width, height) of a non-empty (H, W) bool mask."""
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    left, top = int(columns[0]), int(rows[0])
    return [left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1]
