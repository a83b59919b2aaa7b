"""Noun-region pairs as parquet: one row a pair, with what is needed to filter later.

A row holds the region as run lengths and the picture's address, about half a kilobyte, instead
of a crop, about fifty; crops are made from it by `ovseg.mining.exports`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ovseg.readers.tables import ParquetTable
from ovseg.utils.files import atomic_path

__all__ = [
    "ORIGINS",
    "SCHEMA",
    "filter_records",
    "make_pair_id",
    "read_records",
    "records_table",
    "write_records",
]

SCHEMA = pa.schema(
    [
        pa.field("pair_id", pa.string(), nullable=False),
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("image_uri", pa.string(), nullable=False),
        pa.field("image_sha256", pa.string(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("caption", pa.string(), nullable=False),
        pa.field("caption_index", pa.int32(), nullable=False),
        pa.field("span_start", pa.int32(), nullable=False),
        pa.field("span_end", pa.int32(), nullable=False),
        pa.field("noun", pa.string(), nullable=False),
        pa.field("lemma", pa.string(), nullable=False),
        pa.field("rle_counts", pa.string(), nullable=False),
        pa.field("bbox", pa.list_(pa.int32(), 4), nullable=False),
        pa.field("area", pa.int32(), nullable=False),
        pa.field("clip_score", pa.float32(), nullable=False),
        pa.field("runner_up_score", pa.float32()),
        pa.field("margin", pa.float32()),
        pa.field("noun_probability", pa.float32(), nullable=False),
        pa.field("mutual", pa.bool_(), nullable=False),
        pa.field("proposal_model", pa.string(), nullable=False),
        pa.field("clip_model", pa.string(), nullable=False),
        pa.field("noun_tagger", pa.string(), nullable=False),
        pa.field("config_hash", pa.string(), nullable=False),
        pa.field("origin", pa.string(), nullable=False),
    ]
)
"""Columns of a record file.

`image_uri` is what `ovseg.data.captions.sources` reads; `image_sha256` is of the picture's file
bytes; `noun` is the text that CLIP was asked for, found at `caption[span_start:span_end]`;
`rle_counts` are COCO's compressed run lengths for a mask of (`height`, `width`); `bbox` is XYXY
pixels, right and lower edge excluded. `runner_up_score` and `margin` are null where a picture
has a single proposal; `noun_probability` is the softmax over the picture's nouns for the region;
`mutual` says that the region's best noun is this one. `origin` is "caption" or "label": a pair from
a label has the class's noun for its caption, of index -1, is mutual and has no runner-up.
"""

ORIGINS = ("caption", "label")

_DECIMALS = 4
_ROW_GROUP = 65536
_PART_FILES = "part-*.parquet"


def make_pair_id(
    image_sha256: str, caption: str, span: tuple[int, int], rle_counts: str, noun: str
) -> str:
    """Name a pair by its content.

    Args:
        image_sha256: hash of the picture's bytes.
        caption: the whole caption.
        span: first and one-past-last character of the noun in it.
        rle_counts: the region's run lengths.
        noun: the text given to CLIP.

    Returns:
        32 hexadecimal digits, evenly spread: sorting by them is a fair shuffle.
    """
    parts = (image_sha256, caption, f"{span[0]}:{span[1]}", rle_counts, noun)
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:32]


def records_table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Turn rows into a table, scores rounded to 4 decimals.

    Rounding makes the files of two runs equal although sums of floating-point numbers differ in
    the last digits from one batch size or machine to another.

    Args:
        rows: one mapping a pair, with exactly the columns of `SCHEMA`.

    Returns:
        A table of `SCHEMA`, rows in the given order.

    Raises:
        ValueError: a row lacks a column, has another one, or holds a value of the wrong type.
    """
    expected = set(SCHEMA.names)
    for number, row in enumerate(rows):
        if row.keys() != expected:
            raise ValueError(
                f"record {number}: expected the columns of SCHEMA, missing "
                f"{sorted(expected - row.keys())}, not known {sorted(row.keys() - expected)}"
            )
    columns = []
    for field in SCHEMA:
        values = [row[field.name] for row in rows]
        if pa.types.is_floating(field.type):
            values = [None if value is None else round(float(value), _DECIMALS) for value in values]
        try:
            column = pa.array(values, type=field.type)
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
            raise ValueError(f"column {field.name} expects {field.type}: {error}") from error
        if column.null_count and not field.nullable:
            raise ValueError(f"column {field.name}: expected a value in every record, got null")
        columns.append(column)
    return pa.Table.from_arrays(columns, schema=SCHEMA)


def write_records(path: str | Path, rows: Sequence[Mapping[str, Any]] | pa.Table) -> None:
    """Write records to one parquet file, atomically; the same rows give the same bytes.

    Args:
        path: the file to write or replace.
        rows: as `records_table` takes them, or a table of `SCHEMA`.

    Raises:
        ValueError: rows that do not fit `SCHEMA`.
    """
    table = rows if isinstance(rows, pa.Table) else records_table(rows)
    if not table.schema.equals(SCHEMA):
        raise ValueError(f"expected a table of SCHEMA, got the columns {table.schema.names}")
    with atomic_path(path) as temporary:
        pq.write_table(
            # Chunks would shape the pages; one chunk makes the bytes depend on the rows alone.
            table.combine_chunks(),
            temporary,
            compression="zstd",
            compression_level=3,
            row_group_size=_ROW_GROUP,
            version="2.6",
        )


def read_records(path: str | Path) -> pa.Table:
    """Read the records of a file, or of all parts in a folder in the order of their names.

    Args:
        path: a parquet file, a folder of `part-*.parquet`, or a miner's output folder, whose
            parts lie in `shards/`.

    Returns:
        A table of `SCHEMA`; records of before there were labels are of captions.

    Raises:
        FileNotFoundError: no such file, or no parts in the folder.
        ValueError: a file that is not parquet or lacks a column.
    """
    return pa.concat_tables([_read_part(part) for part in _parts(Path(path))])


def _parts(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    for folder in (path, path / "shards"):
        parts = sorted(folder.glob(_PART_FILES))
        if parts:
            return parts
    raise FileNotFoundError(
        f"{path}: expected a parquet file of records, or a folder with {_PART_FILES} in it or in "
        "its shards/; tools/mine_captions.py writes such a folder"
    )


def _read_part(path: Path) -> pa.Table:
    try:
        with ParquetTable(path) as file:
            table = file.read([name for name in SCHEMA.names if name in file.names])
    except OSError as error:
        raise ValueError(f"{path}: not a readable parquet file ({error})") from error
    if "origin" not in table.column_names:
        table = table.append_column("origin", pa.array([ORIGINS[0]] * len(table), pa.string()))
    missing = [name for name in SCHEMA.names if name not in table.column_names]
    if missing:
        raise ValueError(f"{path}: expected a file of noun-region pairs, it lacks {missing}")
    try:
        return table.select(SCHEMA.names).cast(SCHEMA)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise ValueError(f"{path}: its columns do not fit the records' schema: {error}") from error


def filter_records(
    table: pa.Table,
    *,
    min_score: float | None = None,
    min_margin: float | None = None,
    mutual: bool = False,
    min_count: int | None = None,
    max_count: int | None = None,
) -> pa.Table:
    """Keep the pairs that pass; what is kept does not depend on the order of the rows.

    Scores, margins and mutual choice say how sure a match with a caption is; the noun of a pair
    from a label is known, and such pairs pass them.
    The counts are taken over what the other conditions left, first `min_count`, then
    `max_count`, which keeps the pairs with the lowest `pair_id` of each noun.

    Args:
        table: records with the columns that the conditions name.
        min_score: lowest `clip_score`.
        min_margin: lowest `margin`; pairs of a picture with one proposal have none and go.
        mutual: keep only pairs whose region has no better noun.
        min_count: fewest pairs of a noun.
        max_count: most pairs of a noun.

    Returns:
        The remaining rows, in their order.
    """
    keep = np.ones(table.num_rows, dtype=bool)  # (P,)
    known = pc.equal(table["origin"], "label").to_numpy()  # (P,)
    if min_score is not None:
        keep &= known | (_column(table, "clip_score") >= np.float32(min_score))
    if min_margin is not None:
        lead = _column(table, "margin")  # null is NaN, never kept
        keep &= known | (lead >= np.float32(min_margin))
    if mutual:
        keep &= known | _column(table, "mutual")
    if min_count is not None or max_count is not None:
        _limit_counts(table, keep, min_count or 0, max_count)
    return table.filter(pa.array(keep))


def _column(table: pa.Table, name: str) -> np.ndarray:
    return table[name].to_numpy()


def _limit_counts(table: pa.Table, keep: np.ndarray, lowest: int, highest: int | None) -> None:
    """Clear `keep` (P,) where a noun has too few pairs left or the pair is beyond the most."""
    rows = np.flatnonzero(keep)  # (R,)
    codes = table["noun"].combine_chunks().dictionary_encode().indices.to_numpy()[rows]  # (R,)
    rank = np.zeros(len(rows), dtype=np.int64)
    if highest is not None:
        keys = pa.table({"noun": codes, "pair_id": table["pair_id"].take(rows)})
        ascending = [("noun", "ascending"), ("pair_id", "ascending")]
        by_noun = pc.sort_indices(keys, sort_keys=ascending).to_numpy()  # (R,)
        first = np.searchsorted(codes[by_noun], codes[by_noun], side="left")
        rank[by_noun] = np.arange(len(rows)) - first
    counts = np.bincount(codes, minlength=1)
    keep[rows] = counts[codes] >= lowest
    if highest is not None:
        keep[rows] &= rank < highest
