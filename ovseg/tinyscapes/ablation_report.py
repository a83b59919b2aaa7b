"""The ablation's results as a page of Markdown tables and a picture."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ovseg.tinyscapes.ablation import ROWS, Row
from ovseg.tuning.sweep import CLIP_ONLY, MASK_CLASSIFIER_ONLY
from ovseg.utils.files import atomic_path
from ovseg.utils.pages import write_page

__all__ = ["write_ablation"]

Result = Mapping[str, Any]
# Results by seed, then by row.
Results = Mapping[int, Mapping[str, Result]]
# NaN is null in JSON: a group that had no region.
Value = Callable[[Result], float | None]

GROUPS = ("all", "seen_things", "unseen_things", "seen_stuff", "unseen_stuff")


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
    rows = _bars(results, split)
    write_page(folder / "ablation.svg", "ovseg.tinyscapes", "ablation.svg", rows=rows)
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
    return lambda result: result["accuracy"][split][key]


def _accuracy_table(results: Results, split: str) -> str:
    columns = [(g.replace("_", " "), _accuracy(split, f"masked/{g}")) for g in GROUPS]
    columns.append(("boxes: all", _accuracy(split, "box/all")))
    return _table(results, [("pairs", lambda r: r["training"].get("pairs", 0)), *columns])


def _proposals_table(results: Results, split: str) -> str:
    columns = [(g.replace("_", " "), _accuracy(split, f"proposals/{g}")) for g in GROUPS]
    return _table(results, columns)


def _system_table(results: Results, split: str) -> str:
    def ensemble(result: Result, key: str) -> float | None:
        return result["system"][split][str(result["chosen_weight"])][key]

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
    for row, found in _rows(results):
        cells = [_cell(_values(found, value)) for _, value in columns]
        lines.append(f"| {row.label} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _rows(results: Results) -> list[tuple[Row, list[Result]]]:
    """The rows that were run, each with the results of its seeds."""
    found = [(row, [r[row.name] for r in results.values() if row.name in r]) for row in ROWS]
    return [(row, of_seeds) for row, of_seeds in found if of_seeds]


def _values(found: Sequence[Result], value: Value) -> list[float]:
    """A number of every seed, NaN where there is none."""
    numbers = [value(result) for result in found]
    return [math.nan if number is None else number for number in numbers]


def _cell(values: Sequence[float]) -> str:
    mean = statistics.fmean(values)
    if math.isnan(mean):
        return "–"
    if all(isinstance(value, int) for value in values):  # a count
        return f"{mean:.0f}"
    return f"{mean:.1f} ± {(max(values) - min(values)) / 2:.1f}" if values[1:] else f"{mean:.1f}"


def _bars(results: Results, split: str) -> list[tuple[str, list[tuple[float, float, float]]]]:
    """Two bars a row, both on unseen things: accuracy on true masks, mIoU of the ensemble."""
    measures: list[Value] = [
        lambda r: r["accuracy"][split]["masked/unseen_things"],
        lambda r: r["system"][split][str(r["chosen_weight"])]["mIoU-unseen_things"],
    ]

    def bar(values: Sequence[float]) -> tuple[float, float, float]:
        return statistics.fmean(values), min(values), max(values)

    return [
        (row.label, [bar(_values(found, measure)) for measure in measures])
        for row, found in _rows(results)
    ]
