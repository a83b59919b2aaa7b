"""Tensors in pickles: described by the file, compared with their storage, and built by us."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from ovseg.readers.limits import require_within
from ovseg.readers.pickled_arrays import ARRAYS
from ovseg.readers.pickles import Makers, Name

__all__ = ["SCRIPT", "TENSORS", "as_numbers", "parse_reference", "script_attributes"]

STORAGE_DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
    "UntypedStorage": torch.uint8,
}
_LONGEST_NAME = 1000
_DTYPES = {
    name: value for name, value in vars(torch).items() if isinstance(value, torch.dtype)
}  # "float32": torch.float32, ...


def parse_reference(reference: Any) -> tuple[torch.dtype, str, int]:
    """Check the reference to a storage.

    Args:
        reference: ("storage", type, key, device, count of numbers, ...).

    Returns:
        Type of its numbers, key, count.

    Raises:
        pickle.UnpicklingError: it is none.
    """
    if not isinstance(reference, tuple) or len(reference) < 5 or reference[0] != "storage":
        raise pickle.UnpicklingError("expected the reference to a storage")
    _, kind, key, _, count = reference[:5]
    known = isinstance(kind, Name) and kind.module in ("torch", "torch.storage")
    dtype = STORAGE_DTYPES.get(kind.name) if known else None
    if dtype is None or not isinstance(key, str) or type(count) is not int or count < 0:
        raise pickle.UnpicklingError("expected the reference to a storage of numbers")
    return dtype, key, count


def as_numbers(raw: Tensor, dtype: torch.dtype, count: int) -> Tensor:
    """See bytes as numbers.

    Args:
        raw: (N,) uint8; 0 and 1 where they are truth values.
        dtype: of the numbers.
        count: how many there are at its beginning.

    Returns:
        (count,) on the same memory.
    """
    raw = raw[: count * dtype.itemsize]
    return raw.view(dtype)


class _ScriptModule:
    """Stands for every class of a TorchScript archive; holds its attributes."""

    def __init__(self) -> None:
        self.attributes: dict[str, Any] = {}

    def take_state(self, state: Any) -> _ScriptModule:
        """Keep the attributes; what else a class of the archive may have is nothing to load."""
        if isinstance(state, dict):
            self.attributes = state
        return self


class _ScriptMakers(dict[tuple[str, str], Callable[..., Any]]):
    """Knows also every class that an archive defines, by what stands for them all."""

    def __contains__(self, key: object) -> bool:
        return self._is_class(key) or super().__contains__(key)

    def __missing__(self, key: tuple[str, str]) -> Callable[..., Any]:
        if self._is_class(key):
            return lambda *_: _ScriptModule()
        raise KeyError(key)

    @staticmethod
    def _is_class(key: object) -> bool:
        return isinstance(key, tuple) and str(key[0]).startswith("__torch__")


def script_attributes(module: Any, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """List the attributes of a module of a TorchScript archive, and of those within it.

    Args:
        module: what the archive's pickle describes.
        prefix: what their names begin with.
        depth: how many modules lie around it.

    Yields:
        Dotted name and value of each.

    Raises:
        pickle.UnpicklingError: a name is longer than any writer makes it.
        LimitError: modules lie within each other too deep.
    """
    if not isinstance(module, _ScriptModule):
        return
    require_within("document_depth", depth, of="modules of the archive within each other")
    for name, value in module.attributes.items():
        if len(prefix) + len(str(name)) > _LONGEST_NAME:
            raise pickle.UnpicklingError(f"a name of more than {_LONGEST_NAME} letters")
        yield f"{prefix}{name}", value
        yield from script_attributes(value, f"{prefix}{name}.", depth + 1)


def _first(value: Any, *_: Any) -> Any:
    return value


def _view(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Tensor:
    """Build a tensor on a storage, of which it may show no more than there is."""
    if not isinstance(storage, Tensor):
        raise pickle.UnpicklingError(f"expected a storage, got {type(storage).__name__}")
    numbers = (offset, *size, *stride)
    if len(size) != len(stride) or not all(type(n) is int and 0 <= n < 2**62 for n in numbers):
        raise pickle.UnpicklingError("expected the offset, size and strides of a tensor")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if 0 not in size and last >= len(storage):
        raise pickle.UnpicklingError(
            f"a tensor of number {last} of a storage, which has {len(storage)}"
        )
    return storage.as_strided(size, stride, storage.storage_offset() + offset)


def _view_as(storage: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> Tensor:
    """Build a tensor of a newer type: (requires_grad, hooks, dtype) follow its strides."""
    kind = rest[2]
    if not isinstance(storage, Tensor) or not isinstance(kind, Name) or kind.name not in _DTYPES:
        raise pickle.UnpicklingError("expected a storage and the type of its numbers")
    return _view(storage.view(_DTYPES[kind.name]), offset, size, stride)


def _size(sizes: Any = ()) -> tuple[int, ...]:
    if not isinstance(sizes, (tuple, list)) or not all(type(n) is int for n in sizes):
        raise pickle.UnpicklingError("expected the sizes of a tensor")
    return tuple(sizes)


def _device(kind: Any, *index: Any) -> torch.device:
    if not isinstance(kind, str) or not all(type(n) is int for n in index):
        raise pickle.UnpicklingError("expected the name of a device")
    return torch.device(kind, *index)


def _default_dictionary(_: Any = None, pairs: Any = ()) -> Any:
    return ARRAYS["collections", "OrderedDict"](pairs)


_NAMES = {
    **{("torch", name): _first for name in (*STORAGE_DTYPES, *_DTYPES)},
    ("torch.storage", "UntypedStorage"): _first,
}
TENSORS: Makers = {
    **ARRAYS,
    **_NAMES,
    ("collections", "defaultdict"): _default_dictionary,
    ("torch", "Size"): _size,
    ("torch", "device"): _device,
    ("torch._utils", "_rebuild_tensor"): _view,
    ("torch._utils", "_rebuild_tensor_v2"): _view,
    ("torch._utils", "_rebuild_tensor_v3"): _view_as,
    ("torch._utils", "_rebuild_parameter"): _first,
    ("torch._utils", "_rebuild_parameter_with_state"): _first,
}
SCRIPT: Makers = _ScriptMakers(
    {
        ("collections", "OrderedDict"): ARRAYS["collections", "OrderedDict"],
        ("torch._utils", "_rebuild_tensor_v2"): _view,
        ("torch._utils", "_rebuild_parameter"): _first,
        **_NAMES,
        **{
            ("torch.jit._pickle", name): _first
            for name in (
                "build_intlist",
                "build_tensorlist",
                "build_doublelist",
                "build_boollist",
                "restore_type_tag",
            )
        },
    }
)
