"""What was found in a picture: how much of it a class covers, and where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

__all__ = ["ClassArea", "Region", "as_table", "class_areas", "label_type", "xywh"]


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


def label_type(classes: int) -> type[np.uint8] | type[np.uint16]:
    """Choose the type of stored label maps; its largest value is that of pixels without a class.

    Args:
        classes: K.

    Returns:
        uint8 for up to 255 classes, else uint16.

    Raises:
        ValueError: more classes than 16 bits can hold.
    """
    if classes > 65535:
        raise ValueError(f"a label map holds 65535 classes, got {classes}")
    return np.uint8 if classes <= 255 else np.uint16


def class_areas(
    counts: np.ndarray, names: Sequence[str], scores: np.ndarray, pixels: int
) -> list[ClassArea]:
    """List the classes that have pixels, largest first.

    Args:
        counts: (K,) pixels of each class.
        names: K names.
        scores: (K,) scores.
        pixels: of the whole picture.

    Returns:
        One entry per class with at least one pixel.
    """
    found = sorted(np.flatnonzero(counts).tolist(), key=lambda k: (-int(counts[k]), k))
    return [
        ClassArea(k, names[k], int(counts[k]), counts[k] / pixels, float(scores[k])) for k in found
    ]


def as_table(areas: Sequence[ClassArea], pixels: int) -> str:
    """Set classes in a table of plain text.

    Args:
        areas: the classes found.
        pixels: of the whole picture; those of no class get a line of their own.

    Returns:
        Lines of name, area in percent, pixels and score.
    """
    rows = [(a.name, f"{a.share:.1%}", str(a.pixels), f"{a.score:.2f}") for a in areas]
    blank = pixels - sum(area.pixels for area in areas)
    if blank:
        rows.append(("(no class)", f"{blank / pixels:.1%}", str(blank), ""))
    head = ("class", "area", "pixels", "score")
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(4)]
    lines = (
        [row[0].ljust(widths[0]), *(row[i].rjust(widths[i]) for i in (1, 2, 3))]
        for row in [head, *rows]
    )
    return "\n".join("  ".join(cells).rstrip() for cells in lines)


def xywh(mask: np.ndarray) -> list[int]:
    """Find the tight box (x, y, width, height) of a non-empty (H, W) bool mask."""
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    left, top = int(columns[0]), int(rows[0])
    return [left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1]
