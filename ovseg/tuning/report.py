"""A sweep of the ensemble's settings as text, as JSON and as a page with one heat map a list."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ovseg.data.splits import TEST_SPLIT_FLAG, TUNABLE
from ovseg.evaluation.confusion import CONVENTIONS
from ovseg.tuning.sweep import CLIP_ONLY, MASK_CLASSIFIER_ONLY, Setting
from ovseg.tuning.tune import TunedSetting, Tuning
from ovseg.utils.files import write_json
from ovseg.utils.pages import write_page

__all__ = ["text_tables", "tuning_record", "write_tuning"]

_SHORT = {MASK_CLASSIFIER_ONLY: "mask", CLIP_ONLY: "CLIP"}
_LEGEND = (
    "Mask threshold down, share of CLIP across; mask: the mask classifier alone, CLIP: CLIP alone, "
    "a/b: shares for seen and for unseen names."
)
# Of the lowest and of the highest score: red, green, blue.
_COLOURS = ((247, 33), (250, 94), (255, 168))


def tuning_record(tuning: Tuning, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """All of a sweep as a dict for JSON.

    Args:
        tuning: what was found.
        manifest: how the numbers came about.

    Returns:
        Settings and scores, the best of them, and the manifest; undefined scores are None.
    """
    return {
        "dataset": tuning.dataset,
        "split": tuning.role,
        "tuned_on_test_split": tuning.role not in TUNABLE,
        "origin": tuning.origin,
        "metric": tuning.metric,
        "images": tuning.images,
        "skipped": dict(tuning.skipped),
        "seconds": {name: round(value, 2) for name, value in tuning.seconds.items()},
        "best": {**_setting(tuning.best), "options": list(_options(tuning))},
        "settings": [_setting(result) for result in tuning.results],
        "conventions": dict(CONVENTIONS),
        "manifest": dict(manifest),
    }


def text_tables(tuning: Tuning) -> str:
    """Set one table a template list: thresholds down, weights across, the best marked.

    Args:
        tuning: what was found.

    Returns:
        Several lines without a final newline.
    """
    weights = [_short(weight) for weight in tuning.grid.weights]
    width = max(8, *(len(weight) + 2 for weight in weights))
    lines = [_LEGEND]
    for templates in tuning.grid.templates:
        lines.append(f"{tuning.metric}, templates {templates}")
        lines.append(" " * 8 + "".join(f"{weight:>{width}}" for weight in weights))
        for threshold in tuning.grid.thresholds:
            row = _row(tuning, templates, threshold)
            cells = (f"{_number(r, tuning.metric)}{'*' if r is tuning.best else ' '}" for r in row)
            lines.append(f"{threshold:<8g}" + "".join(f"{cell:>{width}}" for cell in cells))
        lines.append("")
    best = tuning.best
    lines.append(f"* best: {_number(best, tuning.metric)} with {_command(tuning)}")
    spent = ", ".join(f"{name} {value:.1f} s" for name, value in tuning.seconds.items())
    lines.append(f"{len(tuning.results)} settings on {tuning.images} images: {spent}")
    lines.append(tuning.origin)
    return "\n".join(lines)


def write_tuning(folder: str | Path, tuning: Tuning, manifest: Mapping[str, Any]) -> Path:
    """Write `tuning.json` and `tuning.html`.

    Args:
        folder: made if missing.
        tuning: what was found.
        manifest: how the numbers came about.

    Returns:
        The page.
    """
    record = tuning_record(tuning, manifest)
    write_json(Path(folder) / "tuning.json", record)
    return write_page(
        Path(folder) / "tuning.html",
        "ovseg.tuning",
        "tuning.html",
        tuning=tuning,
        on_test_split=tuning.role not in TUNABLE,
        flag=TEST_SPLIT_FLAG,
        facts=_facts(tuning),
        legend=_LEGEND,
        weights=[_short(weight) for weight in tuning.grid.weights],
        maps={templates: _heat_map(tuning, templates) for templates in tuning.grid.templates},
        manifest=json.dumps(dict(manifest), indent=1, default=str),
    )


def _options(tuning: Tuning) -> tuple[str, ...]:
    """KEY VALUE words that set the best setting, and say in every manifest where it is from."""
    return (*tuning.best.options(), "TEST.TUNED_ON", tuning.origin)


def _command(tuning: Tuning) -> str:
    return shlex.join(_options(tuning))


def _facts(tuning: Tuning) -> list[tuple[str, str]]:
    return [
        ("best", f"{_number(tuning.best, tuning.metric)} {tuning.metric}"),
        ("settings", _command(tuning)),
        ("images", f"{tuning.images} of {tuning.dataset} ({tuning.role} split)"),
        ("left out", f"{len(tuning.skipped)} unreadable"),
        ("time", ", ".join(f"{name} {value:.1f} s" for name, value in tuning.seconds.items())),
        *CONVENTIONS.items(),
    ]


def _heat_map(tuning: Tuning, templates: str) -> list[tuple[str, list[dict[str, Any]]]]:
    """The cells of each threshold; all maps share one scale of colours."""
    known = [r.scores[tuning.metric] for r in tuning.results]
    known = [value for value in known if not math.isnan(value)]
    worst, best = (min(known), max(known)) if known else (0.0, 0.0)

    def cell(result: TunedSetting) -> dict[str, Any]:
        value = result.scores[tuning.metric]
        share = 0.0 if math.isnan(value) or best == worst else (value - worst) / (best - worst)
        return {
            "text": _number(result, tuning.metric),
            "best": result is tuning.best,
            "colour": [round(low + share * (high - low)) for low, high in _COLOURS],
            "ink": "#fff" if share > 0.7 else "#1c2330",
        }

    return [
        (f"{threshold:g}", [cell(result) for result in _row(tuning, templates, threshold)])
        for threshold in tuning.grid.thresholds
    ]


def _row(tuning: Tuning, templates: str, threshold: float) -> list[TunedSetting]:
    return [r for r in tuning.results if (r.templates, r.threshold) == (templates, threshold)]


def _setting(result: TunedSetting) -> dict[str, Any]:
    found = {k: None if math.isnan(v) else v for k, v in result.scores.items()}
    return {
        "templates": result.templates,
        "threshold": result.threshold,
        "weight": result.weight,
        "scores": found,
    }


def _number(result: TunedSetting, metric: str) -> str:
    value = result.scores[metric]
    return "-" if math.isnan(value) else f"{value:.2f}"


def _short(weight: Setting) -> str:
    if isinstance(weight, tuple):
        return "/".join(f"{number}" for number in weight)
    return _SHORT.get(str(weight), f"{weight}")
