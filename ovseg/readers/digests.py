"""A digest of content, which every file of ours carries: flipped bits are told, not used."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ovseg.readers.pickles import Name

__all__ = ["DIGEST", "content_digest"]

DIGEST = "ovseg_digest"
"""What it is called in a file."""


def content_digest(value: Any) -> str:
    """Hash plain data and tensors, whatever file they lie in.

    Args:
        value: tensors, numbers, texts and None in mappings and sequences. The order of a mapping
            does not count, nor whether a sequence is a list or a tuple, nor where a tensor lies; of
            anything else only that it is there.

    Returns:
        sha256 in hexadecimal.
    """
    return hashlib.sha256(_part(value, {})).hexdigest()


def _part(value: Any, known: dict[int, bytes]) -> bytes:
    """Give what stands for a value; what lies in many places is hashed once."""
    if isinstance(value, str):
        return b"text " + hashlib.sha256(value.encode("utf-8", "surrogatepass")).digest()
    if value is None or isinstance(value, (bool, int)):
        return f"{value}\0".encode()
    if isinstance(value, float):
        return b"float " + struct.pack("<d", value)
    if id(value) not in known:
        known[id(value)] = _hashed(value, known)
    return known[id(value)]


def _hashed(value: Any, known: dict[int, bytes]) -> bytes:
    digest = hashlib.sha256()
    if isinstance(value, Tensor):
        values = value.detach().cpu().contiguous().reshape(-1)  # (N,)
        digest.update(f"tensor {tuple(value.shape)} {value.dtype}\0".encode())
        digest.update(values.view(torch.uint8).numpy().data if values.numel() else b"")
    elif isinstance(value, Mapping):
        digest.update(b"mapping")
        for key in sorted(value, key=lambda key: (type(key).__name__, key)):
            digest.update(_part(key, known) + _part(value[key], known))
    elif isinstance(value, (list, tuple)) and not isinstance(value, Name):
        digest.update(b"sequence")
        for item in value:
            digest.update(_part(item, known))
    return digest.digest()  # of a type or a device, which readers give as a name, only that it is
