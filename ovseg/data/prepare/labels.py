"""Raw label values to class indices."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np

from ovseg.data.prepare.pipeline import Task
from ovseg.readers.pictures import read_label

__all__ = ["convert_label_file", "relabel"]


def convert_label_file(
    task: Task, *, labels: Callable[[np.ndarray], np.ndarray], skip_label: int | None = None
) -> list[np.ndarray] | None:
    """Convert a task of one raw label map into one label map.

    Args:
        task: its first source is an 8- or 16-bit label map.
        labels: from raw values (H, W) int32 to labels (H, W) uint8 or uint16.
        skip_label: leave out files in which every pixel has this label.

    Returns:
        The labels; None for a file left out.

    Raises:
        ImageError: the file is missing or damaged.
        ValueError: what `labels` raises.
    """
    result = labels(read_label(task.sources[0]))  # (H, W)
    if skip_label is not None and (result == skip_label).all():
        return None
    return [result]


def relabel(
    labels: np.ndarray,
    mapping: Mapping[int, int],
    *,
    ignored: Collection[int] = (),
    ignore_label: int = 255,
) -> np.ndarray:
    """Replace raw label values by class indices.

    Args:
        labels: (H, W) integers in [0, 65535].
        mapping: class index by raw value.
        ignored: raw values that become the ignore label.
        ignore_label: 255 gives 8-bit labels, 65535 gives 16-bit labels.

    Returns:
        (H, W) uint8 or uint16.

    Raises:
        ValueError: a value that is neither mapped nor ignored; the text names it.
    """
    table = np.full(65536, -1, dtype=np.int32)
    table[list(ignored)] = ignore_label
    table[list(mapping)] = list(mapping.values())
    result = table[labels]  # (H, W)
    if (result < 0).any():
        unknown = np.unique(labels[result < 0])
        shown = ", ".join(map(str, unknown[:10])) + (" ..." if len(unknown) > 10 else "")
        raise ValueError(
            f"expected labels in {_ranges([*mapping, *ignored])}, got {shown} in "
            f"{int((result < 0).sum())} pixels; this file is damaged or of another dataset"
        )
    return result.astype(np.uint8 if ignore_label <= 255 else np.uint16)


def _ranges(values: Sequence[int]) -> str:
    """Write a set of numbers as "0-10, 12, 255"."""
    parts: list[list[int]] = []
    for value in sorted(set(values)):
        if parts and value == parts[-1][1] + 1:
            parts[-1][1] = value
        else:
            parts.append([value, value])
    return ", ".join(f"{low}-{high}" if high > low else str(low) for low, high in parts)
