"""Reading tensors out of TorchScript archives and pickles without running anything from them.

Both formats are pickles. A pickle is a program that may call whatever names it imports; the readers
here hand out only the names in their tables, each of which builds a tensor, an array or a plain
container, and refuse the rest.
"""

from __future__ import annotations

import io
import pickle
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

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
}


def archive_kind(path: Path) -> str:
    """Tell the format of a weight file from its content.

    Args:
        path: an existing file.

    Returns:
        "safetensors", "torchscript", "torch" (either container of torch.save) or "pickle";
        "unknown" for anything else.
    """
    with path.open("rb") as file:
        head = file.read(32)
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = {name.partition("/")[2] for name in archive.namelist()}
        if "data.pkl" not in names:
            return "unknown"
        return "torchscript" if "constants.pkl" in names else "torch"
    if head[8:9] == b"{":
        return "safetensors"
    if b"\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19" in head:  # the magic number of old torch.save
        return "torch"
    return "pickle" if head[:1] == b"\x80" else "unknown"


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a TorchScript archive; its code is neither compiled nor run.

    Args:
        path: a file that `torch.jit.save` wrote.

    Returns:
        Every tensor attribute by its dotted name: parameters, buffers, and also attributes that are
        neither, because only the code tells them apart.

    Raises:
        pickle.UnpicklingError: if the archive holds anything but modules, tensors and constants.
    """
    with zipfile.ZipFile(path) as archive:
        root = next(n for n in archive.namelist() if n.endswith("/data.pkl"))[: -len("data.pkl")]
        if root + "byteorder" in archive.namelist() and archive.read(root + "byteorder") == b"big":
            raise pickle.UnpicklingError("the archive is big-endian; expected little-endian")
        module = _ScriptUnpickler(archive, root).load()
    return dict(_tensors(module, prefix=""))


def read_pickle(path: Path) -> Any:
    """Read a plain pickle that holds only containers, numbers, strings, arrays and tensors.

    Args:
        path: a file that `pickle.dump` wrote, by Python 2 or 3.

    Returns:
        The object, arrays as NumPy arrays.

    Raises:
        pickle.UnpicklingError: if it asks for any other type or function.
    """
    with path.open("rb") as file:
        return _WeightsUnpickler(file, encoding="latin1").load()


def read_plain_pickle(path: Path) -> Any:
    """Read a pickle that holds only containers, numbers, strings and arrays.

    Args:
        path: a file that `pickle.dump` wrote, by Python 2 or 3.

    Returns:
        The object.

    Raises:
        pickle.UnpicklingError: if it asks for any other type or function, or is damaged.
    """
    try:
        with path.open("rb") as file:
            return _PlainUnpickler(file, encoding="latin1").load()
    except (EOFError, ValueError, TypeError, LookupError, AttributeError, OverflowError) as error:
        # What `pickle` raises on a program that was cut off or changed.
        raise pickle.UnpicklingError(f"the file is damaged: {error}") from error


class _ScriptModule:
    """Stands for every class of the archive; holds its attributes."""

    def __init__(self) -> None:
        self.attributes: dict[str, Any] = {}

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.attributes = state


def _tensors(module: Any, prefix: str) -> Iterator[tuple[str, Tensor]]:
    if not isinstance(module, _ScriptModule):
        return
    for name, value in module.attributes.items():
        if isinstance(value, Tensor):
            yield prefix + name, value
        else:
            yield from _tensors(value, f"{prefix}{name}.")


def _first(value: Any, *_: Any) -> Any:
    return value


def _rebuild_tensor(
    storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any
) -> Tensor:
    if not isinstance(storage, Tensor):
        raise pickle.UnpicklingError(f"expected a storage, got {type(storage).__name__}")
    return storage.as_strided(size, stride, offset).clone()


class _Restricted(pickle.Unpickler):
    """Hands out the names in `allowed` and refuses all others."""

    allowed: ClassVar[Mapping[tuple[str, str], Any]] = {}

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self.allowed[module, name]
        except KeyError:
            raise pickle.UnpicklingError(
                f"the file asks for {module}.{name}, which is neither a tensor, an array nor a "
                "plain container; it is another kind of file or not to be trusted"
            ) from None


class _ScriptUnpickler(_Restricted):
    allowed: ClassVar[Mapping[tuple[str, str], Any]] = {
        ("collections", "OrderedDict"): OrderedDict,
        ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
        ("torch._utils", "_rebuild_parameter"): _first,
        **{("torch", name): dtype for name, dtype in STORAGE_DTYPES.items()},
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

    def __init__(self, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(io.BytesIO(archive.read(root + "data.pkl")))
        self._archive = archive
        self._root = root
        self._storages: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("__torch__"):
            return _ScriptModule
        return super().find_class(module, name)

    def persistent_load(self, pid: Any) -> Tensor:
        kind, dtype, key, _, count = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            raise pickle.UnpicklingError(f"expected the reference to a storage, got {pid!r}")
        if key not in self._storages:
            data = bytearray(self._archive.read(f"{self._root}data/{key}"))
            self._storages[key] = (
                torch.frombuffer(data, dtype=dtype, count=count) if data else torch.empty(0)
            )
        return self._storages[key]


def _numpy_functions() -> dict[tuple[str, str], Any]:
    # NumPy 1 and 2 keep these under different names; they are asked for instead of imported.
    array_reconstruct = np.empty(0).__reduce__()[0]
    array_from_buffer = np.empty(0).__reduce_ex__(5)[0]
    make_scalar = np.float32(0).__reduce__()[0]
    allowed: dict[tuple[str, str], Any] = {}
    for package in ("numpy.core", "numpy._core"):
        allowed[f"{package}.multiarray", "_reconstruct"] = array_reconstruct
        allowed[f"{package}.multiarray", "scalar"] = make_scalar
        allowed[f"{package}.numeric", "_frombuffer"] = array_from_buffer
    return allowed


def _encode(text: str, encoding: str = "latin1") -> bytes:
    # How Python 3 writes bytes in the old protocols; other codecs have no place in a weight file.
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"expected the encoding latin1, got {encoding!r}")
    return text.encode("latin1")


def _storage_from_bytes(data: bytes) -> Any:
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


def _rebuild_from_storage(storage: Any, *layout: Any) -> Tensor:
    with warnings.catch_warnings():  # the file decides on the deprecated class, not the caller
        warnings.filterwarnings("ignore", message="TypedStorage is deprecated")
        flat = torch.tensor([], dtype=storage.dtype)
        flat = flat.set_(storage.untyped(), 0, (len(storage),), (1,))
    return _rebuild_tensor(flat, *layout)


class _PlainUnpickler(_Restricted):
    allowed: ClassVar[Mapping[tuple[str, str], Any]] = {
        ("collections", "OrderedDict"): OrderedDict,
        ("_codecs", "encode"): _encode,
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        **_numpy_functions(),
    }


class _WeightsUnpickler(_PlainUnpickler):
    allowed: ClassVar[Mapping[tuple[str, str], Any]] = {
        **_PlainUnpickler.allowed,
        ("torch._utils", "_rebuild_tensor_v2"): _rebuild_from_storage,
        ("torch._utils", "_rebuild_parameter"): _first,
        ("torch.storage", "_load_from_bytes"): _storage_from_bytes,
    }
