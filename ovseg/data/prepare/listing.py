"""Files that name the pictures of a split, one a line."""

from __future__ import annotations

from collections import Counter
from pathlib import Path, PurePosixPath

from ovseg.data.prepare.pipeline import PreparationError
from ovseg.readers.documents import read_text

__all__ = ["read_listing"]


def read_listing(path: str | Path, remedy: str) -> list[str]:
    """Read the names of a split's pictures.

    Args:
        path: text file; of each line the first word counts, without folder and ending
            (`2008_000002` and `JPEGImages/2008_000002.jpg x.png` are the same).
        remedy: where the file comes from, for the error message.

    Returns:
        The names, in the order of the file.

    Raises:
        PreparationError: the file is missing, empty, or names a picture twice.
    """
    if not Path(path).is_file():
        raise PreparationError(f"expected the list {path}, which is not there\n{remedy}")
    lines = read_text(path).splitlines()
    names = [PurePosixPath(line.split()[0]).stem for line in lines if line.strip()]
    if not names:
        raise PreparationError(f"expected names in {path}, which is empty\n{remedy}")
    doubled = [name for name, count in Counter(names).items() if count > 1]
    if doubled:
        raise PreparationError(
            f"expected each name once in {path}, got twice: {', '.join(doubled[:5])}\n{remedy}"
        )
    return names
