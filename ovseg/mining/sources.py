"""Pictures with captions, from the forms in which they are kept.

`open_source` reads COCO captions, tables (TSV, CSV), folders with `.txt` beside the pictures,
WebDataset tars and parquet. A source is cut into shards whose content depends on the source and
the shard size alone. Whatever is wrong with a row, the row is delivered; reading its picture
raises `SourceError`, so that the miner can set it aside with a reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

__all__ = ["ImageRow", "Shard", "Source"]


@dataclass(frozen=True)
class ImageRow:
    """One picture with its captions.

    Attributes:
        image_id: unique in its source.
        uri: where the picture is: a path (relative ones lie under the source's image root),
            `FILE.tar#MEMBER`, or `FILE.parquet#ROW`; empty if the source names none.
        captions: as found, None for null, possibly empty.
    """

    image_id: str
    uri: str
    captions: tuple[str | None, ...]


@dataclass(frozen=True)
class Shard:
    """A piece of work: small to send to a worker, and the same for any number of workers.

    Attributes:
        index: its number, from 0, in the source's order.
        rows: its pictures; a tuple, or a sequence that reads them from the source's files when
            first used. Its length is known without reading.
    """

    index: int
    rows: Sequence[ImageRow]


class Source(Protocol):
    """Something that delivers pictures with captions."""

    kind: str
    image_root: Path

    def __len__(self) -> int:
        """Number of pictures."""
        ...

    def shards(self, size: int) -> list[Shard]:
        """Cut the source into shards of at most `size` pictures; cheap, reads no picture."""
        ...
