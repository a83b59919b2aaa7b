"""Writing of pictures and label maps; what reads them is `ovseg.readers.pictures`."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin

from ovseg.utils.files import atomic_path

__all__ = ["write_png"]


def write_png(path: str | PathLike[str], array: np.ndarray, *, comment: str | None = None) -> None:
    """Write a picture or label map as PNG, atomically.

    Args:
        path: target; its folder is made if needed.
        array: (H, W) uint8 or uint16, or (H, W, 3) uint8 RGB.
        comment: text for the file's header.

    Raises:
        ValueError: another dtype or shape.
    """
    grey = array.ndim == 2 and array.dtype in (np.uint8, np.uint16)
    colour = array.ndim == 3 and array.shape[2] == 3 and array.dtype == np.uint8
    if not (grey or colour) or array.size == 0:
        raise ValueError(
            f"expected a non-empty (H, W) array of uint8 or uint16 or (H, W, 3) of uint8, got "
            f"shape {array.shape} of {array.dtype}; convert with array.astype(np.uint8)"
        )
    header = PngImagePlugin.PngInfo()
    if comment:
        header.add_text("Comment", comment)
    with atomic_path(Path(path)) as temporary:
        Image.fromarray(np.ascontiguousarray(array)).save(temporary, format="PNG", pnginfo=header)
