"""One reader for every container of weights; the format is told from the content."""

from __future__ import annotations

import pickle
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from ovseg.readers.digests import DIGEST, content_digest
from ovseg.readers.files import open_regular
from ovseg.readers.torch_files import (
    LEGACY_MAGIC,
    read_torch_archive,
    read_torch_legacy,
    read_torchscript,
    read_weights_pickle,
    require_modest,
)

__all__ = ["UNREADABLE", "read_weight_file", "weight_file_kind"]

# What the readers raise on a damaged or malicious file; each breaks off before anything is used.
UNREADABLE = (
    pickle.UnpicklingError,
    safetensors.SafetensorError,
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OverflowError,
    RuntimeError,
    TypeError,
    ValueError,
)
_LEGACY_MAGIC = LEGACY_MAGIC.to_bytes(10, "little")


def weight_file_kind(path: Path) -> str:
    """Tell the format of a weight file from its content.

    Args:
        path: an existing file.

    Returns:
        "safetensors", "torchscript", "torch" or "torch_legacy" (the containers of torch.save) or
        "pickle"; "unknown" for anything else.

    Raises:
        OSError: it cannot be read, or is no regular file.
        zipfile.BadZipFile: it is a damaged archive.
    """
    with open_regular(path) as file:
        head = file.read(32)
        if head.startswith(b"PK") and zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                names = {name.partition("/")[2] for name in archive.namelist()}
            if "data.pkl" not in names:
                return "unknown"
            return "torchscript" if "constants.pkl" in names else "torch"
    if _LEGACY_MAGIC in head and head[:1] == b"\x80":
        return "torch_legacy"
    if head[8:9] == b"{":
        return "safetensors"
    return "pickle" if head[:1] == b"\x80" else "unknown"


def read_weight_file(path: Path, kind: str, *, values: bool = True) -> Any:
    """Read a weight file.

    A file that carries a digest is compared with it.

    Args:
        path: the file.
        kind: of `weight_file_kind`, none "unknown".
        values: read the numbers, too; else tensors may be empty or lie on the device "meta".

    Returns:
        The object: tensors by name, or what else was saved.

    Raises:
        OSError: it cannot be read.
        UNREADABLE: one of these, if it is damaged, malicious or asks for more memory than a file of
            its size may.
    """
    if kind == "safetensors":
        return _safetensors(path, values=values)
    if kind == "torchscript":
        content: Any = read_torchscript(path, values=values)
    elif kind == "torch":
        content = read_torch_archive(path, values=values)
    elif kind == "torch_legacy":
        content = read_torch_legacy(path)
    else:
        content = read_weights_pickle(path)
    _require_all_modest(content, path)
    return content


def _safetensors(path: Path, *, values: bool) -> dict[str, torch.Tensor]:
    with safetensors.safe_open(path, "pt") as file:
        metadata: Mapping[str, str] = file.metadata() or {}
        names = list(file.keys())
    if not values:
        return dict.fromkeys(names, torch.empty(0))
    tensors = safetensors.torch.load_file(path)
    expected = metadata.get(DIGEST)
    if expected is not None:
        others = {key: value for key, value in metadata.items() if key != DIGEST}
        if content_digest({"tensors": tensors, "metadata": others}) != expected:
            raise ValueError("its content is not what was written: the digest differs")
    return tensors


def _require_all_modest(content: Any, path: Path) -> None:
    """Look at the tensors of a container and of those within it, as in a checkpoint."""
    found: dict[int, Any] = {}
    waiting, seen = [content], set()
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, torch.Tensor):
            found[id(value)] = value
        elif isinstance(value, Mapping):
            waiting.extend(value.values())
        elif isinstance(value, (list, tuple, set, frozenset)):
            waiting.extend(value)
    require_modest(found, path)
