"""Structs in Thrift's compact protocol, as the parquet format writes its headers and its footer.

Source: https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md
"""

from __future__ import annotations

from typing import Any, TypeAlias

__all__ = ["Struct", "read_struct"]

Struct: TypeAlias = dict[int, Any]
"""Values by the numbers of their fields."""

_DEEPEST = 16


def read_struct(data: bytes) -> tuple[Struct, int]:
    """Read a struct.

    Args:
        data: begins with it.

    Returns:
        Its fields: whole numbers, truth values, bytes, lists (sets, too) and structs; numbers with
        a point and maps are passed over as None. And where it ends.

    Raises:
        ValueError, IndexError: it makes no sense, or does not end.
    """
    reader = _Reader(data)
    return reader.struct(0), reader.place


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self.place = 0

    def struct(self, depth: int) -> Struct:
        found: Struct = {}
        field = 0
        while (head := self._byte()) != 0:
            step = head >> 4
            field = field + step if step else self._whole()
            kind = head & 15
            found[field] = kind == 1 if kind in (1, 2) else self._value(kind, depth)
        return found

    def _value(self, kind: int, depth: int) -> Any:
        if depth > _DEEPEST:
            raise ValueError("structs or lists nested too deeply")
        value: Any = None
        if kind in (1, 2, 3):  # truth values have a byte in lists alone
            value = self._byte()
        elif kind in (4, 5, 6):
            value = self._whole()
        elif kind == 7:
            self.place += 8
        elif kind == 8:
            length = self._varint()
            value = self._data[self.place : self.place + length]
            self.place += length
        elif kind in (9, 10):
            value = self._list(depth)
        elif kind == 11:
            self._pass_over_map(depth)
        elif kind == 12:
            value = self.struct(depth + 1)
        else:
            raise ValueError(f"a field of kind {kind}")
        if self.place > len(self._data):
            raise ValueError("a header that does not end")
        return value

    def _list(self, depth: int) -> list[Any]:
        head = self._byte()
        count = head >> 4 if head >> 4 < 15 else self._varint()
        if count > len(self._data):  # an entry takes a byte at least
            raise ValueError(f"a list of {count} entries")
        return [self._value(head & 15, depth + 1) for _ in range(count)]

    def _pass_over_map(self, depth: int) -> None:
        count = self._varint()
        if count > len(self._data):
            raise ValueError(f"a map of {count} entries")
        kinds = self._byte() if count else 0
        for _ in range(count):
            self._value(kinds >> 4, depth + 1)
            self._value(kinds & 15, depth + 1)

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
