"""Raw label values to class indices."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

__all__ = ["relabel"]


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
            f"{int((result < 0).sum())} pixels; this file is damaged or of another data set"
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
