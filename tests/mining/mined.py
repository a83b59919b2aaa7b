"""A few mined pairs with their pictures, made by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from ovseg.data.captions.sources import ImageRow
from ovseg.mining.records import make_pair_id, records_table
from ovseg.utils.masks import encode_rle

NOUNS = ("dog", "cat", "red kite", "null")


def make_image(number: int, size: tuple[int, int] = (24, 36)) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (*size, 3), np.uint8)


def make_mask(number: int, size: tuple[int, int] = (24, 36)) -> np.ndarray:
    """An ellipse somewhere in the picture."""
    rng = np.random.default_rng(1000 + number)
    rows, columns = np.mgrid[: size[0], : size[1]]
    centre, radii = rng.uniform(8, 14, 2), rng.uniform(3, 8, 2)
    return ((rows - centre[0]) / radii[0]) ** 2 + ((columns - centre[1]) / radii[1]) ** 2 < 1


def make_record(number: int, image: int, noun: str, **changes: Any) -> dict[str, Any]:
    mask = make_mask(number)
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    caption = f"a {noun} in the scene"
    counts = encode_rle(mask)["counts"]
    record = {
        "pair_id": make_pair_id(f"sha{image}", caption, (2, 2 + len(noun)), counts, noun),
        "image_id": str(100 + image),
        "image_uri": f"train/{image}.png",
        "image_sha256": f"sha{image}",
        "height": mask.shape[0],
        "width": mask.shape[1],
        "caption": caption,
        "caption_index": 0,
        "span_start": 2,
        "span_end": 2 + len(noun),
        "noun": noun,
        "lemma": noun,
        "rle_counts": counts,
        "bbox": [
            int(columns[0]),
            int(rows[0]),
            int(columns[-1]) + 1,
            int(rows[-1]) + 1,
        ],
        "area": int(mask.sum()),
        "clip_score": 0.2 + 0.001 * number,
        "runner_up_score": 0.1,
        "margin": 0.1 + 0.001 * number,
        "noun_probability": 0.5,
        "mutual": True,
        "proposal_model": "instances",
        "clip_model": "tiny",
        "noun_tagger": "tagger",
        "config_hash": "c0ffee",
        "origin": "caption",
    }
    return {**record, **changes}


def make_records(count: int, *, nouns: tuple[str, ...] = NOUNS) -> pa.Table:
    """Pair i is of image i // 2 and has mask i."""
    rows = [make_record(i, i // 2, nouns[i % len(nouns)]) for i in range(count)]
    return records_table(rows)


class Pictures:
    """Reads what `make_image` makes, and counts."""

    def __init__(self) -> None:
        self.read: list[str] = []

    def __call__(self, row: ImageRow) -> np.ndarray:
        self.read.append(row.image_id)
        return make_image(int(row.image_id) - 100)
