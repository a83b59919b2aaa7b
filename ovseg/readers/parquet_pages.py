"""What a parquet file says of its columns and their pages, read without decoding one.

pyarrow gives the same numbers, but some damage to a footer ends the process inside it: an exception
of C++ that nobody catches.

Source: the Parquet format (https://parquet.apache.org/docs/file-format), structs `FileMetaData`,
`RowGroup`, `ColumnChunk`, `ColumnMetaData`, `PageHeader`, `DataPageHeader` and `DataPageHeaderV2`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from ovseg.readers.files import open_regular
from ovseg.readers.limits import require_within
from ovseg.readers.thrift import Struct, read_struct

__all__ = ["ColumnPages", "column_pages", "page_totals"]

_HEADER_BYTES = 1 << 16  # with statistics of long texts
_TAIL = 8  # length of the footer and "PAR1"


@dataclass(frozen=True)
class ColumnPages:
    """Where the pages of a column of a row group are, as the footer says.

    Attributes:
        path: names of the column and of what lies within it.
        values: how many.
        uncompressed: bytes after decompression.
        start: of the first page, bytes from the beginning of the file; 0 without pages.
        size: bytes of all pages, headers included.
    """

    path: tuple[str, ...]
    values: int
    uncompressed: int
    start: int
    size: int


def column_pages(path: str) -> list[list[ColumnPages]]:
    """Read the footer of a parquet file.

    Args:
        path: the file.

    Returns:
        Per row group its columns.

    Raises:
        OSError: it cannot be read.
        ValueError, IndexError, KeyError, TypeError, AttributeError: the footer makes no sense.
        LimitError: it is larger than the limit.
    """
    found = Path(path).stat()
    return _column_pages(path, found.st_size, found.st_mtime_ns)


@lru_cache(maxsize=8)
def _column_pages(path: str, size: int, _: int) -> list[list[ColumnPages]]:
    """As `column_pages`; row groups are read one by one, the footer once."""
    with open_regular(path) as file:
        file.seek(max(0, size - _TAIL))
        length = int.from_bytes(file.read(_TAIL)[:4], "little")
        require_within("document_bytes", length, of=path)
        if length > size - _TAIL:
            raise ValueError(f"a footer of {length} bytes in a file of {size}")
        file.seek(size - _TAIL - length)
        footer, _ = read_struct(file.read(length))
    return [[_pages_of(column[3]) for column in group[1]] for group in footer[4]]


def _pages_of(column: Struct) -> ColumnPages:
    # 0 is no place of a page: a column without rows may have none.
    places: list[Any] = [place for place in (column.get(9), column.get(11)) if place]
    return ColumnPages(
        path=tuple(part.decode("utf-8") for part in column[3]),
        values=column[5],
        uncompressed=column[6],
        start=min(places, default=0),
        size=column[7],
    )


def page_totals(file: BinaryIO, start: int, size: int) -> tuple[int, int]:
    """Add up what the headers of the pages of a column say.

    Args:
        file: the table.
        start: where the first page begins.
        size: bytes of all pages, headers included.

    Returns:
        Number of values and bytes after decompression, of all pages.

    Raises:
        ValueError, IndexError, TypeError, AttributeError: a header makes no sense.
    """
    values = uncompressed = 0
    end = start + size
    while start < end:
        file.seek(start)
        header, length = read_struct(file.read(min(_HEADER_BYTES, end - start)))
        page, kept = header.get(2, -1), header.get(3, -1)
        if page < 0 or kept < 0 or start + length + kept > end:
            raise ValueError(f"a page of {kept} bytes, {page} after decompression, at {start}")
        uncompressed += page
        values += max(header.get(5, {}).get(1, 0), header.get(8, {}).get(1, 0))
        start += length + kept
    return values, uncompressed
