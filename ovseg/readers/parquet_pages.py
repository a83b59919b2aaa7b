"""What the pages of a parquet file say of themselves, read without decoding one.

The header of a page is a struct in Thrift's compact protocol, of which only some numbers matter.

Source: the Parquet format (https://parquet.apache.org/docs/file-format/data-pages), structs
`PageHeader`, `DataPageHeader` and `DataPageHeaderV2`, and Thrift's compact protocol.
"""

from __future__ import annotations

from typing import BinaryIO

__all__ = ["page_totals"]

_HEADER_BYTES = 1 << 16  # with statistics of long texts
_UNCOMPRESSED, _COMPRESSED, _V1, _V2 = 2, 3, 5, 8
_DEEPEST = 16


def page_totals(file: BinaryIO, start: int, size: int) -> tuple[int, int]:
    """Add up what the headers of the pages of a column say.

    Args:
        file: the table.
        start: where the first page begins.
        size: bytes of all pages, headers included.

    Returns:
        Number of values and bytes after decompression, of all pages.

    Raises:
        ValueError, IndexError: a header makes no sense.
    """
    values = uncompressed = 0
    end = start + size
    while start < end:
        file.seek(start)
        header = _Struct(file.read(min(_HEADER_BYTES, end - start)))
        numbers = header.numbers()
        page, kept = numbers.get((_UNCOMPRESSED,), -1), numbers.get((_COMPRESSED,), -1)
        if page < 0 or kept < 0 or start + header.place + kept > end:
            raise ValueError(f"a page of {kept} bytes, {page} after decompression, at {start}")
        uncompressed += page
        values += max(numbers.get((_V1, 1), 0), numbers.get((_V2, 1), 0))
        start += header.place + kept
    return values, uncompressed


class _Struct:
    """A struct in Thrift's compact protocol.

    Args:
        data: begins with it.

    Attributes:
        place: where reading stands; behind the struct in the end.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.place = 0

    def numbers(self, above: tuple[int, ...] = ()) -> dict[tuple[int, ...], int]:
        """The whole numbers of the struct and those within, by the numbers of their fields."""
        found: dict[tuple[int, ...], int] = {}
        field = 0
        while (head := self._byte()) != 0:
            step = head >> 4
            field = field + step if step else self._whole()
            self._value(head & 15, (*above, field), found)
        return found

    def _value(self, kind: int, key: tuple[int, ...], found: dict[tuple[int, ...], int]) -> None:
        if len(key) > _DEEPEST:
            raise ValueError("structs or lists nested too deeply")
        if kind in (4, 5, 6):
            found[key] = self._whole()
        elif kind == 3:
            self.place += 1
        elif kind == 7:
            self.place += 8
        elif kind == 8:
            length = self._varint()
            self.place += length
        elif kind in (9, 10):
            head = self._byte()
            count = head >> 4 if head >> 4 < 15 else self._varint()
            for _ in range(count):
                self._value(head & 15, (*key, 0), {})
                if head & 15 in (1, 2):
                    self.place += 1
        elif kind == 12:
            found.update(self.numbers(key))
        elif kind not in (1, 2):  # true and false have no bytes of their own
            raise ValueError(f"a field of kind {kind}")
        if self.place > len(self._data):
            raise ValueError("a header that does not end")

    def _byte(self) -> int:
        self.place += 1
        return self._data[self.place - 1]

    def _varint(self) -> int:
        value = shift = 0
        while (byte := self._byte()) & 0x80:
            value |= (byte & 0x7F) << shift
            shift += 7
            if shift > 63:
                raise ValueError("a number of too many bytes")
        return value | byte << shift

    def _whole(self) -> int:
        value = self._varint()
        return value >> 1 ^ -(value & 1)
