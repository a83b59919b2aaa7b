"""All classes of a label map as COCO's run lengths, in one pass over the map."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ovseg.utils.masks import RunLength

__all__ = ["ClassRuns", "class_runs"]

_PIECE = 1 << 24  # pixels that are looked at together
_MOST_PIXELS = 2**31 - 1


@dataclass(frozen=True)
class ClassRuns:
    """Where a class is.

    Attributes:
        label: its value in the label map.
        pixels: how many it has.
        box: x, y, width, height in pixels.
        rle: COCO's run lengths, compressed.
    """

    label: int
    pixels: int
    box: list[int]
    rle: RunLength


def class_runs(labels: NDArray[np.unsignedinteger], *, blank: int) -> list[ClassRuns]:
    """Encode every class of a label map.

    Memory beyond the map grows with the number of runs along its columns, not with its classes.

    Args:
        labels: (H, W) uint8 or uint16.
        blank: the value of pixels without a class.

    Returns:
        The classes found, by their label; `rle` is what `encode_rle` makes of their masks.

    Raises:
        ValueError: more pixels than COCO's counts can hold.
    """
    if labels.size > _MOST_PIXELS:
        raise ValueError(f"labels: expected at most {_MOST_PIXELS} pixels, got {labels.size}")
    height, width = labels.shape
    begins, values = _runs_by_column(labels)
    ends = np.append(begins[1:], labels.size)
    order = np.argsort(values, kind="stable")
    order = order[values[order] != blank]
    found, firsts = np.unique(values[order], return_index=True)
    return [
        _encode(int(label), begins[own], ends[own], (height, width))
        for label, own in zip(found, np.split(order, firsts)[1:], strict=True)
    ]


def _runs_by_column(labels: np.ndarray) -> tuple[NDArray[np.int64], np.ndarray]:
    """First pixels of the runs of equal labels (R,), column after column, and their labels (R,)."""
    height, width = labels.shape
    step = max(1, _PIECE // max(1, height))
    begins, values = [np.zeros(0, np.int64)], [labels[:0, 0]]
    last = None
    for left in range(0, width, step):
        flat = labels[:, left : left + step].T.ravel()  # column after column
        new = np.flatnonzero(flat[1:] != flat[:-1]) + 1
        if flat[0] != last:
            new = np.concatenate(([0], new))
        begins.append(new + left * height)
        values.append(flat[new])
        last = flat[-1]
    return np.concatenate(begins), np.concatenate(values)


def _encode(
    label: int, begins: NDArray[np.int64], ends: NDArray[np.int64], size: tuple[int, int]
) -> ClassRuns:
    height, width = size
    counts = np.empty(2 * len(begins), np.int64)
    counts[0::2] = begins - np.concatenate(([0], ends[:-1]))
    counts[1::2] = ends - begins
    if ends[-1] < height * width:
        counts = np.append(counts, height * width - ends[-1])
    left, right = begins // height, (ends - 1) // height
    one = left == right  # others begin in one column and end in a later one
    top, bottom = np.where(one, begins % height, 0), np.where(one, (ends - 1) % height, height - 1)
    x, y = int(left.min()), int(top.min())
    return ClassRuns(
        label=label,
        pixels=int((ends - begins).sum()),
        box=[x, y, int(right.max()) - x + 1, int(bottom.max()) - y + 1],
        rle={"size": [height, width], "counts": _compressed(counts)},
    )


def _compressed(counts: NDArray[np.int64]) -> str:
    """Write counts as COCO's text; `ovseg.readers.segmentations` says what it looks like."""
    numbers = counts.copy()
    numbers[3:] -= counts[1:-2]
    size = np.where(numbers < 0, ~numbers, numbers)  # a sign takes a bit as well
    lengths = np.ones(len(numbers), np.int64)
    while (more := size >> 5 * lengths - 1 > 0).any():
        lengths += more
    begins = np.cumsum(lengths) - lengths
    text = np.empty(int(lengths.sum()), np.uint8)
    for place in range(int(lengths.max())):
        has = lengths > place
        digit = numbers[has] >> 5 * place & 0x1F
        text[begins[has] + place] = 48 + digit + np.where(lengths[has] > place + 1, 0x20, 0)
    return text.tobytes().decode("ascii")
