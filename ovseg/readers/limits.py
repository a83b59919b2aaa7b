"""How much a file from outside may ask for; all limits in one place.

A limit is changed for a program and the processes that it starts by an environment variable, such
as `OVSEG_LIMIT_PICTURE_PIXELS=4e9`, and for a part of a program by `limited`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, fields, replace

__all__ = ["LimitError", "Limits", "limited", "limits", "require_within"]

_PREFIX = "OVSEG_LIMIT_"


class LimitError(ValueError):
    """A file asks for more than a limit allows; the text names the limit and how to change it."""


@dataclass(frozen=True)
class Limits:
    """What a single file may hold. Sizes are in bytes.

    Args:
        picture_pixels: of a picture or label map; 3 bytes each as RGB. Told by its header.
        raster_block_bytes: of a tile or strip of a TIFF that is read by windows.
        outline_pixels: length of the polygons of one region, which decoding takes memory for.
        document_bytes: of a JSON, YAML, CSV or text file.
        yaml_bytes: of a YAML file, which takes longer to read than the others.
        yaml_nodes: that a YAML file stands for, its references followed.
        document_depth: levels of YAML within each other; of JSON, Python's own limit holds.
        yaml_aliases: references (`*name`) in a YAML file, which multiply what they stand for.
        array_bytes: of an array after decompression, as its header says.
        matlab_memory: of the process that reads a MATLAB file, its libraries included.
        matlab_seconds: for one MATLAB file.
        archive_members: of a tar or zip archive.
        member_bytes: of one of them, after decompression.
        table_rows: of a row group of a parquet file, as its footer says.
        table_bytes: of a column of a parquet file after decompression, as its footer says.
        tensor_bytes: of all tensors of a weight file, as its header says.
        pickle_objects: steps of a pickle; each makes an object of some hundred bytes at most,
            besides the bytes of its arrays.
        weight_names: names of tensors, and of modules, in a weight file.
        weight_ratio: how many times its own size the tensors of a weight file may take, which only
            compression, repetition and views of one number many times over bring above 1; 16 MiB
            are always allowed.
        download_bytes: of a file from an address.
    """

    picture_pixels: int = 1_000_000_000
    raster_block_bytes: int = 256 * 2**20
    outline_pixels: int = 2_000_000
    document_bytes: int = 4 * 2**30
    yaml_bytes: int = 16 * 2**20
    yaml_nodes: int = 400_000
    document_depth: int = 200
    yaml_aliases: int = 100
    array_bytes: int = 8 * 2**30
    matlab_memory: int = 4 * 2**30
    matlab_seconds: int = 60
    archive_members: int = 10_000_000
    member_bytes: int = 2**30
    table_rows: int = 20_000_000
    table_bytes: int = 4 * 2**30
    tensor_bytes: int = 64 * 2**30
    pickle_objects: int = 3_000_000
    weight_names: int = 200_000
    weight_ratio: int = 20
    download_bytes: int = 64 * 2**30


_CHANGED: ContextVar[Limits | None] = ContextVar("ovseg_limits", default=None)


def limits() -> Limits:
    """Say which limits hold here: the usual ones, the environment's, those of `limited`.

    Returns:
        The limits.

    Raises:
        LimitError: a variable of the environment is no number of at least 1.
    """
    changed = _CHANGED.get()
    return _from_environment() if changed is None else changed


@contextmanager
def limited(**changes: int) -> Iterator[Limits]:
    """Change limits within a block, for this thread.

    Args:
        **changes: fields of `Limits`.

    Yields:
        The limits inside.
    """
    token = _CHANGED.set(replace(limits(), **changes))
    try:
        yield limits()
    finally:
        _CHANGED.reset(token)


def require_within(name: str, wanted: int, *, of: str, most: int | None = None) -> None:
    """Refuse what is larger than a limit.

    Args:
        name: field of `Limits`.
        wanted: what the file asks for.
        of: the file, for the error.
        most: a smaller or larger limit of the caller's instead.

    Raises:
        LimitError: it is more.
    """
    limit = getattr(limits(), name) if most is None else most
    if wanted > limit:
        raise LimitError(
            f"{of}: expected at most {limit} {name.replace('_', ' ')}, got {wanted}; raise the "
            f"limit by {_PREFIX}{name.upper()} if the file can be trusted"
        )


def _from_environment() -> Limits:
    values = {}
    for field in fields(Limits):
        text = os.environ.get(_PREFIX + field.name.upper())
        if text is None:
            continue
        try:
            value = int(float(text))
        except (ValueError, OverflowError):
            value = 0
        if value < 1:
            raise LimitError(
                f"{_PREFIX}{field.name.upper()}: expected a number of at least 1, got {text!r}"
            )
        values[field.name] = value
    return Limits(**values)
