"""Tables of pictures and captions: TSV and CSV, and parquet.

A TSV or CSV is read whole; several lines of one picture become one row with several captions.
Of parquet only the metadata is read beforehand, and a row of the table is a row of the source.
"""

from __future__ import annotations

import csv
import logging
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from io import TextIOWrapper
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa

from ovseg.data.captions.rows import ImageRow, LazyRows, RowList, relative_to
from ovseg.readers.files import open_regular
from ovseg.readers.tables import ParquetTable

__all__ = ["CAPTION_COLUMNS", "IMAGE_COLUMNS", "ParquetPiece", "read_table"]

IMAGE_COLUMNS = (
    "filepath", "image", "image_path", "file_name", "filename", "path", "jpg", "png", "img",
    "image_bytes", "url",
)  # fmt: skip
"""Names of the column with the picture, the first that is there is taken."""

CAPTION_COLUMNS = ("captions", "caption", "title", "text", "txt", "alt_text")
"""Names of the column with the caption or captions, the first that is there is taken."""

_ID_COLUMNS = ("image_id", "id", "key", "__key__")
_MAX_LINES = 50
_MAX_FIELD_SIZE = 10_000_000

logger = logging.getLogger(__name__)


def read_table(path: Path, image_root: Path) -> RowList:
    """Read a TSV or CSV with a header.

    A quoted field may run over lines. A quote that is never closed is taken as a character, so
    that it cannot swallow the lines after it; a line with too few fields is kept, its picture
    cannot be read.

    Args:
        path: the table; a `.csv` with tabs in its header is read as a TSV, as open_clip's are.
        image_root: folder that relative paths lie in.

    Returns:
        One row a picture, in the order of first mention.

    Raises:
        ValueError: the header lacks a column for pictures or one for captions.
    """
    with (
        TextIOWrapper(open_regular(path), encoding="utf-8-sig", errors="replace") as stream,
        _long_fields(),
    ):
        header_line = stream.readline()
        separator = "\t" if "\t" in header_line else ","
        header = [name.strip() for name in next(csv.reader([header_line], delimiter=separator), [])]
        image = _choose(path, header, IMAGE_COLUMNS, "pictures")
        caption = _choose(path, header, CAPTION_COLUMNS, "captions")
        name = next((name for name in _ID_COLUMNS if name in header), None)
        columns = [header.index(image), header.index(caption), header.index(name or image)]
        found: dict[tuple[str, str], list[str | None]] = {}
        for number, fields in _records(stream, separator, len(header)):
            if len(fields) <= max(columns):
                logger.warning("%s, line %d: too few fields", path, number)
                found[f"{path.name}:{number}", ""] = [None]
                continue
            uri, text, key = (fields[column] for column in columns)
            key = key if name else uri
            found.setdefault((key or f"{path.name}:{number}", uri.strip()), []).append(text)
    rows = (ImageRow(key, _inside(uri, image_root), tuple(t)) for (key, uri), t in found.items())
    return RowList(tuple(rows))


def _choose(path: Path, header: Sequence[str], names: Sequence[str], what: str) -> str:
    for name in names:
        if name in header:
            return name
    raise ValueError(
        f"{path}: expected a column for {what}, one of {list(names)}; it has {list(header)}. "
        "Rename the column"
    )


def _inside(uri: str, image_root: Path) -> str:
    """Write absolute paths as seen from the root, so that records do not depend on the place."""
    if uri.startswith("/"):
        return relative_to(Path(uri), image_root)
    return uri


@contextmanager
def _long_fields() -> Iterator[None]:
    """Let fields be longer than the csv module's limit, which holds for the whole process."""
    previous = csv.field_size_limit(_MAX_FIELD_SIZE)
    try:
        yield
    finally:
        csv.field_size_limit(previous)


def _records(
    stream: TextIO, separator: str, number_of_fields: int
) -> Iterator[tuple[int, list[str]]]:
    """Give line number and fields of each record."""
    waiting: deque[str] = deque()
    number = 2  # the header is line 1
    while True:
        lines = [waiting.popleft() if waiting else stream.readline()]
        taken = 1
        while _in_quotes(lines, separator) and len(lines) < _MAX_LINES:
            lines.append(waiting.popleft() if waiting else stream.readline())
            if not lines[-1]:
                break
        if not lines[0]:
            return
        fields = _fields("".join(lines), separator)
        if fields is None or (len(lines) > 1 and len(fields) != number_of_fields):
            fields = lines[0].rstrip("\n").split(separator)
            waiting.extendleft(reversed([line for line in lines[1:] if line]))
        else:
            taken = len(lines)
        if fields:
            yield number, fields
        number += taken


def _in_quotes(lines: Sequence[str], separator: str) -> bool:
    """Say whether a field that began with a quote is not closed yet."""
    text = "".join(lines)
    return (text.startswith('"') or f'{separator}"' in text) and text.count('"') % 2 == 1


def _fields(text: str, separator: str) -> list[str] | None:
    """Take a record apart; None if its quotes make no sense."""
    try:
        return next(csv.reader([text.rstrip("\n")], delimiter=separator, strict=True), [])
    except csv.Error:
        return None


class ParquetPiece:
    """One parquet table.

    Args:
        path: a table with a column for the picture (bytes, a struct of bytes and path, or a path)
            and one for the caption or a list of captions.
        image_root: folder that addresses are relative to.

    Raises:
        ValueError: not a parquet file, or a column is missing.
    """

    def __init__(self, path: Path, image_root: Path) -> None:
        self._path = path
        self._root = image_root
        try:
            with ParquetTable(path) as table:
                schema, self._count = table.schema, len(table)
        except OSError as error:
            raise ValueError(f"{path}: not a readable parquet file ({error})") from error
        image = _choose(path, schema.names, IMAGE_COLUMNS, "pictures")
        caption = _choose(path, schema.names, CAPTION_COLUMNS, "captions")
        name = next((name for name in _ID_COLUMNS if name in schema.names), None)
        self._columns = (image, caption, name)
        kind = schema.field(image).type
        self._is_path = pa.types.is_string(kind) or pa.types.is_large_string(kind)

    def __len__(self) -> int:
        return self._count

    def rows(self, start: int, stop: int) -> Sequence[ImageRow]:
        """Give the rows from `start` up to `stop`, read on first use."""
        load = partial(
            _load, self._path, self._root, self._columns, self._is_path, range(start, stop)
        )
        return LazyRows(load, stop - start)


def _load(
    path: Path,
    image_root: Path,
    columns: tuple[str, str, str | None],
    is_path: bool,
    numbers: range,
) -> list[ImageRow]:
    """Read rows of a table; pictures kept as bytes stay where they are."""
    image, caption, name = columns
    uri = relative_to(path, image_root)
    wanted = [caption, *([name] if name else []), *([image] if is_path else [])]
    rows = []
    for number, values in _read_rows(path, list(dict.fromkeys(wanted)), numbers):
        if values is None:
            # Who reads the picture at this address is told what is wrong with the table.
            rows.append(ImageRow(f"{uri}#damaged@{number}", f"{uri}#{caption}@{number}", ()))
            continue
        if is_path:
            place = _inside(values[image] or "", image_root)
        else:
            place = f"{uri}#{image}@{number}"
        found = values[caption]
        listed = found if isinstance(found, list) else [found]
        captions = tuple(text if isinstance(text, str) else None for text in listed)
        key = values[name] if name else None
        stem = uri.removesuffix(".parquet")
        rows.append(ImageRow(f"{stem}/{number if key is None else key}", place, captions))
    return rows


def _read_rows(
    path: Path, columns: list[str], numbers: range
) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """Give number and values of each row; None for those of a damaged part."""
    with ParquetTable(path) as table:
        first = 0
        for group, count in enumerate(table.rows_of_groups):
            start, stop = max(numbers.start, first), min(numbers.stop, first + count)
            if start < stop:
                try:
                    part = table.read_group(group, columns).slice(start - first, stop - start)
                    found: list[Any] = part.to_pylist()
                except ValueError as error:
                    logger.warning("%s", error)
                    found = [None] * (stop - start)
                yield from enumerate(found, start)
            first += count
