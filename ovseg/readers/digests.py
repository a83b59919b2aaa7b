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
    digest = hashlib.sha256()
    _update(digest, value)
    return digest.hexdigest()


def _update(digest: Any, value: Any) -> None:
    if isinstance(value, Tensor):
        values = value.detach().cpu().contiguous().reshape(-1)  # (N,)
        digest.update(f"tensor {tuple(value.shape)} {value.dtype}\0".encode())
        digest.update(values.view(torch.uint8).numpy().data if values.numel() else b"")
    elif isinstance(value, Mapping):
        digest.update(f"mapping {len(value)}\0".encode())
        for key in sorted(value, key=lambda key: (type(key).__name__, key)):
            _update(digest, key)
            _update(digest, value[key])
    elif isinstance(value, (list, tuple)) and not isinstance(value, Name):
        digest.update(f"sequence {len(value)}\0".encode())
        for item in value:
            _update(digest, item)
    elif isinstance(value, str):
        text = value.encode("utf-8", "surrogatepass")
        digest.update(f"text {len(text)}\0".encode() + text)
    elif value is None or isinstance(value, (bool, int)):
        digest.update(f"{value}\0".encode())
    elif isinstance(value, float):
        digest.update(b"float " + struct.pack("<d", value))
    else:
        digest.update(b"other\0")  # a type or a device, which readers give as a name
