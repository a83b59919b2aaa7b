"""The results of shards in files: one of data and one that says what it holds, written last."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ovseg.readers.documents import read_json
from ovseg.utils.files import sha256_of, write_json

__all__ = ["PartFiles", "remove_unfinished"]


@dataclass(frozen=True)
class PartFiles:
    """A folder with two files a shard, `part-00000.ENDING` and `part-00000.json`.

    Attributes:
        folder: where they lie.
        ending: of the files of data, with its dot.
        error: what is raised about a file that was changed.
    """

    folder: Path
    ending: str
    error: type[Exception] = ValueError

    def path(self, index: int) -> Path:
        """The file of a shard's data."""
        return self.folder / f"part-{index:05d}{self.ending}"

    def is_finished(self, index: int) -> bool:
        """Say whether a shard's two files are there."""
        data = self.path(index)
        return data.with_suffix(".json").is_file() and data.is_file()

    def any_finished(self) -> bool:
        """Say whether there is a record of any shard."""
        return next(self.folder.glob("part-*.json"), None) is not None

    def write(
        self, index: int, write_data: Callable[[Path], object], facts: Mapping[str, Any]
    ) -> None:
        """Write both files of a shard.

        Args:
            index: its number.
            write_data: writes the data to a path, completely or not at all.
            facts: what else to record; plain data.
        """
        data = self.path(index)
        write_data(data)
        size, digest = data.stat().st_size, sha256_of(data)
        record = {"shard": index, "file": data.name, "bytes": size, "sha256": digest, **facts}
        write_json(data.with_suffix(".json"), record, sort_keys=True)

    def read(self, index: int) -> dict[str, Any]:
        """Read what is recorded of a finished shard.

        Args:
            index: its number.

        Returns:
            The record.

        Raises:
            self.error: the data are not those that were written.
        """
        data = self.path(index)
        part = read_json(data.with_suffix(".json"))
        if data.stat().st_size != part["bytes"]:
            raise self.error(
                f"{data}: expected {part['bytes']} bytes, got {data.stat().st_size}; it was "
                f"changed. Delete it and start the same run again"
            )
        return part


def remove_unfinished(folders: Iterable[Path], names: Iterable[str]) -> None:
    """Remove what killed processes left of files that `atomic_path` was writing.

    Args:
        folders: where to look, not below them.
        names: what the files' names were to begin with.
    """
    names = list(names)
    for folder in folders:
        for name in names:
            for file in folder.glob(f".{name}*"):
                file.unlink(missing_ok=True)
