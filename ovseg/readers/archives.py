"""Uncompressed tars: their headers one after the other, and members by their place.

`tarfile` believes headers: a negative size sends it back in circles, and a long name of some
gigabytes is read. Here every header has to lie behind the last one, within the file.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from ovseg.readers.files import open_regular
from ovseg.readers.limits import require_within

__all__ = ["ArchiveError", "is_plain_file", "read_slice", "tar_members"]

# Of what is read of a header: names and extended attributes.
_HEADER_BYTES = 1_000_000


class ArchiveError(ValueError):
    """A tar that is damaged or not to be trusted, from some place on."""


def tar_members(
    stream: BinaryIO, name: str | os.PathLike[str]
) -> Iterator[tuple[tarfile.TarInfo, int]]:
    """Go through the headers of an uncompressed tar.

    Args:
        stream: open file, at a header.
        name: what to call it in an error.

    Yields:
        The members, in order, each with the place of the next header; one whose bytes are not all
        there is the last.

    Raises:
        ArchiveError: the headers make no sense from here on, or the tar ends within a member.
    """
    size = os.fstat(stream.fileno()).st_size
    last = stream.tell()
    try:
        with tarfile.open(fileobj=_Headers(stream), mode="r:") as tar:
            count = 0
            while (member := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # a tar may have millions
                count += 1
                require_within("archive_members", count, of=os.fspath(name))
                if member.size < 0 or member.offset < last or tar.offset <= member.offset:
                    raise ArchiveError(
                        f"{name}: {member.name!r} at {member.offset} claims {member.size} bytes, "
                        f"and the next header is to be at {tar.offset}"
                    )
                last = tar.offset
                yield member, min(last, size)
                if is_plain_file(member) and member.offset_data + member.size > size:
                    raise ArchiveError(f"{name}: the tar ends within {member.name!r}")
    except ArchiveError:
        raise
    except Exception as error:  # tarfile raises anything on damaged headers
        raise ArchiveError(f"{name}: not a usable tar: {error or type(error).__name__}") from error


def is_plain_file(member: tarfile.TarInfo) -> bool:
    """Whether a member's bytes lie in the tar as they are: no link, no folder, without holes."""
    return member.isreg() and not member.issparse()


def read_slice(path: str | os.PathLike[str], offset: int, size: int) -> bytes:
    """Read some bytes of a file.

    Args:
        path: the file.
        offset: where they begin.
        size: how many.

    Returns:
        The bytes.

    Raises:
        OSError: the file cannot be read.
        ValueError: it ends before, or they are more than the limit `member_bytes`.
    """
    with open_regular(path) as stream:
        there = max(os.fstat(stream.fileno()).st_size - offset, 0)
        if offset < 0 or size < 0 or size > there:
            raise ValueError(f"the tar ends after {there} of the member's {size} bytes")
        require_within("member_bytes", size, of=f"a member of {Path(path).name}")
        stream.seek(offset)
        return stream.read(size)


class _Headers:
    """What `tarfile` sees of a file: as much as headers need."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def read(self, size: int = -1) -> bytes:
        """Read no more than a header can be."""
        if not 0 <= size <= _HEADER_BYTES:
            raise ArchiveError(f"{getattr(self._stream, 'name', 'tar')}: a header of {size} bytes")
        return self._stream.read(size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
