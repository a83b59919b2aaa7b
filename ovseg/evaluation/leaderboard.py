"""The leaderboard: measured and reported scores from files, in columns of their own.

A results file is JSON: `kind` ("measured" or "reported"), `reference`, optionally `note`, and
`rows`. A row has `method`, `dataset` (its registered name), `setting`, `source`, and `scores`:
convention -> `value` in percent and, where known, `interval` (two numbers). The conventions are
those of `ovseg.evaluation.confusion`, or "unknown" where a paper does not say. `prompts` says which
classes the method was asked for: "all classes" (also where the field is missing), or "present
classes" where somebody or something told it beforehand what is in the picture.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ovseg.evaluation.confusion import CONVENTIONS
from ovseg.evaluation.results import DatasetResult, ResultError
from ovseg.readers.documents import read_json
from ovseg.utils.files import write_json
from ovseg.utils.wording import markdown_text

__all__ = ["Entry", "leaderboard_page", "measured_file", "read_entries"]

KINDS = ("measured", "reported")
CONVENTION_NAMES = ("ovseg", "detectron2", "unknown")
_MISSING = "–"
PROMPTS = ("all classes", "present classes")
_HEADER = (
    *("method", "setting", "asked for", "measured here, mIoU", "measured here, mIoU-gt"),
    *("reported", "convention of the report", "source"),
)


@dataclass(frozen=True)
class Entry:
    """One score of one method on one dataset.

    Args:
        kind: "measured" or "reported".
        method: name of the method and its backbone.
        dataset: registered name.
        setting: what else distinguishes it.
        prompts: the classes that it was asked for, out of `PROMPTS`.
        source: table of the paper, or what it was measured with.
        reference: of the file.
        scores: convention -> value.
        intervals: convention -> confidence interval.
    """

    kind: str
    method: str
    dataset: str
    setting: str
    prompts: str
    source: str
    reference: str
    scores: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)


def read_entries(folder: str | Path) -> tuple[list[Entry], list[str]]:
    """Read all results files of a folder.

    Args:
        folder: with .json files.

    Returns:
        The entries in the order of file names and rows, and what the page says below its tables:
        a line per file.

    Raises:
        ResultError: a file is not what it should be; the text names file, row and field.
    """
    entries: list[Entry] = []
    remarks = []
    for path in sorted(Path(folder).glob("*.json")):
        content = _load(path)
        kind = content.get("kind")
        _require(kind in KINDS, f"{path.name}: kind", " or ".join(KINDS), kind)
        rows, reference = content.get("rows"), content.get("reference")
        _require(isinstance(rows, list), f"{path.name}: rows", "a list", rows)
        _require(isinstance(reference, str), f"{path.name}: reference", "a text", reference)
        entries += [
            _entry(str(kind), str(reference), row, f"{path.name}: row {number}")
            for number, row in enumerate(rows or ())
        ]
        remarks.append(f"{str(kind).capitalize()}: {reference}. {content.get('note', '')}".strip())
    return entries, remarks


def leaderboard_page(entries: Sequence[Entry], remarks: Iterable[str] = ()) -> str:
    """Set the leaderboard as a Markdown page, a table per dataset.

    Args:
        entries: of any datasets and kinds. What was measured and what was reported of one method
            and setting share a line.
        remarks: lines below the tables, each once.

    Returns:
        The page, ending in a newline.
    """
    lines = [
        *("# Leaderboard", ""),
        "Generated from `docs/results/*.json` by `python tools/leaderboard.py`; do not edit.",
        "Scores are percentages. Two numbers are comparable only under one convention of mIoU:",
        "",
        *(f"- `{name}`: {meaning}" for name, meaning in CONVENTIONS.items()),
        "",
        "Brackets hold 95 % confidence intervals (percentile bootstrap over images). A dash means:",
        "not measured, or not reported.",
        "",
        "`present classes`: the method was told beforehand which classes a picture shows, by its",
        "labels or by another system; such numbers are not comparable to those for all classes.",
    ]
    for dataset in sorted({entry.dataset for entry in entries}):
        lines += [
            "",
            f"## {markdown_text(dataset)}",
            "",
            *_table([e for e in entries if e.dataset == dataset]),
        ]
    sources = [f"- {markdown_text(remark)}" for remark in dict.fromkeys(remarks)]
    lines += ["", "## Sources", "", *sources]
    return "\n".join(lines) + "\n"


def measured_file(folder: str | Path, result: DatasetResult, method: str, setting: str) -> Path:
    """Add a measured result to the folder of results files.

    Args:
        folder: of the results files.
        result: an evaluation with its manifest; incomplete ones are refused.
        method: name of the method and its backbone, as in the reported entries.
        setting: what else distinguishes it, as there.

    Returns:
        The file, replaced where the same was measured before.

    Raises:
        ResultError: the manifest is missing, or images are.
    """
    images, manifest = result.metrics["images"], result.manifest
    if not manifest or images["scored"] != images["expected"]:
        raise ResultError(
            f"{result.folder}: expected a complete evaluation with its manifest.json, got "
            f"{images['scored']} of {images['expected']} images and "
            f"{'a' if manifest else 'no'} manifest; evaluate again"
        )
    scores: dict[str, Any] = {}
    for convention, key in (("ovseg", "mIoU"), ("detectron2", "mIoU-gt")):
        scores[convention] = {"value": round(float(result.scores[key] or 0.0), 2)}
        interval = result.interval(key)
        if interval is not None:
            scores[convention]["interval"] = [round(value, 2) for value in interval]
    environment = manifest["environment"]
    source = f"ovseg {environment['ovseg']}, backend {manifest['backend']}"
    row = {
        "method": method,
        "dataset": result.dataset,
        "setting": setting,
        "prompts": manifest["protocol"].get("classes_asked_for", PROMPTS[0]),
        "source": source,
        "scores": scores,
        "manifest": {key: manifest[key] for key in ("protocol", "hashes", "remarks")},
    }
    slug = re.sub(r"[^a-z0-9]+", "_", f"{method} {setting} {result.dataset}".lower()).strip("_")
    path = Path(folder) / f"measured_{slug}.json"
    reference = f"{method} on {result.dataset}, tools/train_net.py --eval-only"
    write_json(path, {"kind": "measured", "reference": reference, "rows": [row]})
    return path


def _table(entries: Sequence[Entry]) -> list[str]:
    groups: dict[tuple[str, str, str], list[Entry]] = {}
    for entry in entries:
        groups.setdefault((entry.method, entry.setting, entry.prompts), []).append(entry)

    def best(group: Sequence[Entry]) -> float:
        return max(max(entry.scores.values()) for entry in group)

    order = sorted(groups, key=lambda key: (-best(groups[key]), key))
    lines = [_row(_HEADER), _row(["---"] * len(_HEADER))]
    for key in order:
        group = groups[key]
        measured = [entry for entry in group if entry.kind == "measured"]
        reported = [entry for entry in group if entry.kind == "reported"]
        cells = [
            *key,
            *(_joined(_number(e, name) for e in measured) for name in CONVENTION_NAMES[:2]),
            _joined(_number(e, name) for e in reported for name in e.scores),
            _joined(name for e in reported for name in e.scores),
            _joined(dict.fromkeys(entry.source for entry in group)),
        ]
        lines.append(_row(cells))
    return lines


def _number(entry: Entry, convention: str) -> str:
    if convention not in entry.scores:
        return ""
    interval = entry.intervals.get(convention)
    decimals = 1 if entry.kind == "reported" else 2
    text = f"{entry.scores[convention]:.{decimals}f}"
    return text if interval is None else f"{text} [{interval[0]:.2f}, {interval[1]:.2f}]"


def _joined(texts: Iterable[str]) -> str:
    return "; ".join(text for text in texts if text) or _MISSING


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(markdown_text(cell) for cell in cells) + " |"


def _load(path: Path) -> dict[str, Any]:
    try:
        content = read_json(path)
    except (OSError, ValueError) as error:
        raise ResultError(f"{path.name}: expected a JSON file, got: {error}") from error
    _require(isinstance(content, dict), path.name, "an object", content)
    return dict(content)


def _entry(kind: str, reference: str, row: Any, where: str) -> Entry:
    _require(isinstance(row, dict), where, "an object", row)
    for name in ("method", "dataset", "setting", "source"):
        _require(isinstance(row.get(name), str), f"{where}: {name}", "a text", row.get(name))
    scores = row.get("scores")
    _require(isinstance(scores, dict) and bool(scores), f"{where}: scores", "an object", scores)
    values: dict[str, float] = {}
    intervals: dict[str, tuple[float, float]] = {}
    for convention, score in scores.items():
        place = f"{where}: scores: {convention}"
        _require(convention in CONVENTION_NAMES, place, " or ".join(CONVENTION_NAMES), convention)
        value = score.get("value") if isinstance(score, dict) else None
        percent = isinstance(value, (int, float)) and 0 <= value <= 100
        _require(percent, f"{place}: value", "a percentage", value)
        values[convention] = float(score["value"])
        if "interval" in score:
            low, high = score["interval"]
            intervals[convention] = (float(low), float(high))
    texts = {name: row[name] for name in ("method", "dataset", "setting", "source")}
    texts["prompts"] = row.get("prompts", PROMPTS[0])
    _require(
        texts["prompts"] in PROMPTS, f"{where}: prompts", " or ".join(PROMPTS), texts["prompts"]
    )
    return Entry(kind=kind, reference=reference, scores=values, intervals=intervals, **texts)


def _require(met: bool, where: str, expected: str, got: Any) -> None:
    if not met:
        raise ResultError(f"{where}: expected {expected}, got {got!r}")
