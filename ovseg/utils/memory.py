"""What the C library has given out, and the free memory that it keeps for itself."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from itertools import count
from typing import Any

__all__ = ["Trim", "allocated_bytes", "return_free_memory"]


class _Allocations(ctypes.Structure):
    """What glibc's `mallinfo2` returns."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


def _of_glibc(name: str, result: Any) -> Callable[..., Any] | None:
    if not sys.platform.startswith("linux"):
        return None
    function = getattr(ctypes.CDLL(None), name, None)  # other C libraries have none
    if function is not None:
        function.restype = result
    return function


_trim = _of_glibc("malloc_trim", ctypes.c_int)
_info = _of_glibc("mallinfo2", _Allocations)


def allocated_bytes() -> int | None:
    """Count what was asked for and not given back, by all threads of this process.

    Returns:
        Bytes; None where the C library is not glibc 2.33 or newer.
    """
    if _info is None:
        return None
    found = _info()
    return int(found.uordblks + found.hblkhd)


def return_free_memory() -> bool:
    """Give memory that is free, but kept between blocks in use, back to the system.

    On a processor, convolutions of a new size leave oneDNN's small blocks all over the heap, so
    what is freed around them stays with the process: pictures of changing sizes let it grow by some
    60 kB each although nothing is held. Takes 6 ms, and the memory's next use another 50.

    Returns:
        Whether any went back; False where the C library is not glibc.
    """
    return _trim is not None and bool(_trim(0))


class Trim:
    """Calls `return_free_memory` every so many calls, whichever threads they come from.

    Args:
        every: how many.
    """

    def __init__(self, every: int = 32) -> None:
        self._every = every
        self._calls = count(1)  # one call of its `next` is safe between threads

    def __call__(self) -> None:
        """Count a call."""
        if next(self._calls) % self._every == 0:
            return_free_memory()
