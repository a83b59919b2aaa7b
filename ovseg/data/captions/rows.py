"""What a source of captioned pictures consists of: rows, pieces, shards."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, overload

__all__ = ["ImageRow", "LazyRows", "Piece", "RowList", "Shard", "Source", "relative_to"]


@dataclass(frozen=True)
class ImageRow:
    """One picture with its captions.

    Attributes:
        image_id: unique in its source.
        uri: where the picture is, as `ovseg.utils.image_store` writes it; empty if the source
            names none.
        captions: as found, None for null, possibly none at all.
    """

    image_id: str
    uri: str
    captions: tuple[str | None, ...]


class LazyRows(Sequence[ImageRow]):
    """Rows that are read when first used; what is sent to a worker is how to read them.

    Args:
        load: gives the rows; can be pickled.
        count: their number.
    """

    def __init__(self, load: Callable[[], Sequence[ImageRow]], count: int) -> None:
        self._load = load
        self._count = count
        self._rows: tuple[ImageRow, ...] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return LazyRows, (self._load, self._count)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[ImageRow]:
        return iter(self._loaded())

    @overload
    def __getitem__(self, index: int) -> ImageRow: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[ImageRow, ...]: ...
    def __getitem__(self, index: int | slice) -> ImageRow | tuple[ImageRow, ...]:
        return self._loaded()[index]

    def _loaded(self) -> tuple[ImageRow, ...]:
        if self._rows is None:
            self._rows = tuple(self._load())
            if len(self._rows) != self._count:
                raise RuntimeError(
                    f"the source changed while it was read: a shard had {self._count} rows when "
                    f"the source was opened and has {len(self._rows)} now; start again"
                )
        return self._rows


@dataclass(frozen=True)
class Shard:
    """A piece of work: small to send to a worker, and the same for any number of workers.

    Attributes:
        index: its number, from 0, in the source's order.
        rows: its pictures; a tuple, or `LazyRows`, whose length is known without reading.
    """

    index: int
    rows: Sequence[ImageRow]


class Piece(Protocol):
    """A part of a source that shards do not cross, for instance one tar."""

    def __len__(self) -> int: ...

    def rows(self, start: int, stop: int) -> Sequence[ImageRow]:
        """Give the rows from `start` up to `stop`, read or still to be read."""
        ...


@dataclass(frozen=True)
class RowList:
    """A piece that is in memory."""

    content: tuple[ImageRow, ...]

    def __len__(self) -> int:
        return len(self.content)

    def rows(self, start: int, stop: int) -> Sequence[ImageRow]:
        """Give the rows from `start` up to `stop`."""
        return self.content[start:stop]


class Source:
    """Pictures with captions in a fixed order.

    Args:
        kind: the form they are kept in.
        image_root: folder that relative addresses lie in.
        pieces: parts that shards do not cross.
    """

    def __init__(self, *, kind: str, image_root: Path, pieces: Sequence[Piece]) -> None:
        self.kind = kind
        self.image_root = image_root
        self._pieces = list(pieces)

    def __len__(self) -> int:
        return sum(len(piece) for piece in self._pieces)

    def __iter__(self) -> Iterator[ImageRow]:
        for shard in self.shards(1000):
            yield from shard.rows

    def shards(self, size: int) -> list[Shard]:
        """Cut the source into shards; their content depends on source and size alone.

        Args:
            size: most pictures in a shard.

        Returns:
            All shards; no picture is read.

        Raises:
            ValueError: a size below 1.
        """
        if size < 1:
            raise ValueError(f"a shard needs a size of at least 1, got {size}")
        found = [
            piece.rows(start, min(start + size, len(piece)))
            for piece in self._pieces
            for start in range(0, len(piece), size)
        ]
        return [Shard(index, rows) for index, rows in enumerate(found)]


def relative_to(path: Path, root: Path) -> str:
    """Write a path as seen from a folder, with slashes; absolute if it lies elsewhere."""
    # Links are not followed: a folder that is one still holds its pictures.
    absolute, base = path.absolute(), root.absolute()
    return (absolute.relative_to(base) if absolute.is_relative_to(base) else absolute).as_posix()
