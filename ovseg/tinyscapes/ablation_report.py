"""The ablation's results as a page of Markdown tables and a picture."""

from __future__ import annotations

import html
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ovseg.tinyscapes.ablation import ROWS
from ovseg.tuning.sweep import CLIP_ONLY, MASK_CLASSIFIER_ONLY
from ovseg.utils.files import atomic_path

__all__ = ["write_ablation"]

Result = Mapping[str, Any]
# Results by seed, then by row.
Results = Mapping[int, Mapping[str, Result]]
Value = Callable[[Result], float]

GROUPS = ("all", "seen_things", "unseen_things", "seen_stuff", "unseen_stuff")
BAR, GAP, LABEL_WIDTH, PLOT_WIDTH = 14, 16, 330, 420
COLOURS = ("#3b6fb6", "#e08a2e")


def write_ablation(results: Results, folder: Path, *, split: str = "test") -> Path:
    """Write `ablation.md` and `ablation.svg`.

    Args:
        results: what `run_row` returned, by seed and row; rows may be missing.
        folder: where the two files go.
        split: whose numbers are shown; ensemble weights are those chosen on val.

    Returns:
        The page.

    Raises:
        ValueError: if there are no results.
    """
    if not results:
        raise ValueError("expected the results of at least one seed, got none")
    size = next(iter(next(iter(results.values())).values()))["size"]
    parts = [
        "# OVSeg's ablations in miniature",
        _introduction(results, size, split),
        "![Accuracy and mIoU on unseen things](ablation.svg)",
        f"## Zero-shot accuracy on ground-truth masks ({split})",
        "Top-1 over all 50 class names, mean over the classes of a group, in percent. "
        "“Boxes” is the accuracy on the same crops with their surroundings left in.",
        _accuracy_table(results, split),
        f"## Zero-shot accuracy on proposals ({split})",
        "The same CLIPs on the proposals of the MaskFormer, cut out as at inference: those whose "
        "pixels belong to one class for at least half. Top-1 for that class, mean over classes.",
        _proposals_table(results, split),
        f"## mIoU of the whole system ({split})",
        "The paper's convention (`mIoU` of the evaluator). The MaskFormer is the same in all rows "
        "of a seed. The ensemble's weight is the one with the best mIoU on val, per row and seed.",
        _system_table(results, split),
    ]
    page = folder / "ablation.md"
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_path(page) as partial:
        partial.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    with atomic_path(folder / "ablation.svg") as partial:
        partial.write_text(_picture(results, split), encoding="utf-8")
    return page


def _introduction(results: Results, size: Mapping[str, int], split: str) -> str:
    seeds = ", ".join(str(seed) for seed in results)
    return (
        f"Made by `make ablation`. Seeds: {seeds}; with each, CLIP, backbone and MaskFormer were "
        f"trained from nothing. Pairs come from {size['pictures']} training pictures; every row "
        f"that trains takes {size['steps']} steps of 128 pairs (a row that starts from another one "
        f"adds its own). Accuracy on {size['accuracy_scenes']} scenes of {split}, mIoU on "
        f"{size[split]}. Numbers are means over seeds, ± half the range between the lowest and the "
        "highest seed; a number without ± is of one seed."
    )


def _accuracy(split: str, key: str) -> Value:
    return lambda result: float(result["accuracy"][split][key])


def _accuracy_table(results: Results, split: str) -> str:
    columns = [(g.replace("_", " "), _accuracy(split, f"masked/{g}")) for g in GROUPS]
    columns.append(("boxes: all", _accuracy(split, "box/all")))
    return _table(results, [("pairs", lambda r: r["training"].get("pairs", 0)), *columns])


def _proposals_table(results: Results, split: str) -> str:
    columns = [(g.replace("_", " "), _accuracy(split, f"proposals/{g}")) for g in GROUPS]
    return _table(results, columns)


def _system_table(results: Results, split: str) -> str:
    def ensemble(result: Result, key: str) -> float:
        return float(result["system"][split][str(result["chosen_weight"])][key])

    return _table(
        results,
        [
            ("MaskFormer only", lambda r: r["system"][split][MASK_CLASSIFIER_ONLY]["mIoU"]),
            ("CLIP only", lambda r: r["system"][split][CLIP_ONLY]["mIoU"]),
            ("ensemble", lambda r: ensemble(r, "mIoU")),
            ("seen", lambda r: ensemble(r, "mIoU-seen")),
            ("unseen", lambda r: ensemble(r, "mIoU-unseen")),
            ("unseen things", lambda r: ensemble(r, "mIoU-unseen_things")),
            ("weight, %", lambda r: 100.0 * r["chosen_weight"]),
        ],
    )


def _table(results: Results, columns: Sequence[tuple[str, Value]]) -> str:
    lines = [
        "| row | " + " | ".join(title for title, _ in columns) + " |",
        "|---|" + "---:|" * len(columns),
    ]
    for row in ROWS:
        found = [rows[row.name] for rows in results.values() if row.name in rows]
        if found:
            cells = [_cell([value(result) for result in found]) for _, value in columns]
            lines.append(f"| {row.label} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(values: Sequence[float]) -> str:
    mean = statistics.fmean(values)
    if all(isinstance(value, int) for value in values):  # a count
        return f"{mean:.0f}"
    return f"{mean:.1f} ± {(max(values) - min(values)) / 2:.1f}" if values[1:] else f"{mean:.1f}"


def _picture(results: Results, split: str) -> str:
    """Two bars a row, both on unseen things: accuracy on true masks, mIoU of the ensemble."""
    measures: list[Value] = [
        lambda r: r["accuracy"][split]["masked/unseen_things"],
        lambda r: r["system"][split][str(r["chosen_weight"])]["mIoU-unseen_things"],
    ]
    shapes: list[str] = []
    top = 40
    for row in ROWS:
        found = [rows[row.name] for rows in results.values() if row.name in rows]
        if not found:
            continue
        label = html.escape(row.label)
        shapes.append(f'<text x="{LABEL_WIDTH - 8}" y="{top + BAR + 4}" class="r">{label}</text>')
        for value, colour in zip(measures, COLOURS, strict=True):
            shapes.extend(_bar([value(result) for result in found], colour, top))
            top += BAR
        top += GAP
    key = (
        f'<rect x="{LABEL_WIDTH}" y="12" width="12" height="12" fill="{COLOURS[0]}"/>'
        f'<text x="{LABEL_WIDTH + 18}" y="22">top-1 on ground-truth masks, unseen things</text>'
        f'<rect x="{LABEL_WIDTH + 290}" y="12" width="12" height="12" fill="{COLOURS[1]}"/>'
        f'<text x="{LABEL_WIDTH + 308}" y="22">mIoU, unseen things</text>'
    )
    width = LABEL_WIDTH + PLOT_WIDTH + 60
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {top}" '
        f'width="{width}" height="{top}"><style>text{{font:12px sans-serif;fill:#1c2330}}'
        f'.r{{text-anchor:end}}</style><rect width="{width}" height="{top}" fill="#fff"/>'
        f"{key}{''.join(shapes)}</svg>\n"
    )


def _bar(values: Sequence[float], colour: str, top: int) -> list[str]:
    scale = PLOT_WIDTH / 100
    mean = statistics.fmean(values)
    behind = LABEL_WIDTH + max(values) * scale + 6
    shapes = [
        f'<rect x="{LABEL_WIDTH}" y="{top}" width="{mean * scale:.1f}" height="{BAR - 2}" '
        f'fill="{colour}"/>',
        f'<text x="{behind:.1f}" y="{top + BAR - 4}">{mean:.1f}</text>',
    ]
    if values[1:]:
        low, high = (LABEL_WIDTH + bound(values) * scale for bound in (min, max))
        middle = top + (BAR - 2) / 2
        shapes.append(
            f'<path d="M{low:.1f} {middle}H{high:.1f}" stroke="#1c2330" stroke-width="1.5"/>'
        )
    return shapes
