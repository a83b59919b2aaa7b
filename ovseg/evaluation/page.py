"""One HTML page about one or more evaluations, which opens without network or other files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ovseg.evaluation.confusion import CONVENTIONS
from ovseg.evaluation.example_cards import example_cards
from ovseg.evaluation.results import DatasetResult
from ovseg.utils.pages import make_histogram, write_page
from ovseg.vocab.class_sets import ClassSets

__all__ = ["write_report"]

_PAIRS = 25
_MISSING = 20
_FOLDED = 60  # more classes than this are folded away


def write_report(path: str | Path, results: Sequence[DatasetResult]) -> Path:
    """Write the page.

    Args:
        path: target, replaced atomically.
        results: at least one; several get a table of all first.

    Returns:
        The target.
    """
    alone = len(results) == 1
    return write_page(
        path,
        "ovseg.evaluation",
        "report.html",
        title=f"Evaluation on {results[0].dataset}" if alone else "Evaluation",
        sections=[_section(result) for result in results],
        conventions=CONVENTIONS,
        folded=_FOLDED,
    )


def _section(result: DatasetResult) -> dict[str, Any]:
    """What the template says of one dataset."""
    missing = list(result.metrics["images"]["missing"].values())
    intervals = result.metrics.get("intervals") or {}
    pairs = result.rows("confusion_pairs")
    ious = [float(row["miou"]) for row in result.rows("images") if row["miou"]]
    return {
        "dataset": result.dataset,
        # Browsers match the fragment of a link after decoding it.
        "anchor": result.dataset.replace(" ", "-"),
        "scored": result.metrics["images"]["scored"],
        "expected": result.metrics["images"]["expected"],
        "num_classes": result.metrics["num_classes"],
        "missing": missing,
        "missing_shown": missing[:_MISSING],
        "overall": {key: _score(result, key) for key in ("mIoU", "mIoU-gt", "pACC")},
        "others": [
            ("fwIoU", _score(result, "fwIoU")),
            ("mean class accuracy", _score(result, "mACC")),
        ],
        **_group_scores(result),
        "intervals": intervals if intervals.get("scores") else None,
        "protocol": _protocol(result.manifest.get("protocol") or {}),
        "remarks": result.manifest.get("remarks") or [],
        "examples": example_cards(result),
        "classes": _classes(result),
        "num_pairs": len(pairs),
        "pairs": [_pair(row) for row in pairs[:_PAIRS]],
        "images": make_histogram(
            np.array(ious), title="mIoU of single images, in percent", bins=25
        ),
        "made_with": _provenance(result.manifest) if result.manifest else None,
    }


def _score(result: DatasetResult, key: str) -> dict[str, Any]:
    return {"value": result.scores.get(key), "interval": result.interval(key)}


def _group_scores(result: DatasetResult) -> dict[str, Any]:
    """Scores of the groups of classes, and the harmonic means of those that have one."""

    def all_of(kinds: Sequence[str], name: str) -> list[dict[str, Any]]:
        return [_score(result, f"{kind}-{name}") for kind in kinds]

    groups: Mapping[str, Sequence[int]] = result.metrics.get("groups", {})
    pairs = ClassSets.make(groups, None, result.metrics["num_classes"]).pairs
    means = [(name, other) for name, other in pairs if f"hIoU-{name}" in result.scores]
    return {
        "groups": [
            (name, len(ids), all_of(("mIoU", "mIoU-gt", "pAcc"), name))
            for name, ids in groups.items()
        ],
        "harmonic": [(name, other, all_of(("hIoU", "hIoU-gt"), name)) for name, other in means],
    }


def _protocol(protocol: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        (key.replace("_", " "), _plain(value)) for key, value in protocol.items() if key != "mIoU"
    ]


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _classes(result: DatasetResult) -> list[dict[str, Any]]:
    """The rows of all classes, the highest IoU first; undefined numbers are None."""
    shares, counts = ("iou", "iou_low", "iou_high"), ("images", "pixels_true", "pixels_predicted")
    rows = [
        {
            "id": int(row["id"]),
            "name": row["name"],
            **{key: float(row[key]) if row[key] else None for key in shares},
            **{key: int(row[key]) for key in counts},
        }
        for row in result.rows("per_class")
    ]
    return sorted(rows, key=lambda row: (row["iou"] is None, -(row["iou"] or 0.0), row["id"]))


def _pair(row: Mapping[str, str]) -> tuple[str | float, ...]:
    shares = (round(float(row[key]), 1) for key in ("share_of_true", "share_of_errors"))
    return (row["true"], row["predicted"], *shares, int(row["images"]))


def _provenance(manifest: Mapping[str, Any]) -> dict[str, Any]:
    weights = manifest.get("weights") or {}
    environment = manifest.get("environment") or {}
    commit = environment.get("git_commit") or ""
    hashes = {"weights": None, **(manifest.get("hashes") or {})}
    return {
        "facts": [
            ("weights", str(weights.get("name", ""))),
            *((name, str(manifest.get(name, ""))) for name in ("backend", "processes", "seconds")),
            ("ovseg", f"{environment.get('ovseg', '')} {commit}".strip()),
            ("device", str(environment.get("device", ""))),
            *(environment.get("packages") or {}).items(),
        ],
        "hashes": [(name.replace("_", " "), value) for name, value in hashes.items()],
        "config": str(manifest.get("config", "")),
    }
