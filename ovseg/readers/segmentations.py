"""Regions as COCO keeps them: polygons and run lengths.

pycocotools trusts its input: a coordinate that is no number ends the process, and run lengths that
do not fill the picture leave memory of somebody else in the mask. Here both are looked at first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from ovseg.readers.limits import require_within

__all__ = ["decode_polygons", "decode_run_lengths", "decode_segmentation"]

# A polygon may reach beyond its picture, by so many times the longer side at most.
_BEYOND = 10
# Five bits a character: seven hold any count of a picture with a thousand megapixels.
_MOST_CHARACTERS = 7


def decode_segmentation(segmentation: Any, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Turn any of COCO's forms of a region into a mask.

    Args:
        segmentation: a list of polygons, or run lengths, compressed or not.
        size: (height, width) of the picture.

    Returns:
        (H, W) bool.

    Raises:
        ValueError: none of these, or run lengths of another size or number of pixels.
    """
    if isinstance(segmentation, Mapping):
        given = segmentation.get("size")
        if not isinstance(given, Sequence) or list(given) != list(size):
            raise ValueError(f"expected size {size}, got {_sides(given)}")
        return decode_run_lengths(segmentation)
    return decode_polygons(segmentation, size)


def decode_run_lengths(encoded: Mapping[str, Any]) -> NDArray[np.bool_]:
    """Decode COCO's run lengths.

    Args:
        encoded: `size` (height, width) and `counts`: compressed as text or bytes, or a list.

    Returns:
        (H, W) bool.

    Raises:
        ValueError: something else, or the counts do not fill the picture exactly.
    """
    height, width = _size(encoded.get("size"))
    counts = encoded.get("counts")
    if isinstance(counts, str):
        counts = counts.encode("ascii", errors="replace")
    if isinstance(counts, bytes):
        runs = _uncompressed(counts)
    elif isinstance(counts, Sequence):
        runs = _whole_numbers(counts)
    else:
        raise ValueError(f"expected run lengths as text or a list, got {str(counts)[:60]!r}")
    pixels = height * width
    if (runs < 0).any() or (runs > pixels).any() or int(runs.sum()) != pixels:
        raise ValueError(
            f"expected run lengths that fill {height} x {width} pixels exactly, got "
            f"{str(runs.tolist())[:60]}; the mask is damaged, or of another picture"
        )
    if not pixels:
        return np.zeros((height, width), bool)
    if not isinstance(counts, bytes):
        given = {"size": [height, width], "counts": runs.tolist()}
        return coco_mask.decode(coco_mask.frPyObjects(given, height, width)).astype(bool)
    return coco_mask.decode({"size": [height, width], "counts": counts}).astype(bool)


def decode_polygons(polygons: Any, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Draw polygons, all of which belong to one region.

    Args:
        polygons: a list of lists x, y, x, y, ... in pixels.
        size: (height, width) of the picture.

    Returns:
        (H, W) bool.

    Raises:
        ValueError: something else, or a coordinate that is no number or far outside.
    """
    if not isinstance(polygons, list) or not polygons or not all(map(_is_polygon, polygons)):
        raise ValueError(
            "expected polygons of at least three points or run lengths (size, counts) as "
            f"segmentation, got {str(polygons)[:80]}"
        )
    height, width = _size(size)
    most = _BEYOND * max(height, width)
    outline = 0.0
    for polygon in polygons:
        points = np.array(polygon, dtype=np.float64).reshape(-1, 2)  # (N, 2)
        if not (np.abs(points) <= most).all():  # NaN is refused as well
            wrong = next(number for number in polygon if not abs(number) <= most)
            raise ValueError(
                f"expected polygons in or around the {height} x {width} pixels of the picture, "
                f"got the coordinate {wrong}"
            )
        outline += float(np.abs(points - np.roll(points, 1, axis=0)).max(axis=1).sum())
    require_within("outline_pixels", math.ceil(outline), of="polygons")
    return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))).astype(
        bool
    )


def _is_polygon(part: Any) -> bool:
    return (
        isinstance(part, list)
        and len(part) >= 6
        and len(part) % 2 == 0
        and all(isinstance(number, int | float) for number in part)
    )


def _size(size: Any) -> tuple[int, int]:
    sides = list(size) if isinstance(size, Sequence) and not isinstance(size, str) else []
    if len(sides) != 2 or not all(_is_count(side) for side in sides):
        raise ValueError(f"expected the size of a mask as height and width, got {size!r}")
    require_within("picture_pixels", sides[0] * sides[1], of="mask")
    return sides[0], sides[1]


def _sides(size: Any) -> Any:
    return tuple(size) if isinstance(size, list) else size


def _is_count(number: Any) -> bool:
    # NumPy's integers have `__index__` as well.
    return hasattr(number, "__index__") and not isinstance(number, bool) and number >= 0


def _whole_numbers(counts: Sequence[Any]) -> NDArray[np.int64]:
    if not all(_is_count(count) and count < 2**31 for count in counts):
        raise ValueError(f"expected whole numbers as run lengths, got {str(counts)[:60]}")
    return np.array(counts, dtype=np.int64)


def _uncompressed(counts: bytes) -> NDArray[np.int64]:
    """Take COCO's compressed run lengths apart, as `rleFrString` of its API does.

    Each number is a row of characters with five bits, the least first; from the third count on
    it is the difference to the count two before.
    """
    digits = np.frombuffer(counts, np.uint8).astype(np.int64) - 48
    if not digits.size:
        return digits
    lasts = np.flatnonzero((digits & 0x20) == 0)
    if (digits < 0).any() or (digits > 63).any() or not lasts.size or lasts[-1] != digits.size - 1:
        raise ValueError(f"expected COCO's run lengths, got {counts[:60]!r}")
    firsts = np.concatenate(([0], lasts[:-1] + 1))
    lengths = lasts - firsts + 1
    if lengths.max() > _MOST_CHARACTERS:
        raise ValueError(f"expected COCO's run lengths, got a count of {lengths.max()} characters")
    places = np.arange(digits.size) - np.repeat(firsts, lengths)
    values = np.add.reduceat((digits & 0x1F) << 5 * places, firsts)
    values -= np.where(digits[lasts] & 0x10, 1 << 5 * lengths, 0)
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values
