"""Parquet tables: the footer says how large a column is, and is held against limits first."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ovseg.readers.files import open_regular, require_regular
from ovseg.readers.limits import LimitError, require_within
from ovseg.readers.parquet_pages import ColumnPages, column_pages, page_totals

__all__ = ["ParquetTable", "TableError", "read_parquet"]

StrPath = str | os.PathLike[str]


class TableError(ValueError):
    """A table that is damaged or not to be trusted; the text names the file and the reason."""


class ParquetTable:
    """A parquet table that is open; a context manager.

    Args:
        path: the file.

    Attributes:
        names: of its columns.
        schema: of pyarrow.
        rows_of_groups: number of rows of each row group.

    Raises:
        FileNotFoundError: there is no such file.
        TableError: it is no parquet table.
        LimitError: a row group has more rows than the limit.
    """

    def __init__(self, path: StrPath) -> None:
        self._path = os.fspath(path)
        require_regular(path)
        try:
            self._file = pq.ParquetFile(path)
        except Exception as error:  # pyarrow raises many kinds on damaged files
            raise TableError(f"{path}: not a readable parquet file ({error})") from error
        try:
            self.schema = self._file.schema_arrow
            metadata = self._file.metadata
            groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
            self.rows_of_groups = [group.num_rows for group in groups]
            if min(self.rows_of_groups, default=0) < 0:
                raise TableError(f"{path}: not a readable parquet file (negative number of rows)")
            for rows in self.rows_of_groups:
                require_within("table_rows", rows, of=self._path)
        except BaseException:
            self._file.close()
            raise
        self.names: list[str] = self.schema.names

    def __len__(self) -> int:
        return sum(self.rows_of_groups)

    def __enter__(self) -> ParquetTable:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def read_group(self, index: int, columns: Sequence[str]) -> pa.Table:
        """Read columns of a row group.

        Args:
            index: number of the row group.
            columns: names of columns.

        Returns:
            The columns, all rows of the group.

        Raises:
            TableError: a page is damaged, or rows are missing.
            LimitError: a column is larger than the limit, as the footer says.
        """
        try:
            for column in column_pages(self._path)[index]:
                if column.path[0] in columns:
                    name = f"{self._path}: {'.'.join(column.path)}"
                    require_within("table_bytes", column.uncompressed, of=name)
                    require_within("table_rows", column.values, of=name)
                    self._check_pages(column, name)
            table = self._file.read_row_group(index, columns=list(columns))
            if len(table) != self.rows_of_groups[index]:
                raise TableError(
                    f"{self._path}: row group {index} holds {len(table)} rows, the table says "
                    f"{self.rows_of_groups[index]}"
                )
            return table
        except (LimitError, TableError):
            raise
        except Exception as error:  # as above; also a page whose compression is damaged
            raise TableError(
                f"{self._path}: row group {index} cannot be read: {error or type(error).__name__}"
            ) from error

    def _check_pages(self, column: ColumnPages, name: str) -> None:
        """Hold the pages of a column against the footer: a page may claim gigabytes of its own."""
        size = Path(self._path).stat().st_size
        if column.start < 0 or not 0 <= column.size <= size - column.start:
            raise TableError(f"{name}: its pages lie outside of the file")
        with open_regular(self._path) as file:
            try:
                rows, uncompressed = page_totals(file, column.start, column.size)
            except (ValueError, IndexError, TypeError, AttributeError) as error:
                raise TableError(f"{name}: its pages are damaged: {error}") from error
        # Writers differ in whether headers of pages count.
        if uncompressed > column.uncompressed or rows > column.values:
            raise TableError(
                f"{name}: its pages claim {rows} values in {uncompressed} bytes, the table "
                f"{column.values} in {column.uncompressed}"
            )

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Read columns of all rows; see `read_group`."""
        chosen = self.names if columns is None else list(columns)
        groups = [self.read_group(index, chosen) for index in range(len(self.rows_of_groups))]
        if not groups:
            return self.schema.empty_table().select(chosen)
        return pa.concat_tables(groups)


def read_parquet(path: StrPath, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a parquet table.

    Args:
        path: the file.
        columns: names of columns; None takes all.

    Returns:
        The table.

    Raises:
        FileNotFoundError, TableError, LimitError: see `ParquetTable`.
    """
    with ParquetTable(path) as table:
        return table.read(columns)
