"""What several properties are tried with."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

SIZES = st.tuples(st.integers(1, 40), st.integers(1, 40))
# Any text that UTF-8 holds, often short, with what files and formats trip over.
TEXTS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
    st.text(
        st.sampled_from("aAé́ ,;:#\"'&<>{}[]|\\/\t\n\r\v\x1c\x85\u2028\ufeff\x00%-0"), max_size=8
    ),
)


def labels_of(num_classes: int, *, lowest: int = 0) -> st.SearchStrategy[np.ndarray]:
    """Label maps (H, W) int32 of a few large regions or of noise."""
    values = st.integers(lowest, num_classes - 1)
    noise = arrays(np.int32, SIZES, elements=values, fill=values)

    def blocks(parts: tuple[np.ndarray, int, int]) -> np.ndarray:
        grid, rows, columns = parts
        return np.kron(grid, np.ones((rows, columns), np.int32))

    small = arrays(np.int32, st.tuples(*[st.integers(1, 6)] * 2), elements=values, fill=values)
    return st.one_of(noise, st.tuples(small, *[st.integers(1, 7)] * 2).map(blocks))


MASKS = labels_of(2).map(lambda labels: labels > 0)


def pictures(channels: int | None = 3, dtype: type = np.uint8) -> st.SearchStrategy[np.ndarray]:
    """Noise (H, W) or (H, W, C)."""
    shapes = SIZES if channels is None else SIZES.map(lambda size: (*size, channels))
    return arrays(dtype, shapes)
