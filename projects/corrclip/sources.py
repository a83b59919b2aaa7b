"""The pictures that a command goes through: a registered dataset, a folder, or a caption source."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ovseg.d2.data import DatasetCatalog
from ovseg.data.captions.sources import ImageRow, Shard, open_source
from ovseg.data.catalog import register_builtin
from ovseg.data.dataset_yaml import resolve_dataset

__all__ = ["Pictures", "cut", "open_pictures", "sha256_of_rows"]


@dataclass(frozen=True)
class Pictures:
    """Pictures in the order of their names.

    Attributes:
        kind: the form that they are kept in.
        rows: each name once.
        image_root: folder that relative addresses lie in.
    """

    kind: str
    rows: tuple[ImageRow, ...]
    image_root: Path


def open_pictures(
    source: str | Sequence[str], kind: str = "auto", image_root: str | Path | None = None
) -> Pictures:
    """List the pictures of a source; none is read.

    Args:
        source: the name of a registered dataset or the path of a dataset YAML; or whatever
            `ovseg.data.captions.sources.open_source` takes, captions or none.
        kind: see `open_source`; not asked for datasets.
        image_root: likewise.

    Returns:
        The pictures; of several with one name the first.

    Raises:
        FileNotFoundError: there is no such source.
        ValueError: it is not what it should be, or holds no picture.
    """
    first = source if isinstance(source, str) else source[0]
    register_builtin()
    if first.lower().endswith((".yaml", ".yml")) or first in DatasetCatalog.list():
        records = DatasetCatalog.get(resolve_dataset(first))
        rows = [ImageRow(str(r["image_id"]), str(r["file_name"]), ()) for r in records]
        kind, root = "dataset", Path()
    else:
        opened = open_source(source, kind, image_root)
        rows = [ImageRow(row.image_id, row.uri, ()) for row in opened]
        kind, root = opened.kind, Path(opened.image_root)
    by_name: dict[str, ImageRow] = {}
    for row in rows:
        by_name.setdefault(row.image_id, row)
    if not by_name:
        raise ValueError(f"{first}: expected at least one picture, got none")
    return Pictures(kind, tuple(by_name[name] for name in sorted(by_name)), root)


def cut(rows: Sequence[ImageRow], size: int, *, first: int = 0) -> list[Shard]:
    """Cut pictures into shards.

    Args:
        rows: the pictures.
        size: most in a shard.
        first: number of the first shard.

    Returns:
        The shards.

    Raises:
        ValueError: a size below 1.
    """
    if size < 1:
        raise ValueError(f"a shard needs a size of at least 1, got {size}")
    starts = range(0, len(rows), size)
    return [Shard(first + n, tuple(rows[at : at + size])) for n, at in enumerate(starts)]


def sha256_of_rows(rows: Sequence[ImageRow]) -> str:
    """Hash the names of pictures, in their order; where they lie does not count."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(f"{row.image_id}\n".encode("utf-8", "backslashreplace"))
    return digest.hexdigest()
