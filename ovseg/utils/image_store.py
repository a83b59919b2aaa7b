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
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

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
    """

    def __init__(self, root: str | Path = ".") -> None:
        self.root = Path(root)
        self._group: tuple[tuple[Path, str, int], Any] | None = None

    def __reduce__(self) -> tuple[Callable[..., ImageStore], tuple[Path]]:
        return ImageStore, (self.root,)  # the row group in memory stays here

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
        return decode_image(data, uri), hashlib.sha256(data).hexdigest()

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
            raise ImageError(f"{uri}: {reason_of(error)}") from error
        if not data:
            raise ImageError(f"{uri}: the file is empty (0 bytes)")
        return data

    def _read(self, uri: str) -> bytes:
        if match := _IN_TAR.fullmatch(uri):
            return self._read_slice(uri, match["file"], int(match["offset"]), int(match["size"]))
        if match := _IN_PARQUET.fullmatch(uri):
            value = self._read_cell(uri, match["file"], match["column"], int(match["row"]))
            return self._bytes_of(value, uri)
        if uri.endswith((".tar", ".parquet")):
            raise ImageError(f"{uri}: expected a picture, got a container without a place in it")
        return (self.root / uri).read_bytes()

    def _read_slice(self, uri: str, file: str, offset: int, size: int) -> bytes:
        with (self.root / file).open("rb") as stream:
            stream.seek(offset)
            data = stream.read(size)
        if len(data) != size:
            raise ImageError(f"{uri}: the tar ends after {len(data)} of the member's {size} bytes")
        return data

    def _read_cell(self, uri: str, file: str, column: str, row: int) -> Any:
        import pyarrow.parquet as pq

        path = self.root / file
        with pq.ParquetFile(path) as table:
            if column not in table.schema_arrow.names:
                names = table.schema_arrow.names
                raise ImageError(f"{uri}: the table has no column {column!r}, it has {names}")
            first = 0
            for group in range(table.num_row_groups):
                rows = table.metadata.row_group(group).num_rows
                if row < first + rows:
                    key = (path, column, group)
                    # Rows are read in order: the last group serves all of its rows.
                    if self._group is None or self._group[0] != key:
                        self._group = None
                        self._group = (key, table.read_row_group(group, columns=[column])[column])
                    return self._group[1][row - first].as_py()
                first += rows
        raise ImageError(f"{uri}: the table has {first} rows")

    def _bytes_of(self, value: Any, uri: str) -> bytes:
        if isinstance(value, dict):
            path = value.get("path")
            value = value.get("bytes")
            if value is None and path:
                return (self.root / path).read_bytes()
        if value is None:
            raise ImageError(f"{uri}: the table holds null instead of a picture")
        if not isinstance(value, bytes):
            raise ImageError(f"{uri}: expected bytes, got {type(value).__name__}")
        return value
