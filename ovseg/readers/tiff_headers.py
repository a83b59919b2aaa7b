"""What rasterio does not tell about a TIFF: the blocks of its masks."""

from __future__ import annotations

import struct
from typing import BinaryIO

__all__ = ["largest_mask_block"]

_SUBFILE, _WIDTH, _LENGTH, _ROWS, _TILE_WIDTH, _TILE_LENGTH = 254, 256, 257, 278, 322, 323
_WANTED = (_SUBFILE, _WIDTH, _LENGTH, _ROWS, _TILE_WIDTH, _TILE_LENGTH)
_IS_MASK = 4
_NUMBERS = {3: "H", 4: "I", 16: "Q"}  # types of entries
_MOST_DIRECTORIES = 1000


def largest_mask_block(stream: BinaryIO) -> int:
    """Find the largest tile or strip of a TIFF's transparency masks, by its directories.

    Args:
        stream: a TIFF or BigTIFF.

    Returns:
        Its pixels; 0 where there is no mask.

    Raises:
        ValueError: a directory is incomplete, or there are more than a thousand.

    Source: TIFF 6.0, section 2; BigTIFF's design by Aware Systems.
    """
    stream.seek(0)
    head = stream.read(16).ljust(16, b"\0")
    order = "<" if head[:2] == b"II" else ">"
    big = struct.unpack(f"{order}H", head[2:4])[0] == 43
    count, entry, step = ("Q", "HHQ8s", "Q") if big else ("H", "HHI4s", "I")
    [place] = struct.unpack(f"{order}{step}", head[8:16] if big else head[4:8])
    largest = 0
    for _ in range(_MOST_DIRECTORIES):
        if not place:
            return largest
        stream.seek(place)
        [entries] = _unpacked(stream, order + count)
        if entries > 1 << 16:
            raise ValueError(f"expected a directory of a TIFF, got one with {entries} entries")
        found: dict[int, int] = {}
        for _ in range(entries):
            tag, kind, number, value = _unpacked(stream, order + entry)
            if tag in _WANTED and kind in _NUMBERS and number == 1:
                [found[tag]] = struct.unpack_from(order + _NUMBERS[kind], value)
        [place] = _unpacked(stream, order + step)
        if found.get(_SUBFILE, 0) & _IS_MASK:
            height, width = found.get(_LENGTH, 0), found.get(_WIDTH, 0)
            rows = found.get(_TILE_LENGTH, min(found.get(_ROWS, height), height))
            largest = max(largest, rows * found.get(_TILE_WIDTH, width))
    raise ValueError(f"expected at most {_MOST_DIRECTORIES} directories in a TIFF, got more")


def _unpacked(stream: BinaryIO, form: str) -> tuple:
    data = stream.read(struct.calcsize(form))
    if len(data) < struct.calcsize(form):
        raise ValueError("expected a whole directory of a TIFF, got a part; the file is cut off")
    return struct.unpack(form, data)
