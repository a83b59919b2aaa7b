"""What libraries keep of this process's memory: compiled operations, and what is free already."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from typing import Any

__all__ = ["bound_primitives", "return_free_memory"]

_PRIMITIVES = 128


def bound_primitives() -> None:
    """Let oneDNN, torch's library for processors, keep 128 compiled operations instead of 1024.

    It compiles each convolution for the size of its input. Kept ones lie in small blocks all over
    the heap, and glibc gives memory back from the heap's end alone: over pictures of changing sizes
    a process grew by 60 kB each. With 128 it stays flat, and small pictures of many sizes take up
    to a tenth longer. The choice is read when torch computes for the first time and then stays; a
    value of `ONEDNN_PRIMITIVE_CACHE_CAPACITY` in the environment is left as it is.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(_PRIMITIVES))


def return_free_memory() -> bool:
    """Give memory that is free, but kept between blocks in use, back to the system.

    Returns:
        Whether any went back; False where the C library is not glibc.
    """
    return _trim is not None and bool(_trim(0))


def _malloc_trim() -> Callable[[int], int] | None:
    if not sys.platform.startswith("linux"):
        return None
    function: Any = getattr(ctypes.CDLL(None), "malloc_trim", None)  # other C libraries have none
    if function is not None:
        function.restype = ctypes.c_int
    return function


_trim = _malloc_trim()
