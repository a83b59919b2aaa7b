"""A decomposition as text, as JSON and as a Markdown table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ovseg.data.splits import split_role
from ovseg.decomposition.decompose import ALL, Decomposition
from ovseg.evaluation.confusion import CONVENTIONS
from ovseg.utils.files import atomic_path, write_json

__all__ = ["text_table", "write_decomposition"]


def text_table(found: Decomposition) -> str:
    """Set the table for a terminal.

    Args:
        found: what was found.

    Returns:
        Several lines without a final newline.
    """
    rows = _cells(found)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = (cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
        lines.append("  ".join([row[0].ljust(widths[0]), *cells]).rstrip())
    return "\n".join([*lines, "", *_notes(found)])


def write_decomposition(
    folder: str | Path, found: Decomposition, manifest: Mapping[str, Any]
) -> Path:
    """Write `decomposition.json` and `decomposition.md`.

    Args:
        folder: made if missing.
        found: what was found.
        manifest: how the numbers came about.

    Returns:
        The Markdown file.
    """
    folder = Path(folder)
    record = {
        "dataset": found.dataset,
        "split": split_role(found.dataset),
        "images": found.images,
        "skipped": dict(found.skipped),
        "mIoU": CONVENTIONS["mIoU"],
        "intervals": found.bootstrap.describe(),
        "proposals_per_image": found.proposals,
        "rows": [asdict(row) for row in found.rows],
        "manifest": dict(manifest),
    }
    write_json(folder / "decomposition.json", record)
    header, *rows = (f"| {' | '.join(cells)} |" for cells in _cells(found))
    rule = f"|---|{'---:|' * (len(_cells(found)[0]) - 1)}"
    page = folder / "decomposition.md"
    with atomic_path(page) as partial:
        notes = [f"{note}  " for note in _notes(found)]
        partial.write_text("\n".join([header, rule, *rows, "", *notes, ""]), encoding="utf-8")
    return page


def _cells(found: Decomposition) -> list[list[str]]:
    """Header and rows; the interval is that of all classes."""
    groups = list(found.rows[0].values)
    titles = ["%", *(group.replace("_", " ") for group in groups)]
    level = f"{found.bootstrap.level:g} % of {ALL}"
    return [
        [*titles, level],
        *(
            [
                f"mIoU: {row.label}" if row.name.startswith("mIoU/") else row.label,
                *(_number(row.values[group]) for group in groups),
                " to ".join(_number(end) for end in row.intervals.get(ALL, ())),
            ]
            for row in found.rows
        ),
    ]


def _notes(found: Decomposition) -> Sequence[str]:
    left_out = f", {len(found.skipped)} left out" if found.skipped else ""
    return (
        f"{found.images} images of {found.dataset}{left_out}; {found.proposals:.1f} proposals per "
        "image",
        f"mIoU, convention {CONVENTIONS['mIoU']}",
        "IoU and recall: means over all pairs of an image and a class in it; accuracy: mean over "
        "classes",
    )


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.1f}"
