"""Scores as text and as CSV."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TypeVar

import numpy as np

from ovseg.evaluation.confusion import CONVENTIONS, unique_names
from ovseg.evaluation.counts import (
    ImageCounts,
    add_up,
    class_counts,
    divide,
    mean_ious,
)
from ovseg.utils.files import atomic_path
from ovseg.vocab.class_sets import ClassSets

__all__ = [
    "ClassRow",
    "ConfusionPair",
    "ImageRow",
    "class_rows",
    "class_table",
    "confusion_pairs",
    "image_rows",
    "summary_table",
    "write_csv",
]


Row = TypeVar("Row", "ClassRow", "ConfusionPair", "ImageRow")


@dataclass(frozen=True)
class ClassRow:
    """The result of one class.

    Args:
        id: label.
        name: class name.
        groups: names of the groups it belongs to, joined by "|".
        iou: percent; NaN where the class is not in the ground truth.
        accuracy: percent of its pixels that were found; NaN likewise.
        pixels_true: pixels of the class in the ground truth.
        pixels_predicted: pixels predicted as the class, ignored ones left out.
        pixels_correct: pixels that are both.
        iou_low, iou_high: confidence interval of `iou`; NaN where there is none.
        images: images with the class in their ground truth.
    """

    id: int
    name: str
    groups: str
    iou: float
    accuracy: float
    pixels_true: int
    pixels_predicted: int
    pixels_correct: int
    iou_low: float = math.nan
    iou_high: float = math.nan
    images: int = 0


@dataclass(frozen=True)
class ConfusionPair:
    """Pixels of one class that were predicted as another.

    Args:
        true: name of the class in the ground truth.
        predicted: name of the class predicted.
        pixels: how many.
        share_of_true: percent of the true class's pixels.
        share_of_errors: percent of all wrong pixels.
        images: images in which this happened.
    """

    true: str
    predicted: str
    pixels: int
    share_of_true: float
    share_of_errors: float
    images: int


@dataclass(frozen=True)
class ImageRow:
    """The result of one image.

    Args:
        file: its name, below the dataset's folder of images where it lies there.
        miou, miou_gt: over the classes of this image, see `ovseg.evaluation.confusion`; NaN
            where all pixels are ignored.
        accuracy: percent of pixels that are right; NaN likewise.
        pixels: pixels that count.
        ignored: pixels without a class in the ground truth.
        classes: classes in the ground truth.
        largest_error: "true > predicted" of the most frequent confusion, or nothing.
    """

    file: str
    miou: float
    miou_gt: float
    accuracy: float
    pixels: int
    ignored: int
    classes: int
    largest_error: str


def class_rows(
    matrix: np.ndarray,
    class_names: Sequence[str],
    scores: Mapping[str, float],
    groups: Mapping[str, Sequence[int]] | None = None,
    *,
    intervals: Mapping[int, tuple[float, float] | None] | None = None,
    images: Sequence[int] | None = None,
) -> list[ClassRow]:
    """Collect what is known about each class.

    Args:
        matrix: (K + 1, K + 1) counts, see `confusion_matrix`.
        class_names: K names.
        scores: what `scores` computed from them.
        groups: name -> ids.
        intervals: id -> confidence interval of its IoU.
        images: K numbers of images with the class in their ground truth.

    Returns:
        One row per class, in the order of the ids.
    """
    inner = matrix[:-1, :-1]
    keys = unique_names(class_names)
    ranges = {index: found for index, found in (intervals or {}).items() if found is not None}
    return [
        ClassRow(
            id=index,
            name=name,
            groups="|".join(group for group, ids in (groups or {}).items() if index in ids),
            iou=scores[f"IoU-{key}"],
            accuracy=scores[f"ACC-{key}"],
            pixels_true=int(inner[:, index].sum()),
            pixels_predicted=int(inner[index].sum()),
            pixels_correct=int(inner[index, index]),
            iou_low=ranges.get(index, (math.nan, math.nan))[0],
            iou_high=ranges.get(index, (math.nan, math.nan))[1],
            images=0 if images is None else int(images[index]),
        )
        for index, (name, key) in enumerate(zip(class_names, keys, strict=True))
    ]


def confusion_pairs(
    images: Sequence[ImageCounts], class_names: Sequence[str]
) -> list[ConfusionPair]:
    """List which classes were taken for which.

    Args:
        images: counts of all images.
        class_names: K names.

    Returns:
        All pairs that occur, those with the most pixels first.
    """
    num_classes = len(class_names)
    inner = add_up(images, num_classes)[:-1, :-1]
    cells = np.concatenate([np.zeros(0, np.int64), *(image.cells for image in images)])
    size = num_classes + 1
    times = np.bincount(cells, minlength=size * size).reshape(size, size)
    true_pixels = inner.sum(axis=0)
    errors = inner * ~np.eye(num_classes, dtype=bool)
    wrong = int(errors.sum())
    names = unique_names(class_names)
    pairs = [
        ConfusionPair(
            true=names[true],
            predicted=names[predicted],
            pixels=int(errors[predicted, true]),
            share_of_true=100.0 * errors[predicted, true] / true_pixels[true],
            share_of_errors=100.0 * errors[predicted, true] / wrong,
            images=int(times[predicted, true]),
        )
        for predicted, true in np.argwhere(errors)
    ]
    return sorted(pairs, key=lambda pair: (-pair.pixels, pair.true, pair.predicted))


def image_rows(
    files: Sequence[str], images: Sequence[ImageCounts], class_names: Sequence[str]
) -> list[ImageRow]:
    """Score every image by itself.

    Args:
        files: I names.
        images: I images.
        class_names: K names.

    Returns:
        One row per image, in the order given.
    """
    num_classes = len(class_names)
    counts = class_counts(images, num_classes)
    ours, others = mean_ious(counts)  # (I,), (I,)
    pixels = counts.true.sum(-1)
    accuracy = 100.0 * divide(counts.hits.sum(-1), pixels)
    names = unique_names(class_names)
    rows = []
    for index, (file, image) in enumerate(zip(files, images, strict=True)):
        true = image.cells % (num_classes + 1)
        rows.append(
            ImageRow(
                file=file,
                miou=float(ours[index]),
                miou_gt=float(others[index]),
                accuracy=float(accuracy[index]),
                pixels=int(pixels[index]),
                ignored=int(image.pixels[true == num_classes].sum()),
                classes=int((counts.true[index] > 0).sum()),
                largest_error=_largest_error(image, names),
            )
        )
    return rows


def _largest_error(image: ImageCounts, names: Sequence[str]) -> str:
    predicted, true = np.divmod(image.cells, len(names) + 1)
    wrong = (predicted != true) & (np.maximum(predicted, true) < len(names))
    pixels = np.where(wrong, image.pixels, 0)
    if not pixels.any():
        return ""
    worst = int(pixels.argmax())
    return f"{names[true[worst]]} > {names[predicted[worst]]}"


def write_csv(path: str | Path, rows: Sequence[Row], kind: type[Row]) -> None:
    """Write one line per row; undefined scores are empty fields.

    Args:
        path: target, replaced atomically.
        rows: what `class_rows`, `confusion_pairs` or `image_rows` returned.
        kind: the rows' class, whose fields become the head.
    """
    with (
        atomic_path(Path(path)) as temporary,
        # Names of files may hold bytes that are no UTF-8: \udce9 stands for such a one.
        temporary.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(field.name for field in fields(kind))
        for row in rows:
            writer.writerow(_csv_value(value) for value in asdict(row).values())


def summary_table(
    scores: Mapping[str, float],
    num_classes: int,
    sets: ClassSets | None = None,
) -> str:
    """Set the overall and group scores as a text table that names both conventions.

    Args:
        scores: what `scores` computed.
        num_classes: number of classes.
        sets: those of which there are scores.

    Returns:
        Several lines without a final newline.
    """
    lines = [_line("", "classes", "mIoU", "mIoU-gt", "pAcc")]

    def add(title: str, count: int, suffix: str, accuracy: str) -> None:
        numbers = (scores[f"mIoU{suffix}"], scores[f"mIoU-gt{suffix}"], scores[accuracy])
        lines.append(_line(title, str(count), *map(_percent, numbers)))

    add("all", num_classes, "", "pACC")
    sets = sets or ClassSets()
    for name, ids in sets.compared.items():
        add(name, len(ids), f"-{name}", f"pAcc-{name}")
    for name, other in sets.pairs:
        harmonic = (_percent(scores[f"hIoU-{name}"]), _percent(scores[f"hIoU-gt-{name}"]))
        lines.append(_line(f"harmonic mean ({name}, {other})", "", *harmonic, ""))
    for name, ids in sets.groups.items():
        add(name, len(ids), f"-{name}", f"pAcc-{name}")
    lines.append(f"fwIoU {_percent(scores['fwIoU'])}   mACC {_percent(scores['mACC'])}")
    lines += [f"{name} = {meaning}" for name, meaning in CONVENTIONS.items()]
    return "\n".join(lines)


def class_table(rows: Sequence[ClassRow], columns: int = 3) -> str:
    """Set the IoU and accuracy of each class as text, several classes to a line.

    Args:
        rows: what `class_rows` returned.
        columns: classes per line.

    Returns:
        Several lines without a final newline; a class that is not in the ground truth shows "-".
    """
    width = min(28, max((len(row.name) for row in rows), default=4))
    cells = [
        f"{row.name[:width]:<{width}} {_percent(row.iou):>6} {_percent(row.accuracy):>6}"
        for row in rows
    ]
    height = math.ceil(len(cells) / columns) or 1
    header = f"{'class':<{width}} {'IoU':>6} {'ACC':>6}"
    lines = ["   ".join([header] * min(columns, math.ceil(len(cells) / height)))]
    lines += ["   ".join(cells[start::height]) for start in range(height)]
    return "\n".join(line.rstrip() for line in lines)


def _line(title: str, *cells: str) -> str:
    return (f"{title:<30}" + "".join(f"{cell:>10}" for cell in cells)).rstrip()


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"


def _csv_value(value: object) -> object:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.4f}"
    return value
