"""Reading the files of `torch.save` and `torch.jit.save` without running any code of theirs.

Both are a pickle that refers to storages: in a zip archive each is an entry of its own, in the old
form of `torch.save` they follow one after another. The pickle goes through `pickles.Machine`; what
it says about a storage or a tensor is compared with what the file holds before memory is asked for.
The checksums that a zip archive has of its entries are compared, which `torch.load` does not do.
"""

from __future__ import annotations

import io
import math
import mmap
import os
import pickle
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ovseg.readers.files import open_regular
from ovseg.readers.limits import limits, require_within
from ovseg.readers.pickles import Machine, Makers, read_pickle
from ovseg.readers.torch_tensors import (
    SCRIPT,
    TENSORS,
    as_numbers,
    parse_reference,
    script_attributes,
)

__all__ = [
    "LEGACY_MAGIC",
    "read_torch_archive",
    "read_torch_legacy",
    "read_torchscript",
    "read_weights_pickle",
    "require_modest",
]

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
_CHUNK = 1 << 24
_ALWAYS_ALLOWED = 1 << 24


def read_torch_archive(path: Path, *, values: bool = True, mapped: bool = False) -> Any:
    """Read what `torch.save` wrote in its usual form, a zip archive.

    Args:
        path: the file.
        values: read the numbers, too; else tensors lie on the device "meta".
        mapped: leave the numbers in the file until they are looked at; their checksums are then not
            compared, and the file must stay as it is.

    Returns:
        The object, tensors on the CPU and plain containers; subclasses of dict become dicts.

    Raises:
        pickle.UnpicklingError: it asks for anything else, or contradicts itself.
        zipfile.BadZipFile: it is damaged.
        LimitError: it asks for more memory than a file of its size may.
    """
    with open_regular(path) as file, zipfile.ZipFile(file) as archive:
        return _Archive(archive, path, values=values, mapped=mapped).read(TENSORS)


def read_torchscript(path: Path, *, values: bool = True) -> dict[str, Tensor]:
    """Read the tensors of a TorchScript archive; its code is neither compiled nor run.

    Args:
        path: a file that `torch.jit.save` wrote.
        values: see `read_torch_archive`.

    Returns:
        Every tensor attribute by its dotted name: parameters, buffers, and also attributes that are
        neither, because only the code tells them apart.

    Raises:
        pickle.UnpicklingError: if the archive holds anything but modules, tensors and constants.
        zipfile.BadZipFile: see `read_torch_archive`.
        LimitError: see `read_torch_archive`.
    """
    with open_regular(path) as file, zipfile.ZipFile(file) as archive:
        module = _Archive(archive, path, values=values).read(SCRIPT)
    tensors = {}
    for count, (name, value) in enumerate(script_attributes(module)):
        if count >= limits().weight_names:
            require_within("weight_names", count + 1, of=str(path))
        if isinstance(value, Tensor):
            tensors[name] = value
    return tensors


def read_torch_legacy(path: Path) -> Any:
    """Read what `torch.save` wrote in its old form: a few pickles, then the storages.

    Args:
        path: the file.

    Returns:
        As `read_torch_archive`.

    Raises:
        pickle.UnpicklingError: see `read_torch_archive`.
        LimitError: see `read_torch_archive`.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            return _legacy(mapped, size, of=str(path))


def read_weights_pickle(path: Path) -> Any:
    """Read a plain pickle that holds only containers, numbers, strings, arrays and tensors.

    Args:
        path: a file that `pickle.dump` wrote, by Python 2 or 3.

    Returns:
        The object, arrays as NumPy arrays.

    Raises:
        pickle.UnpicklingError: if it asks for any other type or function.
        LimitError: see `read_torch_archive`.
    """
    return read_pickle(path, _WEIGHTS)


def require_modest(tensors: Mapping[Any, Any], path: Path) -> None:
    """Refuse tensors that take far more memory than the file they come from.

    A tensor may be a view of one number many times over; who copies it pays for all of them.

    Args:
        tensors: by name; other values are left out.
        path: the file.

    Raises:
        LimitError: they do.
    """
    require_within("weight_names", len(tensors), of=str(path))
    wanted = sum(
        value.numel() * value.element_size()
        for value in tensors.values()
        if isinstance(value, Tensor)
    )
    _require_ratio(wanted, path.stat().st_size, of=str(path))


def _require_ratio(wanted: int, size: int, *, of: str) -> None:
    if wanted > _ALWAYS_ALLOWED:
        require_within("weight_ratio", math.ceil(wanted / max(size, 1)), of=of)


class _Archive:
    """The entries of a zip archive that holds a pickle and its storages."""

    def __init__(
        self, archive: zipfile.ZipFile, path: Path, *, values: bool, mapped: bool = False
    ) -> None:
        self._archive = archive
        self._of = str(path)
        self._mapped = mapped
        self._values = values
        self._entries = _entries(archive, path)
        self._root = next(n for n in self._entries if n.endswith("/data.pkl"))[: -len("data.pkl")]
        self._storages: dict[str, Tensor] = {}
        self._truths: set[str] = set()

    def read(self, makers: Makers) -> Any:
        """Follow the pickle."""
        if self._text("byteorder") == b"big":
            raise pickle.UnpicklingError("the archive is big-endian; expected little-endian")
        program = io.BytesIO(self._text("data.pkl"))
        return Machine(program, makers, persistent=self._storage, of=self._of).run()

    def _text(self, name: str) -> bytes:
        entry = self._entries.get(self._root + name)
        return b"" if entry is None else self._archive.read(entry)

    def _storage(self, reference: Any) -> Tensor:
        dtype, key, count = parse_reference(reference)
        entry = self._entries.get(f"{self._root}data/{key}")
        if entry is None:
            raise pickle.UnpicklingError(f"the archive lacks the entry data/{key[:40]}")
        if count * dtype.itemsize > entry.file_size:
            raise pickle.UnpicklingError(
                f"data/{key[:40]}: expected {count} numbers of {dtype.itemsize} bytes, but the "
                f"entry has {entry.file_size} bytes"
            )
        if not self._values:
            return torch.empty(count, dtype=dtype, device="meta")
        if key not in self._storages:
            self._storages[key] = self._content(entry)
        if dtype == torch.bool and key not in self._truths:
            self._truths.add(key)
            self._storages[key].clamp_(max=1)  # other bytes are no truth values
        return as_numbers(self._storages[key], dtype, count)

    def _content(self, entry: zipfile.ZipInfo) -> Tensor:
        """Bytes of an entry, (N,)."""
        if self._mapped and entry.compress_type == zipfile.ZIP_STORED and entry.file_size:
            return self._map(entry)
        raw = torch.empty(entry.file_size, dtype=torch.uint8)
        with self._archive.open(entry) as file:
            _fill(raw, file)
        return raw

    def _map(self, entry: zipfile.ZipInfo) -> Tensor:
        with open_regular(self._of) as file:
            file.seek(entry.header_offset + 26)  # lengths of name and extra field, then both
            lengths = struct.unpack("<2H", file.read(4))
            start = entry.header_offset + 30 + sum(lengths)
            whole = np.memmap(file, dtype=np.uint8, mode="c", offset=start, shape=entry.file_size)
        return torch.from_numpy(whole)


def _entries(archive: zipfile.ZipFile, path: Path) -> dict[str, zipfile.ZipInfo]:
    """List the entries of an archive, after comparing what it says of them with its size."""
    entries = archive.infolist()
    require_within("archive_members", len(entries), of=str(path))
    named = {entry.filename: entry for entry in entries}
    if len(named) != len(entries):
        raise pickle.UnpicklingError("the archive has several entries of one name")
    end = 0
    for entry in sorted(entries, key=lambda entry: entry.header_offset):
        if entry.header_offset < end:
            raise pickle.UnpicklingError(
                f"the entries of the archive overlap at {entry.filename[:100]!r}"
            )
        if entry.compress_type == zipfile.ZIP_STORED and entry.file_size != entry.compress_size:
            raise pickle.UnpicklingError(f"{entry.filename[:100]!r} has two sizes")
        # At least the fixed part of its header lies before its data.
        end = entry.header_offset + 30 + entry.compress_size
    if end > archive.start_dir:
        raise pickle.UnpicklingError("the entries of the archive overlap with its directory")
    total = sum(entry.file_size for entry in entries)
    _require_ratio(total, path.stat().st_size, of=str(path))
    return named


def _fill(raw: Tensor, file: Any) -> None:
    """Read bytes into a tensor, piece by piece; at their end zipfile compares the checksum."""
    view, place = raw.numpy(), 0
    while chunk := file.read(_CHUNK):
        view[place : place + len(chunk)] = np.frombuffer(chunk, dtype=np.uint8)
        place += len(chunk)
    if place != len(view):
        raise pickle.UnpicklingError(f"{place} bytes where {len(view)} were announced")


def _legacy(file: io.BytesIO | mmap.mmap, size: int, *, of: str) -> Any:
    """Read the old form: magic number, protocol, system, content, keys; then the storages."""
    plain: Makers = {}
    magic, protocol, system = (Machine(file, plain, of=of).run() for _ in range(3))
    if magic != LEGACY_MAGIC or protocol != _LEGACY_PROTOCOL or not isinstance(system, dict):
        raise pickle.UnpicklingError("expected a file of torch.save")
    if system.get("little_endian") is not True:
        raise pickle.UnpicklingError("the file is big-endian; expected little-endian")
    whole: dict[str, tuple[torch.dtype, Tensor]] = {}
    announced = 0

    def storage(reference: Any) -> Tensor:
        nonlocal announced
        dtype, key, count = parse_reference(reference)
        if key not in whole:
            announced += count * dtype.itemsize
            if announced > size:
                raise pickle.UnpicklingError(
                    f"it announces more than {announced} bytes of numbers, but has {size} in all"
                )
            raw = torch.empty(count * dtype.itemsize, dtype=torch.uint8)
            whole[key] = dtype, raw
        first, raw = whole[key]
        if first != dtype or count * dtype.itemsize > len(raw):
            raise pickle.UnpicklingError(f"the storage {key[:40]} has two types or sizes")
        view = reference[5] if len(reference) > 5 else None
        if view is not None:  # (its key, offset, count): a part of the storage
            _, offset, length = view
            return as_numbers(raw, dtype, count)[offset : offset + length]
        return as_numbers(raw, dtype, count)

    content = Machine(file, TENSORS, persistent=storage, of=of).run()
    keys = Machine(file, plain, of=of).run()
    if not isinstance(keys, list) or sorted(keys) != sorted(whole):
        raise pickle.UnpicklingError("the list of storages is not that of the tensors")
    for key in keys:
        dtype, raw = whole[key]
        count = int.from_bytes(file.read(8), "little")
        if count * dtype.itemsize != len(raw):
            raise pickle.UnpicklingError(f"the storage {key[:40]} has two sizes")
        if len(raw):
            _fill(raw, _Part(file, len(raw)))
            if dtype == torch.bool:
                raw.clamp_(max=1)
    return content


class _Part:
    """The next bytes of a file as a file that ends after them."""

    def __init__(self, file: io.BytesIO | mmap.mmap, length: int) -> None:
        self._file = file
        self._left = length

    def read(self, most: int) -> bytes:
        """Read up to so many bytes."""
        chunk = self._file.read(min(most, self._left))
        self._left -= len(chunk)
        return chunk


def _storage_from_bytes(data: Any) -> Tensor:
    if not isinstance(data, bytes):
        raise pickle.UnpicklingError("expected the bytes of a storage")
    storage = _legacy(io.BytesIO(data), len(data), of="a tensor of the pickle")
    if not isinstance(storage, Tensor):
        raise pickle.UnpicklingError(f"expected a storage, got {type(storage).__name__}")
    return storage


_WEIGHTS: Makers = {**TENSORS, ("torch.storage", "_load_from_bytes"): _storage_from_bytes}
