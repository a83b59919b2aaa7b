"""Text features on disk: a name that any process has met is not encoded again."""

from __future__ import annotations

import hashlib
import logging
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np

__all__ = ["TextStore"]

logger = logging.getLogger(__name__)

MOST_BYTES = 2**30
_DIGEST_BYTES = 8
_KEYS_PER_QUESTION = 500  # SQLite takes 999 parameters at least
_SECONDS = 10.0  # that a process waits for another one's writing
_TABLE = "CREATE TABLE IF NOT EXISTS texts (number INTEGER PRIMARY KEY, key BLOB UNIQUE, row BLOB)"


class TextStore:
    """Rows of features by key, in one SQLite file that several processes may use at once.

    It is a cache: what cannot be read is missing, and what cannot be written is not kept, with one
    warning. Each row carries a digest of its key and its values, which is compared when it is read.

    Args:
        file: of the store; made, with its folder, when something is written.
        most_bytes: size above which the older half of the rows is dropped.
    """

    def __init__(self, file: str | Path, *, most_bytes: int = MOST_BYTES) -> None:
        self.file = Path(file)
        self.most_bytes = most_bytes
        self._works = True

    def read(self, keys: Sequence[bytes]) -> dict[bytes, np.ndarray]:
        """Look rows up.

        Args:
            keys: of any number of rows.

        Returns:
            (D,) float32 by key, of those that are there and whole.
        """
        found: dict[bytes, np.ndarray] = {}
        if self.file.is_file():
            try:
                found.update(self._read(keys))
            except (sqlite3.Error, OSError) as error:
                self._fail(error)
        return found

    def write(self, rows: Mapping[bytes, np.ndarray]) -> None:
        """Keep rows, in place of earlier ones with the same keys.

        Args:
            rows: (D,) float32 by key.
        """
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with closing(self._connect()) as connection, connection:
                connection.execute(_TABLE)
                connection.executemany(
                    "INSERT OR REPLACE INTO texts (key, row) VALUES (?, ?)",
                    [(key, _pack(key, row)) for key, row in rows.items()],
                )
                self._drop_older_half(connection)
        except (sqlite3.Error, OSError) as error:
            self._fail(error)

    def _read(self, keys: Sequence[bytes]) -> Iterator[tuple[bytes, np.ndarray]]:
        with closing(self._connect()) as connection:
            for start in range(0, len(keys), _KEYS_PER_QUESTION):
                some = keys[start : start + _KEYS_PER_QUESTION]
                marks = ",".join("?" * len(some))
                question = f"SELECT key, row FROM texts WHERE key IN ({marks})"
                for key, content in connection.execute(question, some):
                    row = _unpack(key, content)
                    if row is not None:
                        yield key, row

    def _connect(self) -> sqlite3.Connection:
        """A connection for one call: threads and forks must not share one."""
        connection = sqlite3.connect(self.file, timeout=_SECONDS)
        connection.execute("PRAGMA synchronous = OFF")  # digests tell what a crash left
        return connection

    def _drop_older_half(self, connection: sqlite3.Connection) -> None:
        pages, free, size = (
            connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_count", "freelist_count", "page_size")
        )
        if (pages - free) * size > self.most_bytes:
            middle = "(SELECT (min(number) + max(number)) / 2 FROM texts)"
            connection.execute(f"DELETE FROM texts WHERE number <= {middle}")

    def _fail(self, error: Exception) -> None:
        """Say once that nothing is kept; a file that is no store any more makes room for one."""
        damaged = isinstance(error, sqlite3.DatabaseError) and not isinstance(
            error, sqlite3.OperationalError
        )
        if damaged:
            self.file.unlink(missing_ok=True)
        if damaged or self._works:
            remedy = "it was damaged and is made anew" if damaged else "they are encoded each time"
            logger.warning("%s: text features cannot be kept (%s); %s", self.file, error, remedy)
        self._works = damaged


def _pack(key: bytes, row: np.ndarray) -> bytes:
    values = np.ascontiguousarray(row, dtype="<f4").tobytes()
    return _digest(key, values) + values


def _unpack(key: bytes, content: object) -> np.ndarray | None:
    """The row, or None where the content is not what was written."""
    if not isinstance(content, bytes) or len(content) % 4 or len(content) <= _DIGEST_BYTES:
        return None
    digest, values = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    return np.frombuffer(bytearray(values), dtype="<f4") if digest == _digest(key, values) else None


def _digest(key: bytes, values: bytes) -> bytes:
    return hashlib.blake2b(key + values, digest_size=_DIGEST_BYTES).digest()
