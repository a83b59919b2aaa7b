"""What Pillow does not tell about a picture without decoding it."""

from __future__ import annotations

import os
import struct
from typing import IO, BinaryIO

__all__ = ["has_late_chunks", "webp_size"]

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_WEBP_HEADER = 30


def webp_size(stream: BinaryIO) -> tuple[int, int]:
    """Read the size of a WebP from its header.

    Args:
        stream: a file of any kind, at its begin, where it stands afterwards.

    Returns:
        (width, height); (0, 0) for anything but a WebP.

    Source: RFC 9649, sections 2.5 to 2.7.
    """
    head = stream.read(_WEBP_HEADER).ljust(_WEBP_HEADER, b"\0")
    stream.seek(0)
    if head[:4] != b"RIFF" or head[8:12] != b"WEBP":
        return 0, 0
    if head[12:16] == b"VP8X":
        width, height = head[24:27], head[27:30]
        return int.from_bytes(width, "little") + 1, int.from_bytes(height, "little") + 1
    if head[12:16] == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = struct.unpack("<HH", head[26:30])
    return width & 0x3FFF, height & 0x3FFF


def has_late_chunks(stream: IO[bytes]) -> bool:
    """Look for texts or EXIF behind the pixels of a PNG; nothing is decoded for that.

    Args:
        stream: the file; it stands where it stood afterwards.

    Returns:
        Whether there are any.

    Source: PNG specification (W3C), section 5.
    """
    position = stream.tell()
    try:
        stream.seek(len(_PNG_SIGNATURE))
        pixels = False
        while len(head := stream.read(8)) == 8:
            length, kind = struct.unpack(">I4s", head)
            if kind == b"IEND":
                break
            if pixels and kind in (b"eXIf", b"iTXt", b"zTXt", b"tEXt"):
                return True
            pixels = pixels or kind == b"IDAT"
            stream.seek(length + 4, os.SEEK_CUR)
        return False
    finally:
        stream.seek(position)
