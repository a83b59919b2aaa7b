"""Opening files: regular ones only, and of bounded size."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

from ovseg.readers.limits import require_within

__all__ = ["open_regular", "read_bytes", "require_regular"]


def require_regular(path: str | os.PathLike[str]) -> os.stat_result:
    """Refuse what is no regular file: a pipe or a device may never end, or never begin.

    Args:
        path: the file; links are followed.

    Returns:
        Its status, with its size.

    Raises:
        FileNotFoundError: there is none.
        IsADirectoryError: it is a folder.
        OSError: it is a pipe, a device or a socket, or cannot be looked at.
    """
    status = Path(path).stat()
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(f"{path}: expected a file, got a folder")
    if not stat.S_ISREG(status.st_mode):
        raise OSError(f"{path}: expected a regular file, got a pipe, device or socket")
    return status


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a regular file for reading bytes.

    Args:
        path: the file.

    Returns:
        The open file.

    Raises:
        OSError: as `require_regular`.
    """
    # Without waiting: to open a pipe that nobody writes to would never return.
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            require_regular(path)
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def read_bytes(path: str | os.PathLike[str], *, limit: str = "document_bytes") -> bytes:
    """Read a whole regular file of bounded size.

    Args:
        path: the file.
        limit: which field of `Limits` bounds it.

    Returns:
        Its bytes.

    Raises:
        OSError: as `open_regular`.
        LimitError: it is larger.
    """
    with open_regular(path) as file:
        require_within(limit, os.fstat(file.fileno()).st_size, of=str(Path(path)))
        return file.read()
