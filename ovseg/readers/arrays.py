"""Arrays in files of NumPy (`.npz`, `.npy`): their headers say how large they are, and are believed
only up to a limit and to what the file holds. Nothing is unpickled.
"""

from __future__ import annotations

import math
import os
import sys
import tokenize
import zipfile
import zlib
from collections.abc import Iterable
from typing import IO, Any

import numpy as np

from ovseg.readers.files import open_regular
from ovseg.readers.limits import LimitError, require_within

__all__ = ["map_npy", "read_npz"]

_ERRORS = (
    OSError,
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    RuntimeError,  # encrypted members
    NotImplementedError,
    SyntaxError,
    MemoryError,
    OverflowError,
    AttributeError,
    tokenize.TokenError,  # NumPy reads headers as Python
    zipfile.BadZipFile,
    zlib.error,
)
StrPath = str | os.PathLike[str]


def read_npz(path: StrPath, names: Iterable[str] | None = None) -> dict[str, np.ndarray]:
    """Read arrays of a `.npz` file.

    Args:
        path: the file.
        names: which arrays; None reads all.

    Returns:
        The arrays by name.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, lacks an array, holds objects, or an array beyond a limit.
    """
    try:
        with open_regular(path) as file, zipfile.ZipFile(file) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            require_within("archive_members", len(members), of=os.fspath(path))
            found = {}
            for name in members if names is None else names:
                if name not in members:
                    raise ValueError(f"expected an array {name!r}, got {sorted(members)[:20]}")
                with archive.open(members[name]) as stream:
                    found[name] = _array(stream, members[name].file_size, f"{path}: {name}")
            return found
    except (FileNotFoundError, LimitError):
        raise
    except _ERRORS as error:
        reason = str(error).removeprefix(f"{path}: ") or type(error).__name__
        raise ValueError(f"{path}: not usable as arrays of NumPy: {reason}") from error


def map_npy(path: StrPath) -> np.ndarray:
    """Open an `.npy` file without reading it; its pages are read when they are used.

    Args:
        path: the file.

    Returns:
        The array, read-only.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, shorter than it says, or holds objects.
    """
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            _check_header(file, size, os.fspath(path), limited=False)
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise
    except _ERRORS as error:
        reason = str(error).removeprefix(f"{path}: ") or type(error).__name__
        raise ValueError(f"{path}: not usable as an array of NumPy: {reason}") from error


def _array(stream: IO[bytes], size: int, name: str) -> np.ndarray:
    _check_header(stream, size, name, limited=True)
    stream.seek(0)
    array = np.lib.format.read_array(stream, allow_pickle=False)
    if array.dtype.kind == "U" and array.nbytes:
        codes = np.ascontiguousarray(array).view(f"{array.dtype.byteorder}u4")
        if codes.max() > sys.maxunicode:  # Python ends in a SystemError where one is looked at
            raise ValueError(f"expected text, got the code {codes.max():#x} of no letter")
    return array


def _check_header(stream: IO[bytes], size: int, name: str, *, limited: bool) -> None:
    """Hold what the header says against the limit and against the bytes that are there."""
    version = np.lib.format.read_magic(stream)
    read: Any = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if read is None:
        raise ValueError(f"expected version 1 or 2 of the format, got {version}")
    shape, _, dtype = read(stream)
    if dtype.hasobject:
        raise ValueError("expected numbers or text, got objects, which would be unpickled")
    if any(side < 0 for side in shape):
        raise ValueError(f"expected a shape, got {shape}")
    wanted = math.prod(shape) * dtype.itemsize
    if limited:
        require_within("array_bytes", wanted, of=name)
    # A dtype without size, or sides that multiply to 0, would still count elements.
    if wanted + stream.tell() > size or math.prod(shape) > max(size, 1):
        raise ValueError(f"expected {wanted} bytes for {shape} of {dtype}, the file ends before")
