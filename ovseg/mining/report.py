"""An HTML page by which a person judges mined pairs: numbers, histograms, and pairs to look at."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ovseg.data.captions.sources import ImageRow
from ovseg.data.pairs import record_mask
from ovseg.mining.crops import ReadImage, cut
from ovseg.utils.pages import Histogram, InlineImage, inline_image, make_histogram, write_page

__all__ = ["Gallery", "choose_pairs", "write_report"]

logger = logging.getLogger(__name__)

_FILE = "report.html"
_WHOLE_SIDE = 224
_CROP_SIDE = 104
_ENTRIES = 50
_ENTRY = ("image_id", "uri", "kind", "reason")
_MADE_WITH = ("proposal_model", "clip_model", "noun_tagger", "config_hash")
_OUTLINE = (230, 20, 120)
_FREQUENT = 40


@dataclass(frozen=True)
class Gallery:
    """Which pairs a report shows, as row numbers of the table.

    Attributes:
        best: highest scores first.
        median: scores nearest to the median first.
        worst: lowest scores first.
        rarest: one pair, the best, of each of the rarest nouns.
    """

    best: list[int]
    median: list[int]
    worst: list[int]
    rarest: list[int]


def choose_pairs(records: pa.Table, size: int) -> Gallery:
    """Choose the pairs to show; where there are enough nouns, each is shown once.

    Args:
        records: of the records' schema; their order has no influence.
        size: pairs in each part.

    Returns:
        The rows chosen.
    """
    scores = records["clip_score"].to_numpy().astype(np.float64)  # (P,)
    names = records["pair_id"].to_numpy().astype(str)
    _, nouns, counts = np.unique(
        records["noun"].to_numpy().astype(str), return_inverse=True, return_counts=True
    )
    middle = np.median(scores) if len(scores) else 0.0

    def first(*keys: np.ndarray, repeat: bool = True) -> list[int]:
        order = np.lexsort((names, *reversed(keys)))
        return _spread(order, nouns, size, repeat=repeat)

    return Gallery(
        best=first(-scores),
        median=first(np.abs(scores - middle)),
        worst=first(scores),
        rarest=first(counts[nouns], nouns, -scores, repeat=False),
    )


def write_report(
    output: str | Path,
    records: pa.Table,
    read_image: ReadImage,
    summary: Mapping[str, Any],
    *,
    quarantine: Sequence[Mapping[str, Any]] = (),
    gallery: int = 12,
) -> Path:
    """Write one page that needs no network and no other file.

    Args:
        output: folder, or a path that ends in .html.
        records: the mined pairs.
        read_image: gives the picture of a row; one that cannot be read leaves its place empty.
        summary: of the run. Its plain numbers and texts are listed where the pairs do not tell
            them; `quarantine` and `without_pairs` (reason -> count) become tables.
        quarantine: pictures with their fault (image_id, uri, kind, reason); the first are shown.
        gallery: pairs in each part of the gallery.

    Returns:
        The page's path.
    """
    path = Path(output)
    path = path if path.suffix == ".html" else path / _FILE
    chosen = choose_pairs(records, gallery)
    times = {c["values"]: c["counts"] for c in pc.value_counts(records["noun"]).to_pylist()}
    counts = _most_frequent(times)
    once = sum(count == 1 for count in times.values())

    def cards(indices: Sequence[int]) -> list[dict[str, Any]]:
        rows = [records.slice(index, 1).to_pylist()[0] for index in indices]
        return [{**row, "times": times[row["noun"]], **_pictures(row, read_image)} for row in rows]

    parts = [
        ("Best pairs", "Highest CLIP scores, each noun once if there are enough.", chosen.best),
        ("Median pairs", "Scores nearest to the median.", chosen.median),
        ("Worst pairs", "Lowest CLIP scores.", chosen.worst),
        (
            "Rarest nouns",
            f"{once:,} of {len(counts):,} nouns occur once. Of each, its best pair.",
            chosen.rarest,
        ),
    ]
    shown = [[str(entry.get(name, "")) for name in _ENTRY] for entry in quarantine[:_ENTRIES]]
    return write_page(
        path,
        "ovseg.mining",
        "report.html",
        numbers=_numbers(records, counts, summary),
        plain=_plain(summary),
        reasons={
            "images quarantined": _most_frequent(summary.get("quarantine") or {}),
            "without a pair": _most_frequent(summary.get("without_pairs") or {}),
        },
        quarantine=shown,
        num_quarantined=len(quarantine),
        charts=_charts(records, counts),
        frequent=counts[:_FREQUENT],
        num_nouns=len(counts),
        gallery=[(title, remark, cards(indices)) for title, remark, indices in parts],
    )


def _spread(order: np.ndarray, nouns: np.ndarray, size: int, *, repeat: bool) -> list[int]:
    """Take the first rows in an order, one a noun; with `repeat`, others fill what is left."""
    _, first = np.unique(nouns[order], return_index=True)
    chosen = np.sort(first)[:size]  # positions in the order
    if repeat and len(chosen) < size:
        rest = np.setdiff1d(np.arange(len(order)), chosen)[: size - len(chosen)]
        chosen = np.sort(np.concatenate([chosen, rest]))
    return order[chosen].tolist()


def _most_frequent(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """Put the largest count first, equal ones by name."""
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _numbers(
    records: pa.Table, counts: Sequence[tuple[str, int]], summary: Mapping[str, Any]
) -> list[tuple[str, str | float]]:
    images = len(records["image_id"].unique())
    rows: list[tuple[str, str | float]] = [
        ("pairs", len(records)),
        ("images with pairs", images),
        ("pairs per such image", len(records) / images if images else 0),
        ("nouns", len(counts)),
        ("pairs with a runner-up", len(records) - records["margin"].null_count),
        ("pairs that are each other's best", pc.sum(records["mutual"]).as_py() or 0),
    ]
    for column in _MADE_WITH:
        found = records[column].unique().to_pylist()
        rows.append((column.replace("_", " "), ", ".join(sorted(found))))
    return rows


def _plain(summary: Mapping[str, Any]) -> list[tuple[str, str | float]]:
    """What the summary says in numbers and texts that the pairs do not tell."""
    return [
        # Beside the number of different nouns, "nouns" alone would be a riddle.
        ("nouns in captions" if key == "nouns" else key.replace("_", " "), value)
        for key, value in summary.items()
        if isinstance(value, str | int | float) and key not in _MADE_WITH
    ]


def _charts(records: pa.Table, counts: Sequence[tuple[str, int]]) -> list[Histogram]:
    area = records["area"].to_numpy().astype(np.float64)
    pixels = records["height"].to_numpy().astype(np.float64) * records["width"].to_numpy()
    times = np.array([count for _, count in counts], np.float64)
    return [
        make_histogram(records["clip_score"].to_numpy(), title="CLIP score"),
        make_histogram(records["margin"].to_numpy(), title="Margin over the runner-up"),
        make_histogram(records["noun_probability"].to_numpy(), title="Probability among the nouns"),
        make_histogram(area / pixels, title="Area, as a share of the image"),
        make_histogram(np.log10(times), title="Pairs of a noun, decimal logarithm"),
    ]


def _pictures(row: Mapping[str, Any], read_image: ReadImage) -> dict[str, InlineImage | str]:
    """The whole picture and the region of a pair, or why they cannot be shown."""
    try:
        image = read_image(ImageRow(row["image_id"], row["image_uri"], captions=()))
        mask = record_mask(row)
        crop, _ = cut(image, mask)
    except (OSError, ValueError) as error:
        # Hours of mining lie behind; one moved picture must not cost the page.
        logger.warning("%s: not shown in the report: %s", row["image_uri"], error)
        return {"fault": str(error)}
    return {
        "fault": "",
        "whole": inline_image(_outlined(image, mask), max_side=_WHOLE_SIDE),
        "region": inline_image(_scaled(crop, _CROP_SIDE), max_side=_CROP_SIDE),
    }


def _outlined(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Draw a region's outline and fade its surroundings, at the size of the page."""
    small = _scaled(image, _WHOLE_SIDE)  # (h, w, 3)
    size = (small.shape[1], small.shape[0])
    inside = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)  # (h, w)
    small[inside == 0] = small[inside == 0] // 3 + 160
    outlines, _ = cv2.findContours(inside, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    return cv2.drawContours(small, outlines, -1, _OUTLINE, 2)


def _scaled(image: np.ndarray, side: int) -> np.ndarray:
    """Bring the longer side to `side` pixels, up or down."""
    scale = side / max(image.shape[:2])
    height, width = (max(1, round(length * scale)) for length in image.shape[:2])
    smooth = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return cv2.resize(image, (width, height), interpolation=smooth)
