"""What an evaluation has found so far, on disk, so that a killed one can go on.

Each process appends one line of JSON per image to a file of its own. The first line says what the
results belong to; results of anything else are refused. Only a line that was being written when
the process died is lost, and its image is evaluated again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from ovseg.evaluation.counts import ImageCounts
from ovseg.readers.documents import DocumentError, parse_json
from ovseg.utils.run_record import AnotherRunError, RunRecord

__all__ = ["Journal", "JournalError"]

_FORMAT = 1


class JournalError(AnotherRunError):
    """The folder holds the beginning of another evaluation."""


class Journal:
    """Results of single images in files that only grow.

    Args:
        folder: for the files of this journal and nothing else; made with the first line.
        key: what decides the results (names to hashes or texts); all processes give the same.
    """

    def __init__(self, folder: str | Path, key: Mapping[str, str]) -> None:
        self.folder = Path(folder)
        self._record = RunRecord(
            {"format": _FORMAT, "key": dict(key)},
            what="evaluation",
            remedy="run it with the settings it began with, choose another OUTPUT_DIR, or delete "
            "the folder to start over",
            error=JournalError,
        )
        self._file: TextIO | None = None

    def read(self) -> dict[str, ImageCounts]:
        """Collect what earlier runs have left.

        Returns:
            Counts by file; empty without earlier runs.

        Raises:
            JournalError: they evaluated something else.
        """
        found: dict[str, ImageCounts] = {}
        for path in self._parts():
            lines = path.read_text(encoding="utf-8").split("\n")
            header = _parse(lines[0])
            if header is None:
                continue  # killed while it wrote its first line
            self._record.check(header, self.folder)
            for line in lines[1:-1]:  # what follows the last line end is a torn line, or nothing
                entry = _parse(line)
                if entry is not None:
                    found.setdefault(entry["file"], _counts(entry))
        return found

    def append(self, file: str, counts: ImageCounts) -> None:
        """Keep the result of one image.

        Args:
            file: its name.
            counts: its result.
        """
        if self._file is None:
            self._file = self._new_part()
            self._write(self._record.settings)
        entry = {
            "file": file,
            "cells": counts.cells.tolist(),
            "pixels": counts.pixels.tolist(),
            "labels_hash": counts.labels_hash,
        }
        if counts.predictions:
            entry["predictions"] = list(counts.predictions)
        self._write(entry)

    def close(self) -> None:
        """Close this process's file; another `append` begins a new one."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def remove(self) -> None:
        """Delete the files; one process does, when the results are written."""
        self.close()
        for path in self._parts():
            path.unlink(missing_ok=True)
        with suppress(OSError):  # not there, or someone keeps other files in it
            self.folder.rmdir()

    def _parts(self) -> list[Path]:
        return sorted(self.folder.glob("part-*.jsonl"))

    def _new_part(self) -> TextIO:
        self.folder.mkdir(parents=True, exist_ok=True)
        number = len(self._parts())
        while True:
            try:  # "x": no two processes get the same file
                return (self.folder / f"part-{number:04d}.jsonl").open("x", encoding="utf-8")
            except FileExistsError:
                number += 1

    def _write(self, entry: Mapping[str, Any]) -> None:
        assert self._file is not None
        self._file.write(json.dumps(entry, separators=(",", ":")) + "\n")
        self._file.flush()  # what the system has survives the death of the process


def _parse(line: str) -> dict[str, Any] | None:
    with suppress(DocumentError):
        entry = parse_json(line, "journal")
        if isinstance(entry, dict):
            return entry
    return None


def _counts(entry: Mapping[str, Any]) -> ImageCounts:
    return ImageCounts(
        cells=np.array(entry["cells"], np.int64),
        pixels=np.array(entry["pixels"], np.int64),
        labels_hash=str(entry["labels_hash"]),
        predictions=tuple(entry.get("predictions", ())),
    )
