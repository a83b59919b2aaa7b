"""One HTML page about one or more evaluations, which opens without network or other files."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ovseg.evaluation.confusion import CONVENTIONS
from ovseg.evaluation.html_examples import EXAMPLES_STYLE, example_cards
from ovseg.evaluation.results import DatasetResult
from ovseg.utils.html import Html, element, histogram, join, page, table, write_page
from ovseg.vocab.class_sets import ClassSets

__all__ = ["write_report"]

_PAIRS = 25
_MISSING = 20
_FOLDED = 60  # more classes than this are folded away
_STYLE = (
    """
.columns { display: flex; flex-wrap: wrap; gap: 1rem 3rem; align-items: flex-start; }
.columns > * { max-width: 100%; }
h3 { font-size: 1.02rem; margin: 1.5rem 0 .4rem; }
table + table { margin-top: .8rem; }
section + section { border-top: 2px solid var(--line); margin-top: 2.5rem; }
.range { color: var(--faint); white-space: nowrap; font-size: .88em; }
.hash { font: .82em ui-monospace, monospace; }
.classes { width: 100%; } .classes td { padding-top: .1rem; padding-bottom: .1rem; }
.classes td.rail { width: 38%; min-width: 9rem; vertical-align: middle; }
.track { position: relative; height: .75rem; background: #eef1f6; }
.track div { position: absolute; top: 0; bottom: 0; }
.track .value { background: var(--bar); left: 0; }
.track .interval { top: 35%; bottom: 35%; background: #12294a; opacity: .55; min-width: 1px; }
summary { cursor: pointer; margin: .4rem 0; }
.warning { color: #9a3412; }
"""
    + EXAMPLES_STYLE
)


def write_report(path: str | Path, results: Sequence[DatasetResult]) -> Path:
    """Write the page.

    Args:
        path: target, replaced atomically.
        results: at least one; several get a table of all first.

    Returns:
        The target.
    """
    alone = len(results) == 1
    title = f"Evaluation on {results[0].dataset}" if alone else "Evaluation"
    parts = [] if alone else [_overview(results)]
    sections = [_section(result, alone=alone) for result in results]
    return write_page(path, page(title, *parts, *sections, style=_STYLE))


def _overview(results: Sequence[DatasetResult]) -> Html:
    rows: list[list[str | float]] = [
        [
            element("a", result.dataset, href=f"#{_anchor(result)}"),
            float(result.metrics["images"]["scored"]),
            float(result.metrics["num_classes"]),
            *(_score(result, key) for key in ("mIoU", "mIoU-gt", "pACC")),
        ]
        for result in results
    ]
    return join(
        [
            table(("data set", "images", "classes", "mIoU", "mIoU-gt", "pACC"), rows),
            _conventions(),
        ]
    )


def _section(result: DatasetResult, *, alone: bool) -> Html:
    return element(
        "section",
        Html("") if alone else element("h2", result.dataset),
        _accounting(result),
        element("div", _scores(result), _protocol(result), class_="columns"),
        _method(result),
        _conventions() if alone else Html(""),
        *example_cards(result),
        _classes(result),
        element("div", _pairs(result), _images(result), class_="columns"),
        _provenance(result),
        id=_anchor(result),
    )


def _accounting(result: DatasetResult) -> Html:
    images = result.metrics["images"]
    text = f"{images['scored']:,} of {images['expected']:,} images, "
    text += f"{result.metrics['num_classes']:,} classes."
    if not images["missing"]:
        return element("p", text)
    shown = list(images["missing"].values())[:_MISSING]
    title = f"{len(images['missing']):,} images are not in the result"
    rest = len(images["missing"]) - len(shown)
    items = [element("li", reason) for reason in shown]
    items += [element("li", f"and {rest:,} more, see metrics.json")] if rest else []
    return join(
        [
            element("p", text),
            element("details", element("summary", title, class_="warning"), element("ul", *items)),
        ]
    )


def _scores(result: DatasetResult) -> Html:
    groups: Mapping[str, Sequence[int]] = result.metrics.get("groups", {})
    rows: list[list[str | float]] = []
    for suffix, name, count in (
        ("", "all", result.metrics["num_classes"]),
        *((f"-{name}", name, len(ids)) for name, ids in groups.items()),
    ):
        accuracy = "pACC" if not suffix else f"pAcc{suffix}"
        keys = (f"mIoU{suffix}", f"mIoU-gt{suffix}", accuracy)
        rows.append([name, float(count), *(_score(result, key) for key in keys)])
    for name, other in ClassSets.make(groups, None, result.metrics["num_classes"]).pairs:
        if f"hIoU-{name}" in result.scores:
            pair = (_score(result, f"hIoU-{name}"), _score(result, f"hIoU-gt-{name}"))
            rows.append([f"harmonic mean ({name}, {other})", "", *pair, ""])
    parts = [
        element("h3", "Scores"),
        table(("", "classes", "mIoU", "mIoU-gt", "pixel accuracy"), rows),
    ]
    others = [["fwIoU", _score(result, "fwIoU")], ["mean class accuracy", _score(result, "mACC")]]
    return element("div", *parts, table((), others))


def _score(result: DatasetResult, key: str) -> Html:
    value, interval = result.scores.get(key), result.interval(key)
    if value is None:
        return Html("–")
    if interval is None:
        return element("span", f"{value:.2f}")
    return join(
        [
            f"{value:.2f} ",
            element("span", f"{interval[0]:.1f} to {interval[1]:.1f}", class_="range"),
        ]
    )


def _method(result: DatasetResult) -> Html:
    made = result.metrics.get("intervals") or {}
    if not made.get("scores"):
        return Html("")
    return element(
        "p",
        f"Ranges: {made['level']:g} % confidence intervals, {made['method']} ({made['images']:,} "
        f"images, {made['resamples']:,} draws, seed {made['seed']}). They cover the choice of "
        "test images, not another training. Compare two results by tools/compare_results.py, "
        "which pairs the images.",
    )


def _conventions() -> Html:
    rows = [[element("strong", name), meaning] for name, meaning in CONVENTIONS.items()]
    return table((), rows)


def _protocol(result: DatasetResult) -> Html:
    protocol = result.manifest.get("protocol") or {}
    if not protocol:
        return Html("")
    rows = [
        [key.replace("_", " "), _plain(value)] for key, value in protocol.items() if key != "mIoU"
    ]
    remarks = [element("p", remark) for remark in result.manifest.get("remarks") or ()]
    return element("div", element("h3", "Protocol"), table((), rows), *remarks)


def _classes(result: DatasetResult) -> Html:
    rows = result.rows("per_class")
    rows.sort(key=lambda row: (row["iou"] == "", -float(row["iou"] or 0), int(row["id"])))
    lines = [
        element(
            "tr",
            element("td", row["name"]),
            element("td", f"{float(row['iou']):.1f}" if row["iou"] else "–", class_="number"),
            element("td", _track(row), class_="rail"),
            element("td", _range(row), class_="range"),
            element("td", f"{int(row['images']):,}", class_="number"),
            element("td", f"{int(row['pixels_true']):,}", class_="number"),
            element("td", f"{int(row['pixels_predicted']):,}", class_="number"),
        )
        for row in rows
    ]
    kinds = (None, "number", None, None, "number", "number", "number")
    titles = ("class", "IoU", "", "interval", "images", "pixels", "predicted")
    head = [element("th", title, class_=kind) for title, kind in zip(titles, kinds, strict=True)]
    whole = element("table", element("tr", *head), *lines, class_="classes")
    if len(rows) > _FOLDED:
        whole = element("details", element("summary", f"all {len(rows):,} classes"), whole)
    return join([element("h3", "Classes, by IoU"), whole])


def _track(row: Mapping[str, str]) -> Html:
    if not row["iou"]:
        return element("span", "not in the ground truth", class_="range")
    bars = [element("div", class_="value", style=f"width: {float(row['iou']):.2f}%")]
    if row["iou_low"]:
        low, high = float(row["iou_low"]), float(row["iou_high"])
        style = f"left: {low:.2f}%; width: {high - low:.2f}%"
        bars.append(element("div", class_="interval", style=style))
    return element("div", *bars, class_="track")


def _range(row: Mapping[str, str]) -> str:
    if not row["iou_low"]:
        return "too few images" if row["iou"] else ""
    return f"{float(row['iou_low']):.1f} to {float(row['iou_high']):.1f}"


def _pairs(result: DatasetResult) -> Html:
    pairs = result.rows("confusion_pairs")
    rows: list[list[str | float]] = [
        [
            pair["true"],
            pair["predicted"],
            round(float(pair["share_of_true"]), 1),
            round(float(pair["share_of_errors"]), 1),
            float(pair["images"]),
        ]
        for pair in pairs[:_PAIRS]
    ]
    title = f"Confusions ({len(rows)} of {len(pairs):,} pairs)"
    if not rows:
        return element("div", element("h3", title), element("p", "No pixel is wrong."))
    header = ("true", "taken for", "% of the true class", "% of all errors", "images")
    return element("div", element("h3", title), table(header, rows))


def _images(result: DatasetResult) -> Html:
    values = [float(row["miou"]) for row in result.rows("images") if row["miou"]]
    drawing = histogram(np.array(values), title="mIoU of single images, in percent", bins=25)
    return element("div", element("h3", "Images"), drawing)


def _provenance(result: DatasetResult) -> Html:
    manifest = result.manifest
    if not manifest:
        return Html("")
    weights = manifest.get("weights") or {}
    hashes = {"weights": None, **(manifest.get("hashes") or {})}
    environment = manifest.get("environment") or {}
    facts = [
        ["weights", str(weights.get("name", ""))],
        ["backend", str(manifest.get("backend", ""))],
        ["processes", str(manifest.get("processes", ""))],
        ["seconds", str(manifest.get("seconds", ""))],
        ["ovseg", f"{environment.get('ovseg', '')} {environment.get('git_commit') or ''}".strip()],
        ["device", str(environment.get("device", ""))],
        *([name, version] for name, version in (environment.get("packages") or {}).items()),
    ]
    prints = [
        [name.replace("_", " "), element("span", value, class_="hash") if value else "–"]
        for name, value in hashes.items()
    ]
    config = element(
        "details",
        element("summary", "config"),
        element("pre", str(manifest.get("config", "")), class_="hash"),
    )
    left = element("div", element("h3", "Made with"), table((), facts))
    right = element("div", element("h3", "Hashes"), table((), prints), config)
    return element("div", left, right, class_="columns")


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _anchor(result: DatasetResult) -> str:
    # Browsers match the fragment of a link after decoding it.
    return html.escape(result.dataset.replace(" ", "-"))
