"""Writing files so that a reader never sees half of one, and what their errors say."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["atomic_path", "reason_of", "sha256_of"]


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Give a temporary path to write to; it becomes `path` when the block ends well.

    The temporary file lies in the target's folder, which is made if missing, and keeps the
    target's ending. After an error the target is as before and nothing is left behind.

    Args:
        path: the file to write or replace.

    Yields:
        The path to write to.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(
        dir=target.parent, prefix=f".{target.stem}.", suffix=target.suffix
    )
    os.close(handle)
    partial = Path(name)
    try:
        yield partial
        # mkstemp makes files private; the result gets what any new file gets.
        partial.chmod(0o666 & ~_umask())
        partial.replace(target)
    finally:
        with suppress(FileNotFoundError):
            partial.unlink()


def sha256_of(path: str | Path) -> str:
    """Hash a file of any size.

    Args:
        path: the file.

    Returns:
        Its sha256 in hexadecimal.
    """
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while chunk := file.read(1 << 22):
            digest.update(chunk)
    return digest.hexdigest()


def _umask() -> int:
    # It can only be read by setting it.
    current = os.umask(0o022)
    os.umask(current)
    return current


def reason_of(error: Exception) -> str:
    """What an error says, for a message that names the file; the text of an OSError repeats it."""
    return getattr(error, "strerror", None) or str(error)
