"""The files of a memory bank.

A bank is a folder::

    manifest.json        what its vectors were made with; anything else is refused here
    rounds/round-00000.json    the pictures that were added together, by count and hash
    shards/part-00000.safetensors, .json    vectors of a shard's regions; its figures, written last
    images.tsv           stem, start_id, n: pictures with their regions' rows, in the bank's order
    regions.txt          line k: "stem#id", the picture of row k and its id in the map of regions
    keys/MODEL.npy       (N, C) float16, the vision model's vectors, by which regions are found
    values/ENCODER.npy   (N, D) float16 unit rows, what a CLIP says of them
    index/MODEL.faiss    where FAISS was asked for
    summary.json  quarantine.jsonl  run.json  _SUCCESS    once all shards are there

A bank only grows: rows that are there keep their numbers. Every file but run.json depends on the
pictures, the settings and the models alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ovseg.readers import documents
from ovseg.readers.arrays import map_npy
from ovseg.utils.part_files import PartFiles
from ovseg.utils.run_record import AnotherRunError

__all__ = [
    "IMAGES",
    "INDEX",
    "KEYS",
    "MANIFEST",
    "REGIONS",
    "ROUNDS",
    "RUN",
    "SUCCESS",
    "VALUES",
    "BankError",
    "BankRunError",
    "file_name",
    "parts_of",
    "read_images",
    "read_json",
    "rounds_of",
]

MANIFEST = "manifest.json"
ROUNDS = "rounds"
IMAGES = "images.tsv"
REGIONS = "regions.txt"
KEYS, VALUES, INDEX = "keys", "values", "index"
RUN = "run.json"
SUCCESS = "_SUCCESS"
HEADER = "stem\tstart_id\tn"


class BankError(ValueError):
    """A memory bank that cannot be built on or searched; the text says what to change."""


class BankRunError(AnotherRunError, BankError):
    """The folder holds a bank that was made otherwise."""


def parts_of(bank: Path) -> PartFiles:
    """The files of a bank's shards."""
    return PartFiles(bank / "shards", ".safetensors", BankError)


def rounds_of(bank: Path) -> list[dict[str, Any]]:
    """Read what was added to a bank, in order; empty for a folder without one."""
    return [read_json(path) for path in sorted((bank / ROUNDS).glob("round-*.json"))]


def read_json(path: Path) -> dict[str, Any]:
    """Read one of a bank's JSON files.

    Raises:
        BankError: it is missing or damaged.
    """
    try:
        return dict(documents.read_json(path))
    except (OSError, ValueError, TypeError) as error:
        raise BankError(f"{path}: expected a file of a memory bank: {error}") from error


def file_name(name: str) -> str:
    """Make a file's name of the name of a model, which may hold slashes and the like."""
    return re.sub(r"[^A-Za-z0-9._@+-]+", "_", name)


def read_images(path: Path) -> Iterator[tuple[str, int, int]]:
    """Read a list of pictures, of ours or of upstream's banks.

    Args:
        path: a file of lines "stem, start_id, n", separated by tabs, with or without a header.

    Yields:
        Stem, first row and number of rows, without gaps.

    Raises:
        BankError: a line is none of these, or rows are missing between two.
    """
    expected = 0
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file):
            if number == 0 and line.split("\t")[0] == "stem":
                continue
            try:
                stem, start, count = line.rstrip("\n").split("\t")
                first, regions = int(start), int(count)
            except ValueError as error:
                raise BankError(
                    f"{path}, line {number + 1}: expected stem, start_id and n between tabs, got "
                    f"{line[:80]!r}"
                ) from error
            if first != expected or regions < 1:
                raise BankError(
                    f"{path}, line {number + 1}: expected rows from {expected} on, got {regions} "
                    f"from {first} on"
                )
            expected = first + regions
            yield stem, first, regions


def open_rows(path: Path, count: int | None = None) -> np.ndarray:
    """Open an array of a bank without reading it.

    Args:
        path: an .npy file.
        count: the number of rows that it must have.

    Returns:
        (N, C) memory map.

    Raises:
        BankError: it is missing, damaged or of another length.
    """
    try:
        rows = map_npy(path)
    except (OSError, ValueError) as error:
        raise BankError(f"{path}: expected an array of a memory bank: {error}") from error
    if rows.ndim != 2 or (count is not None and len(rows) != count):
        raise BankError(f"{path}: expected {count} rows of a memory bank, got shape {rows.shape}")
    return rows
