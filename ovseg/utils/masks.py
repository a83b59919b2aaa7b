"""Run-length encoding of masks as COCO writes it."""

from __future__ import annotations

from typing import TypedDict

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

__all__ = ["RunLength", "decode_rle", "encode_rle"]


class RunLength(TypedDict):
    """A mask as COCO's compressed run lengths; it can be written to JSON as it is."""

    size: list[int]  # height, width
    counts: str


def encode_rle(mask: NDArray[np.bool_]) -> RunLength:
    """Encode a mask.

    Args:
        mask: (H, W) bool.

    Returns:
        COCO's dict of `size` [H, W] and `counts` as text.

    Raises:
        ValueError: if the mask is not a bool array of two dimensions.
    """
    if mask.ndim != 2 or mask.dtype != np.bool_:
        raise ValueError(f"mask must be (H, W) bool, got {mask.dtype} of shape {mask.shape}")
    encoded = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": [int(side) for side in encoded["size"]], "counts": encoded["counts"].decode()}


def decode_rle(encoded: RunLength) -> NDArray[np.bool_]:
    """Decode a mask.

    Args:
        encoded: what `encode_rle` returns, or COCO's annotation with `counts` as text.

    Returns:
        (H, W) bool.
    """
    counts = encoded["counts"].encode()
    return coco_mask.decode({"size": encoded["size"], "counts": counts}).astype(np.bool_)
