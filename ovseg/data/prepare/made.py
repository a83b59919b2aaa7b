"""Which files of a folder were made here, so that no others are written over or removed.

The names are noted in a hidden file of the folder.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from ovseg.readers.files import read_bytes

__all__ = ["files_of_others", "note_made", "require_apart"]

_NOTES = ".made_by_ovseg"


def require_apart(sources: Iterable[Path], targets: Iterable[Path]) -> None:
    """Refuse to make files out of themselves, also where links lead there.

    Args:
        sources: files that are read.
        targets: files to be made.

    Raises:
        ValueError: a target is a source.
    """
    real: dict[Path, Path] = {}  # there may be a hundred thousand files in a folder

    def place(path: Path) -> Path:
        if path.parent not in real:
            real[path.parent] = path.parent.resolve()
        return real[path.parent] / path.name

    read = {place(path) for path in sources}
    for target in targets:
        if place(target) in read:
            raise ValueError(
                f"{target}: expected a folder for what is made, got one of the files that it is "
                "made from, which would be written over; choose another folder"
            )


def note_made(target: Path) -> None:
    """Note that a file is made; before it has its name, so that a killed run knows all its files.

    Args:
        target: the file; several processes may note files of one folder.
    """
    with (target.parent / _NOTES).open("ab", buffering=0) as file:
        file.write(os.fsencode(target.name) + b"\0")


def files_of_others(targets: Iterable[Path]) -> frozenset[Path]:
    """Tell what of some files is there and noted by nobody.

    Args:
        targets: files to be made.

    Returns:
        Those that are there and were not made here.
    """
    known: dict[Path, frozenset[str]] = {}
    others = []
    for target in targets:
        folder = target.parent
        if folder not in known:
            notes = folder / _NOTES
            content = read_bytes(notes) if notes.is_file() else b""
            known[folder] = frozenset(os.fsdecode(content).split("\0"))
        if target.name not in known[folder] and os.path.lexists(target):
            others.append(target)
    return frozenset(others)
