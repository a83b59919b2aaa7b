"""Resizing pictures and label maps to the sizes that networks take."""

from __future__ import annotations

import numpy as np
from PIL import Image

__all__ = ["resize", "resize_shortest_edge", "resized_shape"]


def resized_shape(height: int, width: int, short: int, max_size: int) -> tuple[int, int]:
    """Size after scaling the shorter edge to a length, with Detectron2's rounding.

    Args:
        height, width: present size, pixels.
        short: wanted length of the shorter edge; 0 keeps the size.
        max_size: longest allowed edge; it wins over `short`.

    Returns:
        (height, width), at least 1 each.
    """
    if short == 0:
        return height, width
    # The order of the float operations decides on ties, so it is Detectron2's.
    scale = short * 1.0 / min(height, width)
    if height < width:
        new_height, new_width = short * 1.0, scale * width
    else:
        new_height, new_width = scale * height, short * 1.0
    longest = max(new_height, new_width)
    if longest > max_size:
        shrink = max_size * 1.0 / longest
        new_height, new_width = new_height * shrink, new_width * shrink
    return max(1, int(new_height + 0.5)), max(1, int(new_width + 0.5))


def resize(array: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize a picture (bilinear, antialiased) or a label map (nearest).

    Args:
        array: (H, W, 3) uint8 RGB picture, or (H, W) integer label map.
        size: (height, width).

    Returns:
        Array of the same kind and dtype at the new size; the input itself if nothing changes.

    Raises:
        ValueError: another shape or dtype.
    """
    if array.shape[:2] == tuple(size):
        return array
    height, width = size
    if array.ndim == 3 and array.dtype == np.uint8:
        picture = Image.fromarray(array)
        return np.array(picture.resize((width, height), Image.Resampling.BILINEAR))
    if array.ndim == 2 and np.issubdtype(array.dtype, np.integer):
        labels = Image.fromarray(array.astype(np.int32))  # mode I
        return np.array(labels.resize((width, height), Image.Resampling.NEAREST), array.dtype)
    raise ValueError(
        f"expected an (H, W, 3) uint8 picture or an (H, W) integer label map, got shape "
        f"{array.shape} of {array.dtype}"
    )


def resize_shortest_edge(image: np.ndarray, short: int, max_size: int) -> np.ndarray:
    """Scale a picture so that its shorter edge has a given length.

    Args:
        image: (H, W, 3) uint8 RGB.
        short: length of the shorter edge, pixels; 0 keeps the size.
        max_size: longest allowed edge, pixels.

    Returns:
        (H', W', 3) uint8 RGB.
    """
    return resize(image, resized_shape(image.shape[0], image.shape[1], short, max_size))
