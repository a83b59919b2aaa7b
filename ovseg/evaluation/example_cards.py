"""The pictures that an evaluation's page shows: predictions beside their truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import cv2
import numpy as np

from ovseg.evaluation.confusion import unique_names
from ovseg.evaluation.results import DatasetResult
from ovseg.readers.pictures import ImageError, read_image, read_label
from ovseg.utils.pages import InlineImage, inline_image
from ovseg.visualization import BLANK, blend, palette, pixel_counts

__all__ = ["ExampleCard", "example_cards"]

_SIDE = 320
_WRONG = (214, 40, 40)
_LEGEND = 12


@dataclass(frozen=True)
class ExampleCard:
    """What the page tells of one image.

    Attributes:
        name: of the image.
        miou, accuracy: of this image, in percent; None where undefined.
        largest_error: the class that was most often taken for another, and that other.
        fault: why the image cannot be shown; nothing else follows then.
        pictures: by title.
        legend: red, green and blue, and what is said of the class.
        unnamed: number of classes that the legend leaves out.
    """

    name: str
    miou: float | None
    accuracy: float | None
    largest_error: tuple[str, str] | None
    fault: str = ""
    pictures: Mapping[str, InlineImage] = field(default_factory=dict)
    legend: Sequence[tuple[tuple[int, ...], str]] = ()
    unnamed: int = 0


def example_cards(result: DatasetResult) -> list[tuple[str, list[ExampleCard]]]:
    """Make the worst and the best images of an evaluation ready to be shown.

    Args:
        result: with the examples that the evaluator kept.

    Returns:
        "worst" and "best", each with its images; without those of which no example was kept.
    """
    examples: Mapping[str, Sequence[Mapping[str, str]]] = result.metrics.get("examples") or {}
    if not any(examples.values()):
        return []
    names = unique_names([row["name"] for row in result.rows("per_class")])
    colors = palette(names)
    numbers = {row["file"]: row for row in result.rows("images")}
    return [
        (
            end,
            [
                _card(result, entry, numbers.get(entry["name"], {}), names, colors)
                for entry in examples[end]
            ],
        )
        for end in ("worst", "best")
        if examples.get(end)
    ]


def _card(
    result: DatasetResult,
    entry: Mapping[str, str],
    row: Mapping[str, str],
    names: Sequence[str],
    colors: np.ndarray,
) -> ExampleCard:
    miou, accuracy = (float(row[key]) if row.get(key) else None for key in ("miou", "accuracy"))
    true, _, predicted = row.get("largest_error", "").partition(" > ")
    card = ExampleCard(entry["name"], miou, accuracy, (true, predicted) if true else None)
    try:
        image = read_image(entry["image"])
        truth = read_label(entry["labels"])
        guess = read_label(result.folder / entry["prediction"])
    except ImageError as error:
        return replace(card, fault=str(error))
    truth = np.where(truth == int(result.metrics["ignore_label"]), BLANK, truth)
    image, truth, guess = _reduce(image, truth, guess)
    shown = {
        "picture": image,
        "truth": blend(image, truth, colors, alpha=0.7),
        "prediction": blend(image, guess, colors, alpha=0.7),
        "errors": _errors(image, truth, guess),
    }
    pictures = {
        title: inline_image(picture, max_side=_SIDE, quality=88) for title, picture in shown.items()
    }
    legend = _legend(truth, np.where(truth == BLANK, BLANK, guess), names, colors)
    unnamed = max(0, len(legend) - _LEGEND)
    return replace(card, pictures=pictures, legend=legend[:_LEGEND], unnamed=unnamed)


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
) -> list[tuple[tuple[int, ...], str]]:
    """Name the classes of either map, largest first, and say which is in one of them only."""
    true, found = pixel_counts(truth, len(names)), pixel_counts(predicted, len(names))
    largest = np.maximum(true, found)
    order = sorted(np.flatnonzero(largest).tolist(), key=lambda index: (-largest[index], index))
    entries = []
    for index in order:
        text = names[index]
        if not found[index]:
            text += " (missed)"
        elif not true[index]:
            text += " (not there)"
        entries.append((tuple(int(value) for value in colors[index]), text))
    return entries
