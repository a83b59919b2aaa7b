"""Pairs as pictures: the region cut out of its image, with its mask.

Two forms. "mask": the surroundings carry CLIP's mean colour, as at inference, and the mask is a
picture of its own. "colour-key": the form of the pairs released with OVSeg (Liang et al., CVPR
2023), whose training code takes every pixel of one colour for the surroundings.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from ovseg.clip import CLIP_PIXEL_MEAN
from ovseg.data.captions.sources import ImageRow
from ovseg.data.pair_files import KEY_COLOUR
from ovseg.data.pairs import crop_region, record_mask

__all__ = [
    "FORMS",
    "Pair",
    "ReadImage",
    "cut",
    "encode_png",
    "iterate_pairs",
    "iterate_rows",
]

FORMS = ("mask", "colour-key")

ReadImage = Callable[[ImageRow], np.ndarray]
"""Gives the picture of a row as (H, W, 3) uint8 RGB."""

_MEAN_COLOUR = np.rint(CLIP_PIXEL_MEAN).astype(np.uint8)  # (3,)
_PAIR_ID = re.compile(r"[0-9A-Za-z_-]{1,64}")
_BATCH_ROWS = 1024


@dataclass(frozen=True)
class Pair:
    """One record with its region.

    Attributes:
        row: the record.
        image: (h, w, 3) uint8 RGB of the region's tight box, the surroundings filled.
        mask: (h, w) bool.
    """

    row: Mapping[str, Any]
    image: np.ndarray
    mask: np.ndarray


def cut(image: np.ndarray, mask: np.ndarray, form: str = "mask") -> tuple[np.ndarray, np.ndarray]:
    """Cut a region out and fill what surrounds it.

    Args:
        image: (H, W, 3) uint8 RGB.
        mask: (H, W) bool with at least one pixel.
        form: "mask" fills with CLIP's mean colour; "colour-key" with `KEY_COLOUR`, and raises the
            red of the region's own pixels of that colour by 1, so that the mask can be told from
            the picture.

    Returns:
        (h, w, 3) uint8 picture and (h, w) bool mask of the tight box.

    Raises:
        ValueError: the sizes differ, the mask is empty, or the form is unknown.
    """
    if form not in FORMS:
        raise ValueError(f"form: expected one of {FORMS}, got {form!r}")
    region, inside = crop_region(image, mask)
    if form == "mask":
        region[~inside] = _MEAN_COLOUR
    else:
        region[(region == np.array(KEY_COLOUR, np.uint8)).all(-1), 0] += 1
        region[~inside] = KEY_COLOUR
    return region, inside


def iterate_rows(records: pa.Table) -> Iterator[dict[str, Any]]:
    """Go through the rows of a table, a thousand of them in memory at a time.

    Args:
        records: any columns.

    Yields:
        Each row by column name.
    """
    for batch in records.to_batches(max_chunksize=_BATCH_ROWS):
        yield from batch.to_pylist()


def iterate_pairs(records: pa.Table, read_image: ReadImage, form: str) -> Iterator[Pair]:
    """Cut out the regions of records; pairs in a row that share a picture read it once.

    Args:
        records: of the records' schema.
        read_image: gives the picture of a row.
        form: see `cut`.

    Yields:
        The pairs, in the order of the records.

    Raises:
        ValueError: a picture does not have the size it was mined at, or a pair's name cannot be
            a file's; the text names the pair.
    """
    current: tuple[str, str] | None = None
    image = np.empty(0)
    for row in iterate_rows(records):
        if not _PAIR_ID.fullmatch(row["pair_id"]):
            raise ValueError(
                "pair_id: expected 1 to 64 letters, digits, hyphens and underscores, since it "
                f"names files; got {row['pair_id']!r}"
            )
        address = (row["image_id"], row["image_uri"])
        if address != current:
            image = read_image(ImageRow(*address, captions=()))
            current = address
        try:
            region, mask = cut(image, record_mask(row), form)
        except ValueError as error:
            raise ValueError(f"pair {row['pair_id']} of image {address}: {error}") from error
        yield Pair(row, region, mask)


def encode_png(array: np.ndarray) -> bytes:
    """Encode a picture as PNG in memory.

    Args:
        array: (H, W) or (H, W, 3) uint8, or (H, W) bool, which becomes 0 and 255.

    Returns:
        The file's bytes.
    """
    if array.dtype == np.bool_:
        array = array.astype(np.uint8) * 255
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(array)).save(buffer, format="PNG")
    return buffer.getvalue()
