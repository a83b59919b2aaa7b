"""The part of an evaluation's page that shows predictions beside their truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from ovseg.evaluation.confusion import unique_names
from ovseg.evaluation.results import DatasetResult
from ovseg.utils.html import Html, element, inline_image
from ovseg.utils.images import ImageError, read_image, read_label
from ovseg.visualization import BLANK, blend, palette, pixel_counts

__all__ = ["EXAMPLES_STYLE", "example_cards"]

_SIDE = 320
_WRONG = (214, 40, 40)
_LEGEND = 12
EXAMPLES_STYLE = """
.example { margin: 0 0 1.3rem; max-width: 62rem; }
.example .row { display: grid; grid-template-columns: repeat(4, minmax(0, 1fr)); gap: .5rem; }
.example img { width: 100%; height: auto; display: block; }
.example figcaption { font-size: .85em; margin: .15rem 0 0; }
.legend { display: flex; flex-wrap: wrap; gap: .15rem .9rem; margin: .3rem 0 0; font-size: .85em; }
.legend span { white-space: nowrap; }
.chip { display: inline-block; width: .8em; height: .8em; margin-right: .35em;
  border: 1px solid #0003; vertical-align: -.05em; }
"""


def example_cards(result: DatasetResult) -> list[Html]:
    """Show the worst and the best images of an evaluation.

    Args:
        result: with the examples that the evaluator kept.

    Returns:
        A title and a card per image for either end; nothing where no example was kept.
    """
    examples: Mapping[str, Sequence[Mapping[str, str]]] = result.metrics.get("examples") or {}
    if not any(examples.values()):
        return []
    names = unique_names([row["name"] for row in result.rows("per_class")])
    colors = palette(names)
    numbers = {row["file"]: row for row in result.rows("images")}
    parts: list[Html] = []
    for end in ("worst", "best"):
        entries = examples.get(end) or ()
        if entries:
            parts.append(element("h3", f"{end.capitalize()} images, by their own mIoU"))
        for entry in entries:
            facts = _facts(entry["name"], numbers.get(entry["name"], {}))
            parts.append(element("article", *facts, *_pictures(result, entry, names, colors)))
    parts.append(
        element(
            "p",
            "Pixels without a class in the ground truth are left as photographed; in the last "
            "column wrong pixels are red.",
        )
    )
    return parts


def _facts(name: str, row: Mapping[str, Any]) -> list[Html]:
    said = f"{name}: mIoU {_number(row, 'miou')}, pixel accuracy {_number(row, 'accuracy')}"
    if row.get("largest_error"):
        true, _, predicted = row["largest_error"].partition(" > ")
        said += f"; most often {true} taken for {predicted}"
    return [element("p", said)]


def _number(row: Mapping[str, Any], key: str) -> str:
    return f"{float(row[key]):.1f}" if row.get(key) else "–"


def _pictures(
    result: DatasetResult,
    entry: Mapping[str, str],
    names: Sequence[str],
    colors: np.ndarray,
) -> list[Html]:
    try:
        image = read_image(entry["image"])
        truth = read_label(entry["labels"])
        predicted = read_label(result.folder / entry["prediction"])
    except ImageError as error:
        return [element("p", f"cannot be shown: {error}", class_="warning")]
    ignored = truth == int(result.metrics["ignore_label"])
    truth = np.where(ignored, BLANK, truth)
    image, truth, predicted = _reduce(image, truth, predicted)
    seen = np.where(truth == BLANK, BLANK, predicted)
    shown = (
        ("picture", image),
        ("truth", blend(image, truth, colors, alpha=0.7)),
        ("prediction", blend(image, predicted, colors, alpha=0.7)),
        ("errors", _errors(image, truth, predicted)),
    )
    figures = [
        element(
            "figure",
            inline_image(picture, alt=f"{title} of {entry['name']}", max_side=_SIDE, quality=88),
            element("figcaption", title),
        )
        for title, picture in shown
    ]
    row = element("div", *figures, class_="row")
    return [element("div", row, _legend(truth, seen, names, colors), class_="example")]


def _reduce(
    image: np.ndarray, truth: np.ndarray, predicted: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bring a picture and its two label maps to one size fit for a page."""
    height, width = truth.shape
    scale = min(1.0, _SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    if size != image.shape[1::-1]:
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)

    def nearest(labels: np.ndarray) -> np.ndarray:
        labels = labels.astype(np.int32)
        if size == labels.shape[::-1]:
            return labels
        return cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST)

    return image, nearest(truth), nearest(predicted)


def _errors(image: np.ndarray, truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    faint = (255 - (255 - grey.astype(np.float32)) * 0.45).astype(np.uint8)
    picture = np.repeat(faint[..., None], 3, axis=2)  # (H, W, 3)
    wrong = (truth != predicted) & (truth != BLANK)
    red = np.array(_WRONG, np.float32)
    picture[wrong] = (0.3 * picture[wrong] + 0.7 * red).astype(np.uint8)
    return picture


def _legend(
    truth: np.ndarray, predicted: np.ndarray, names: Sequence[str], colors: np.ndarray
) -> Html:
    """Name the classes of either map, largest first, and say which is in one of them only."""
    true, found = pixel_counts(truth, len(names)), pixel_counts(predicted, len(names))
    largest = np.maximum(true, found)
    order = sorted(np.flatnonzero(largest).tolist(), key=lambda index: (-largest[index], index))
    entries = []
    for index in order[:_LEGEND]:
        red, green, blue = (int(value) for value in colors[index])
        text = names[index]
        if not found[index]:
            text += " (missed)"
        elif not true[index]:
            text += " (not there)"
        chip = element("span", class_="chip", style=f"background: rgb({red}, {green}, {blue})")
        entries.append(element("span", chip, text))
    if len(order) > _LEGEND:
        entries.append(element("span", f"and {len(order) - _LEGEND} more"))
    return element("div", *entries, class_="legend")
