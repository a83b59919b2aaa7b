"""NumPy arrays in pickles: described by the file, checked, and built by us."""

from __future__ import annotations

import math
import pickle
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ovseg.readers.pickles import PLAIN, Makers, read_pickle

__all__ = ["ARRAYS", "read_plain_pickle"]

_CODE = re.compile(r"(?:b1|[iu][1248]|f[248]|c8|c16|[SU]\d{1,6}|O8?|\?)")
_MOST_AXES = 32


def read_plain_pickle(path: Path) -> Any:
    """Read a pickle that holds only containers, numbers, strings and arrays.

    Args:
        path: a file that `pickle.dump` wrote, by Python 2 or 3.

    Returns:
        The object; arrays cannot be written to.

    Raises:
        OSError: the file cannot be read.
        pickle.UnpicklingError: if it asks for any other type or function, or is damaged.
        LimitError: it has too many objects.
    """
    return read_pickle(path, ARRAYS)


@dataclass(frozen=True)
class _Type:
    """A type of array elements, as texts that were checked: never a NumPy type from the file.

    Args:
        code: NumPy's code of kind and size, such as "f4".
        order: "<" or ">"; "=" is this machine's.
    """

    code: str
    order: str = "="

    def take_state(self, state: Any) -> _Type:
        """Take the byte order, and refuse everything else that a state could change."""
        _version, order, *parts, size, _alignment, _flags = state[:8]
        whole = len(parts) == 3 and all(part is None for part in parts)
        sizes = (-1, self.build().itemsize)
        if not whole or size not in sizes or order not in ("<", ">", "=", "|"):
            raise ValueError(f"a type {self.code!r} with fields or of another size")
        return _Type(self.code, "=" if order == "|" else order)

    def build(self) -> np.dtype[Any]:
        """Make NumPy's type out of the checked code."""
        return np.dtype(self.code).newbyteorder(self.order)  # type: ignore[arg-type]


class _Unbuilt:
    """An array of which the file has not said the content yet."""

    def take_state(self, state: Any) -> np.ndarray:
        """Build the array from (version, shape, type, whether columns come first, content)."""
        shape, element, columns_first, content = state[-4:]
        return _array(content, element, shape, "F" if columns_first else "C")


def _type(code: Any, *_: Any) -> _Type:
    if not isinstance(code, str) or not _CODE.fullmatch(code):
        kind = code[:40] if isinstance(code, str) else type(code).__name__
        raise pickle.UnpicklingError(
            f"expected an array of numbers or texts, got the type {kind!r}"
        )
    return _Type({"?": "b1", "O8": "O"}.get(code, code))


def _array(content: Any, element: Any, shape: Any, order: str) -> np.ndarray:
    if not isinstance(element, _Type) or order not in ("C", "F", "A"):
        raise ValueError("an array without a type or an order")
    shape = tuple(shape) if isinstance(shape, (tuple, list)) else (shape,)
    if len(shape) > _MOST_AXES or not all(type(n) is int and 0 <= n < 2**62 for n in shape):
        raise ValueError("an array without a shape")
    count = math.prod(shape)
    if element.code == "O":
        return _objects(content, shape, order)
    if isinstance(content, str):  # of Python 2
        content = content.encode("latin1")
    dtype = element.build()
    if not isinstance(content, (bytes, bytearray)) or len(content) != count * dtype.itemsize:
        raise ValueError(f"{len(content)} bytes for {count} elements of {dtype.itemsize} bytes")
    if not content:
        if count:
            raise ValueError("elements of no size")
        return np.zeros(shape, dtype)
    array = np.ndarray(shape, dtype, buffer=content, order="F" if order == "F" else "C")
    return _valid(array, element)


def _objects(content: Any, shape: tuple[int, ...], order: str) -> np.ndarray:
    if not isinstance(content, list) or len(content) != math.prod(shape):
        raise ValueError(f"an array of objects {shape} without a list of as many")
    flat = np.empty(len(content), dtype=object)
    for place, value in enumerate(content):
        flat[place] = value
    return flat.reshape(shape, order="F" if order == "F" else "C")


def _valid(array: np.ndarray, element: _Type) -> np.ndarray:
    """Make bytes that no value of the type has into ones that it has, or refuse them."""
    if element.code == "b1":
        return array.view(np.uint8) != 0
    if element.code.startswith("U"):
        codes = np.ndarray(
            array.size * array.dtype.itemsize // 4,
            _Type("u4", element.order).build(),
            buffer=array,
        )
        if codes.max() > 0x10FFFF:
            raise ValueError("a text with a letter that does not exist")
    return array


def _scalar(element: Any, content: Any) -> Any:
    if not isinstance(element, _Type) or element.code == "O":
        raise ValueError("a number without a type")
    return _array(content, element, (), "C")[()]


def _empty_array(kind: Any, *_: Any) -> _Unbuilt:
    if kind != ("numpy", "ndarray"):
        raise ValueError("an array of another class than NumPy's")
    return _Unbuilt()


def _never(*_: Any) -> Any:
    raise pickle.UnpicklingError("the file makes an array by itself, which no writer does")


def _array_functions() -> dict[tuple[str, str], Callable[..., Any]]:
    found: dict[tuple[str, str], Callable[..., Any]] = {}
    for package in ("numpy.core", "numpy._core"):  # NumPy 1 and 2
        found[f"{package}.multiarray", "_reconstruct"] = _empty_array
        found[f"{package}.multiarray", "scalar"] = _scalar
        found[f"{package}.numeric", "_frombuffer"] = _array
    return found


ARRAYS: Makers = {
    **PLAIN,
    ("numpy", "ndarray"): _never,
    ("numpy", "dtype"): _type,
    **_array_functions(),
}
"""The names of NumPy arrays and of plain containers."""
