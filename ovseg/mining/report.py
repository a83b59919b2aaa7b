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
from ovseg.mining.crops import ReadImage, cut, record_mask
from ovseg.utils.html import (
    Html,
    bar_chart,
    element,
    histogram,
    inline_image,
    join,
    page,
    table,
    write_page,
)

__all__ = ["Gallery", "choose_pairs", "write_report"]

logger = logging.getLogger(__name__)

_FILE = "report.html"
_WHOLE_SIDE = 224
_CROP_SIDE = 104
_ENTRIES = 50
_MADE_WITH = ("proposal_model", "clip_model", "noun_tagger", "config_hash")
_OUTLINE = (230, 20, 120)
_STYLE = """
.numbers, .charts { display: flex; flex-wrap: wrap; gap: 1rem 3rem; align-items: flex-start; }
.pairs { display: grid; grid-template-columns: repeat(auto-fill, minmax(23rem, 1fr)); gap: 1rem; }
.pair { border: 1px solid var(--line); border-radius: 6px; padding: .7rem; }
.pair .pictures { display: flex; gap: .5rem; align-items: flex-start; }
.pair .noun { font-weight: 600; color: var(--ink); font-size: 1.05rem; }
.faults :nth-child(3) { overflow-wrap: normal; }
mark { background: #ffe9a8; }
"""


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
        quarantine: pictures set aside (image_id, uri, kind, reason), the first of which are shown.
        gallery: pairs in each part of the gallery.

    Returns:
        The page's path.
    """
    path = Path(output)
    path = path if path.suffix == ".html" else path / _FILE
    chosen = choose_pairs(records, gallery)
    rows = {index: records.slice(index, 1).to_pylist()[0] for index in _all_rows(chosen)}
    counts = _noun_counts(records)
    times = dict(counts)

    def show(title: str, remark: str, indices: Sequence[int]) -> Html:
        cards = [_card(rows[index], times, read_image) for index in indices]
        grid = element("div", *cards, class_="pairs")
        return element("section", element("h2", title), element("p", remark), grid)

    once = sum(count == 1 for _, count in counts)
    document = page(
        "Mined noun-region pairs",
        _numbers(records, counts, summary),
        _set_aside(summary, quarantine),
        _charts(records, counts),
        show("Best pairs", "Highest CLIP scores, each noun once if there are enough.", chosen.best),
        show("Median pairs", "Scores nearest to the median.", chosen.median),
        show("Worst pairs", "Lowest CLIP scores.", chosen.worst),
        show(
            "Rarest nouns",
            f"{once:,} of {len(counts):,} nouns occur once. Of each, its best pair.",
            chosen.rarest,
        ),
        style=_STYLE,
    )
    return write_page(path, document)


def _all_rows(chosen: Gallery) -> list[int]:
    return sorted({*chosen.best, *chosen.median, *chosen.worst, *chosen.rarest})


def _spread(order: np.ndarray, nouns: np.ndarray, size: int, *, repeat: bool) -> list[int]:
    """Take the first rows in an order, one a noun; with `repeat`, others fill what is left."""
    _, first = np.unique(nouns[order], return_index=True)
    chosen = np.sort(first)[:size]  # positions in the order
    if repeat and len(chosen) < size:
        rest = np.setdiff1d(np.arange(len(order)), chosen)[: size - len(chosen)]
        chosen = np.sort(np.concatenate([chosen, rest]))
    return order[chosen].tolist()


def _noun_counts(records: pa.Table) -> list[tuple[str, int]]:
    """List nouns with their numbers of pairs, the most frequent first."""
    counts = pc.value_counts(records["noun"]).to_pylist()
    return sorted(((c["values"], c["counts"]) for c in counts), key=lambda c: (-c[1], c[0]))


def _numbers(
    records: pa.Table, counts: Sequence[tuple[str, int]], summary: Mapping[str, Any]
) -> Html:
    images = len(records["image_id"].unique())
    with_margin = len(records) - records["margin"].null_count
    rows: list[tuple[str, str | float]] = [
        ("pairs", len(records)),
        ("images with pairs", images),
        ("pairs per such image", len(records) / images if images else 0),
        ("nouns", len(counts)),
        ("pairs with a runner-up", with_margin),
        ("pairs that are each other's best", pc.sum(records["mutual"]).as_py() or 0),
    ]
    for column in _MADE_WITH:
        found = records[column].unique().to_pylist()
        rows.append((column.replace("_", " "), ", ".join(sorted(found))))
    plain = [
        # Beside the number of different nouns, "nouns" alone would be a riddle.
        ("nouns in captions" if key == "nouns" else key.replace("_", " "), value)
        for key, value in summary.items()
        if isinstance(value, str | int | float) and key not in _MADE_WITH
    ]
    tables = [_titled("The pairs", table((), rows))]
    if plain:
        tables.append(_titled("The run", table((), plain)))
    return element("div", *tables, class_="numbers")


def _set_aside(summary: Mapping[str, Any], entries: Sequence[Mapping[str, Any]]) -> Html:
    parts = []
    for key, title in (("quarantine", "images set aside"), ("without_pairs", "without a pair")):
        reasons = sorted((summary.get(key) or {}).items(), key=lambda item: (-item[1], item[0]))
        if reasons:
            parts.append(table((title, "count"), reasons))
    tables = element("div", *parts, class_="numbers")
    if not parts and not entries:
        tables = element("p", "Nothing was set aside.")
    if not entries:
        return _titled("Set aside", tables)
    columns = ("image_id", "uri", "kind", "reason")
    shown = [[str(entry.get(name, "")) for name in columns] for entry in entries[:_ENTRIES]]
    return _titled(
        "Set aside",
        tables,
        element("p", f"The first {len(shown)} of {len(entries):,}:"),
        table(("image", "address", "fault", "reason"), shown, class_="faults"),
    )


def _charts(records: pa.Table, counts: Sequence[tuple[str, int]], most: int = 40) -> Html:
    area = records["area"].to_numpy().astype(np.float64)
    pixels = records["height"].to_numpy().astype(np.float64) * records["width"].to_numpy()
    charts = [
        histogram(records["clip_score"].to_numpy(), title="CLIP score"),
        histogram(records["margin"].to_numpy(), title="Margin over the runner-up"),
        histogram(records["noun_probability"].to_numpy(), title="Probability among the nouns"),
        histogram(area / pixels, title="Area, as a share of the image"),
        histogram(
            np.log10([count for _, count in counts]), title="Pairs of a noun, decimal logarithm"
        ),
    ]
    bars = bar_chart(counts[:most])
    return join(
        [
            _titled("Distributions", element("div", *charts, class_="charts")),
            _titled(f"Most frequent nouns ({min(most, len(counts))} of {len(counts):,})", bars),
        ]
    )


def _card(row: Mapping[str, Any], times: Mapping[str, int], read_image: ReadImage) -> Html:
    margin = "none" if row["margin"] is None else f"{row['margin']:.4f}"
    count = times[row["noun"]]
    pairs = "the only pair" if count == 1 else f"{count:,} pairs"
    facts = (
        f"score {row['clip_score']:.4f}, margin {margin}, {pairs} of this noun, "
        f"image {row['image_id']}"
    )
    start, end = row["span_start"], row["span_end"]
    caption = row["caption"]
    marked = [caption[:start], element("mark", caption[start:end]), caption[end:]]
    return element(
        "article",
        element("p", row["noun"], class_="noun"),
        _pictures(row, read_image),
        element("p", facts),
        element("p", *marked),
        class_="pair",
    )


def _pictures(row: Mapping[str, Any], read_image: ReadImage) -> Html:
    try:
        image = read_image(ImageRow(row["image_id"], row["image_uri"], captions=()))
        mask = record_mask(row)
        crop, _ = cut(image, mask)
    except (OSError, ValueError) as error:
        # Hours of mining lie behind; one moved picture must not cost the page.
        logger.warning("%s: not shown in the report: %s", row["image_uri"], error)
        return element("p", f"The picture cannot be shown: {error}")
    shown = _outlined(image, mask)
    whole = inline_image(shown, alt=f"{row['noun']} in its image", max_side=_WHOLE_SIDE)
    region = inline_image(
        _scaled(crop, _CROP_SIDE), alt=f"the region of {row['noun']}", max_side=_CROP_SIDE
    )
    return element("div", whole, region, class_="pictures")


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


def _titled(title: str, *content: Html) -> Html:
    return element("section", element("h2", title), *content)
