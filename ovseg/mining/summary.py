"""Figures of a shard and of a whole run; the second are sums of the first."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from ovseg.mining.shards import ShardResult

__all__ = ["BIN_WIDTH", "merge_statistics", "shard_statistics", "summarise"]

BIN_WIDTH = 0.01
"""Width of a histogram's bin; a bin is named by its lower end, such as "0.21"."""

_HISTOGRAMS = ("without_pairs", "quarantine", "pairs_per_image", "nouns", "scores", "margins")


def shard_statistics(result: ShardResult) -> dict[str, dict[str, int]]:
    """Count what a shard gave.

    Args:
        result: of the shard.

    Returns:
        `counts` (see `ShardResult`) and histograms: `without_pairs` by reason, `quarantine` by what
        was at fault, `pairs_per_image`, `nouns` (pairs of each), `scores` and `margins` in bins.
    """
    records = result.records
    per_image = Counter(record["image_id"] for record in records)
    pairs_per_image = Counter(str(pairs) for pairs in per_image.values())
    if result.counts["images_without_pairs"]:
        pairs_per_image["0"] = result.counts["images_without_pairs"]
    margins = (record["margin"] for record in records)
    found = {
        "counts": result.counts,
        "without_pairs": result.without_pairs,
        "quarantine": Counter(entry["kind"] for entry in result.quarantine),
        "pairs_per_image": pairs_per_image,
        "nouns": Counter(record["noun"] for record in records),
        "scores": Counter(_bin(record["clip_score"]) for record in records),
        "margins": Counter(_bin(margin) for margin in margins if margin is not None),
    }
    return {name: dict(sorted(counter.items())) for name, counter in found.items()}


def merge_statistics(parts: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    """Add the figures of shards.

    Args:
        parts: what `shard_statistics` returned for each; other entries are passed over.

    Returns:
        The sums, in the same form.
    """
    sums: dict[str, Counter[str]] = {name: Counter() for name in ("counts", *_HISTOGRAMS)}
    for part in parts:
        for name, counter in sums.items():
            counter.update(part[name])
    return {name: dict(counter) for name, counter in sums.items()}


def summarise(statistics: Mapping[str, Mapping[str, int]]) -> dict[str, Any]:
    """Turn the figures of a run into what a person reads first.

    Args:
        statistics: of the run.

    Returns:
        Plain numbers (images, pairs, nouns, pairs per image and the like), then the histograms:
        nouns with the most frequent first, others in the order of their bins.
    """
    with_labels = ["pairs_from_labels"] if "pairs_from_labels" in statistics["counts"] else []
    counts = {name: statistics["counts"].get(name, 0) for name in (*_COUNTS, *with_labels)}
    images, with_pairs = counts["images_in"], counts["images_with_pairs"]
    nouns = sorted(statistics["nouns"].items(), key=lambda item: (-item[1], item[0]))
    return {
        **counts,
        "unique_nouns": len(nouns),
        "pairs_per_image": round(counts["pairs"] / images, 4) if images else 0.0,
        "pairs_per_image_with_pairs": round(counts["pairs"] / with_pairs, 4) if with_pairs else 0.0,
        "quarantine": dict(sorted(statistics["quarantine"].items())),
        "without_pairs": dict(sorted(statistics["without_pairs"].items())),
        "histograms": {
            "bin_width": BIN_WIDTH,
            **{
                name: dict(sorted(statistics[name].items(), key=lambda item: float(item[0])))
                for name in ("pairs_per_image", "scores", "margins")
            },
            "nouns": dict(nouns),
        },
    }


_COUNTS = (
    "images_in",
    "images_with_pairs",
    "images_without_pairs",
    "images_quarantined",
    "captions",
    "captions_unusable",
    "nouns",
    "regions",
    "pairs",
)


def _bin(value: float) -> str:
    # Values have 4 decimals; the addition keeps 0.29 from falling below its own bin.
    return f"{math.floor(value / BIN_WIDTH + 1e-6) * BIN_WIDTH:.2f}".replace("-0.00", "0.00")
