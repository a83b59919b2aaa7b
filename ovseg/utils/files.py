"""Writing files so that a reader never sees half of one, and what their errors say."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ovseg.readers.documents import DocumentError
from ovseg.readers.files import open_regular

__all__ = [
    "atomic_path",
    "naming_failure",
    "reason_of",
    "require_writable",
    "sha256_of",
    "sweep_partials",
    "write_json",
]

_PARTIAL_NAME = re.compile(r"\..+\.[a-z0-9_]{8}\.part(\.\w+)?")
# What `atomic_path` calls a file until it is whole.


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Give a temporary path to write to; it becomes `path` when the block ends well.

    The temporary file lies in the target's folder, which is made if missing, and keeps the
    target's ending. After an error the target is as before and nothing is left behind.

    Args:
        path: the file to write or replace.

    Yields:
        The path to write to.

    Raises:
        OSError: it cannot be written; a full disk names the file, too.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(
        dir=target.parent, prefix=f".{target.stem}.", suffix=f".part{target.suffix}"
    )
    os.close(handle)
    partial = Path(name)
    try:
        yield partial
        # mkstemp makes files private; the result gets what any new file gets.
        partial.chmod(0o666 & ~_umask())
        partial.replace(target)
    except OSError as error:
        if error.errno is not None and error.filename is None:  # of a write, and not of opening
            error.filename = os.fspath(target)
        raise
    finally:
        with suppress(FileNotFoundError):
            partial.unlink()


def require_writable(folder: str | Path) -> None:
    """Check that files can be made in a folder, before the work that they are of begins.

    Args:
        folder: made if missing.

    Raises:
        OSError: it cannot be made or written to; the text says what to do.
    """
    path = Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        reason = "a file" if isinstance(error, FileExistsError) else reason_of(error)
        raise OSError(
            f"{path}: expected a folder that can be written to, got: {reason}; make it writable, "
            "or choose another"
        ) from error


def sweep_partials(folder: str | Path) -> int:
    """Remove what a run that was killed has left half-written in a folder, not in those below.

    Args:
        folder: nobody else may be writing there, see `ovseg.utils.folder_lock.only_run`.

    Returns:
        How many files were removed.
    """
    stale = [path for path in Path(folder).glob(".*.part*") if _PARTIAL_NAME.fullmatch(path.name)]
    for path in stale:
        path.unlink(missing_ok=True)
    return len(stale)


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# How torch and safetensors say that a disk is full.
_UNWRITTEN = re.compile(r"unexpected pos|PytorchStreamWriter|inline_container|I/O error|os error")


@contextmanager
def naming_failure(path: str | Path) -> Iterator[None]:
    """Make an error in writing a file name the file and the room that is left.

    Args:
        path: the file that the block writes.

    Raises:
        OSError: the block could not write it.
    """
    target = Path(path)
    try:
        yield
    except Exception as error:
        if not isinstance(error, OSError) and not _UNWRITTEN.search(str(error)):
            raise
        reason = next(
            (reason_of(each) for each in (error, error.__context__) if isinstance(each, OSError)),
            str(error) if "os error" in str(error) else "the disk took less than was written",
        )
        full = getattr(error, "errno", errno.ENOSPC) in _FULL
        left = shutil.disk_usage(target.parent).free if target.parent.is_dir() else 0
        raise OSError(
            f"{target}: could not be written: {reason}; {left / 2**20:.0f} MiB are free in "
            f"{target.parent.resolve()}. Nothing half-written is left there"
            + ("; make room and go on" if full else "")
        ) from error


def write_json(
    path: str | Path,
    value: Any,
    *,
    indent: int | None = 1,
    sort_keys: bool = False,
    ensure_ascii: bool = True,
) -> None:
    """Write plain data as JSON, atomically and with a newline at the end.

    Args:
        path: the file to write or replace.
        value: mappings, sequences, texts and numbers; NaN, which JSON does not have, becomes null.
        indent: spaces of a level; None for one line without any.
        sort_keys: the order of the keys is that of their names.
        ensure_ascii: other letters are written as escapes; lone surrogates, which file names may
            hold and UTF-8 cannot, are in any case.

    Raises:
        TypeError, ValueError: the value holds what JSON cannot; the file stays as it was.
    """
    text = json.dumps(
        _without_nan(value),
        indent=indent,
        sort_keys=sort_keys,
        ensure_ascii=ensure_ascii,
        allow_nan=False,
        separators=(",", ":") if indent is None else None,
    )
    with atomic_path(path) as partial:
        # What UTF-8 cannot hold is written as \udce9 is, which JSON reads as an escape.
        partial.write_text(f"{text}\n", encoding="utf-8", errors="backslashreplace")


def sha256_of(path: str | Path) -> str:
    """Hash a file of any size.

    Args:
        path: the file.

    Returns:
        Its sha256 in hexadecimal.

    Raises:
        OSError: it is no regular file, or cannot be read.
    """
    digest = hashlib.sha256()
    with open_regular(path) as file:
        while chunk := file.read(1 << 22):
            digest.update(chunk)
    return digest.hexdigest()


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _umask() -> int:
    # It can only be read by setting it.
    current = os.umask(0o022)
    os.umask(current)
    return current


def reason_of(error: Exception) -> str:
    """What an error says, for a message that names the file; the text of an OSError repeats it."""
    if isinstance(error, DocumentError):
        return error.reason
    return getattr(error, "strerror", None) or str(error)
