"""Masks as COCO's run lengths, and overlapping masks as one map of regions."""

from __future__ import annotations

from typing import TypedDict

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from ovseg.readers.segmentations import decode_run_lengths

__all__ = ["RunLength", "decode_rle", "encode_rle", "paint_by_area", "paint_by_score"]


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

    Raises:
        ValueError: the counts do not fill the mask exactly.
    """
    return decode_run_lengths(encoded)


def paint_by_area(masks: NDArray[np.bool_], *, larger_on_top: bool = True) -> NDArray[np.int32]:
    """Paint masks into one map in the order of their areas.

    Args:
        masks: (Q, H, W) bool; they may overlap.
        larger_on_top: larger masks cover smaller ones; False for the other way round.

    Returns:
        (H, W) int32: 0 where there is no mask; the others are numbered from 1 in the order in which
        they are painted, those of one area in the given order.

    Raises:
        ValueError: masks of another shape or dtype.
    """
    _check_masks(masks)
    areas = masks.sum(axis=(1, 2))
    return _paint(masks, np.argsort(areas if larger_on_top else -areas, kind="stable"))


def paint_by_score(
    masks: NDArray[np.bool_], scores: NDArray[np.floating], *, min_score: float = 0.5
) -> NDArray[np.int32]:
    """Paint masks into one map, the least certain first, so that more certain ones cover them.

    Args:
        masks: (Q, H, W) bool; they may overlap.
        scores: (Q,) float.
        min_score: masks below it are left out.

    Returns:
        (H, W) int32: 0 where there is no mask; the masks that are kept are numbered from 1 in the
        given order.

    Raises:
        ValueError: masks of another shape or dtype, or not one score for each.
    """
    _check_masks(masks)
    if scores.shape != masks.shape[:1]:
        raise ValueError(f"expected a score for each of {len(masks)} masks, got {scores.shape}")
    kept = scores >= min_score
    order = np.argsort(scores[kept], kind="stable")
    return _paint(masks[kept], order, ids=order + 1)


def _check_masks(masks: NDArray[np.bool_]) -> None:
    if masks.ndim != 3 or masks.dtype != np.bool_:
        raise ValueError(f"expected masks (Q, H, W) bool, got {masks.dtype} of {masks.shape}")


def _paint(
    masks: NDArray[np.bool_], order: NDArray[np.intp], ids: NDArray[np.intp] | None = None
) -> NDArray[np.int32]:
    """Paint masks in an order, with the numbers of the order or given ones."""
    regions = np.zeros(masks.shape[1:], dtype=np.int32)  # (H, W)
    for place, index in enumerate(order.tolist()):
        regions[masks[index]] = place + 1 if ids is None else ids[place]
    return regions
