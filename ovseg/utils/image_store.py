"""Pictures by their address: files, members of tars, and cells of parquet tables.

An address ("URI") is text that a record can keep:

- `path/to/picture.jpg`
- `path/to/shard.tar#NAME@OFFSET+SIZE`: a member of an uncompressed tar by its place in the file,
  so that it is read without going through the tar;
- `path/to/table.parquet#COLUMN@ROW`: bytes, or a struct of bytes and path as Hugging Face's
  datasets have it.

Relative paths lie under the store's root.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ovseg.readers.archives import read_slice
from ovseg.readers.files import read_bytes
from ovseg.readers.pictures import ImageError, decode_image
from ovseg.utils.files import reason_of

__all__ = ["ImageStore"]

_IN_TAR = re.compile(r"(?P<file>.+\.tar)#(?P<name>.*)@(?P<offset>\d+)\+(?P<size>\d+)", re.DOTALL)
_IN_PARQUET = re.compile(r"(?P<file>.+\.parquet)#(?P<column>[^#]+)@(?P<row>\d+)")
_WEB = re.compile(r"(?:https?|ftp|s3|gs)://", re.IGNORECASE)


class ImageStore:
    """Reads pictures by address; it can be sent to other processes.

    Args:
        root: folder that relative paths lie in.
        max_pixels: larger pictures are refused by their header; None for the usual limit.
    """

    def __init__(self, root: str | Path = ".", *, max_pixels: int | None = None) -> None:
        self.root = Path(root)
        self.max_pixels = max_pixels
        self._group: tuple[tuple[Path, str, int], Any] | None = None

    def __reduce__(self) -> tuple[Callable[..., ImageStore], tuple[()]]:
        # The row group in memory stays here.
        return partial(ImageStore, self.root, max_pixels=self.max_pixels), ()

    def read(self, uri: str) -> np.ndarray:
        """Read a picture.

        Args:
            uri: its address.

        Returns:
            (H, W, 3) uint8 RGB.

        Raises:
            ImageError: there is no picture at the address, or it is damaged.
        """
        return self.read_hashed(uri)[0]

    def read_hashed(self, uri: str) -> tuple[np.ndarray, str]:
        """Read a picture and the sha256 of its file's bytes, in hexadecimal.

        Args:
            uri: its address.

        Returns:
            (H, W, 3) uint8 RGB, and the hash.

        Raises:
            ImageError: there is no picture at the address, or it is damaged.
        """
        data = self.read_bytes(uri)
        return decode_image(data, uri, max_pixels=self.max_pixels), hashlib.sha256(data).hexdigest()

    def read_bytes(self, uri: str) -> bytes:
        """Read a picture's bytes as they are stored.

        Args:
            uri: its address.

        Returns:
            At least one byte.

        Raises:
            ImageError: there is nothing at the address.
        """
        if not uri:
            raise ImageError("no picture is given: its address is empty")
        if _WEB.match(uri):
            raise ImageError(
                f"{uri}: pictures are not fetched from the web; download them first, for instance "
                "with img2dataset, whose tars and parquet files can be read"
            )
        try:
            data = self._read(uri)
        except ImageError:
            raise
        except FileNotFoundError as error:
            # Reasons do not name the root: they are kept with results that do not depend on it.
            raise ImageError(f"{uri}: no such file") from error
        except IsADirectoryError as error:
            raise ImageError(f"{uri}: expected an image file, got a folder") from error
        except (OSError, ValueError) as error:  # ValueError: a null byte in the path
            raise ImageError(f"{uri}: {_reason(error, self.root)}") from error
        if not data:
            raise ImageError(f"{uri}: the file is empty (0 bytes)")
        return data

    def _read(self, uri: str) -> bytes:
        if match := _IN_TAR.fullmatch(uri):
            return self._read_slice(match["file"], int(match["offset"]), int(match["size"]))
        if match := _IN_PARQUET.fullmatch(uri):
            value = self._read_cell(uri, match["file"], match["column"], int(match["row"]))
            return self._bytes_of(value, uri)
        if uri.endswith((".tar", ".parquet")):
            raise ImageError(f"{uri}: expected a picture, got a container without a place in it")
        return read_bytes(self.root / uri, limit="member_bytes")

    def _read_slice(self, file: str, offset: int, size: int) -> bytes:
        return read_slice(self.root / file, offset, size)

    def _read_cell(self, uri: str, file: str, column: str, row: int) -> Any:
        # pyarrow takes a while to import, and most addresses are files.
        from ovseg.readers.tables import ParquetTable

        path = self.root / file
        with ParquetTable(path) as table:
            if column not in table.names:
                names = table.names
                raise ImageError(f"{uri}: the table has no column {column!r}, it has {names}")
            first = 0
            for group, rows in enumerate(table.rows_of_groups):
                if row < first + rows:
                    key = (path, column, group)
                    # Rows are read in order: the last group serves all of its rows.
                    if self._group is None or self._group[0] != key:
                        self._group = None
                        self._group = (key, table.read_group(group, [column])[column])
                    return self._group[1][row - first].as_py()
                first += rows
        raise ImageError(f"{uri}: the table has {first} rows")

    def _bytes_of(self, value: Any, uri: str) -> bytes:
        if isinstance(value, dict):
            path = value.get("path")
            value = value.get("bytes")
            if value is None and path:
                return read_bytes(self.root / path, limit="member_bytes")
        if value is None:
            raise ImageError(f"{uri}: the table holds null instead of a picture")
        if not isinstance(value, bytes):
            raise ImageError(f"{uri}: expected bytes, got {type(value).__name__}")
        return value


def _reason(error: Exception, root: Path) -> str:
    """What went wrong, without the root: reasons are kept with results."""
    reason = reason_of(error)
    return reason if root == Path() else reason.replace(f"{root}{os.sep}", "")
