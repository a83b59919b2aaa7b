"""Scores as text and as CSV."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from ovseg.evaluation.confusion import CONVENTIONS, unique_names
from ovseg.utils.files import atomic_path

__all__ = ["ClassRow", "class_rows", "class_table", "summary_table", "write_class_csv"]


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
    """

    id: int
    name: str
    groups: str
    iou: float
    accuracy: float
    pixels_true: int
    pixels_predicted: int
    pixels_correct: int


def class_rows(
    matrix: np.ndarray,
    class_names: Sequence[str],
    scores: Mapping[str, float],
    groups: Mapping[str, Sequence[int]] | None = None,
) -> list[ClassRow]:
    """Collect what is known about each class.

    Args:
        matrix: (K + 1, K + 1) counts, see `confusion_matrix`.
        class_names: K names.
        scores: what `scores` computed from them.
        groups: name -> ids.

    Returns:
        One row per class, in the order of the ids.
    """
    inner = matrix[:-1, :-1]
    keys = unique_names(class_names)
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
        )
        for index, (name, key) in enumerate(zip(class_names, keys, strict=True))
    ]


def write_class_csv(path: str | Path, rows: Sequence[ClassRow]) -> None:
    """Write one line per class; undefined scores are empty fields.

    Args:
        path: target, replaced atomically.
        rows: what `class_rows` returned.
    """
    with (
        atomic_path(Path(path)) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(field.name for field in fields(ClassRow))
        for row in rows:
            writer.writerow(_csv_value(value) for value in asdict(row).values())


def summary_table(
    scores: Mapping[str, float],
    num_classes: int,
    evaluation_set: Mapping[str, Sequence[int]] | None = None,
    class_groups: Mapping[str, Sequence[int]] | None = None,
) -> str:
    """Set the overall and group scores as a text table that names both conventions.

    Args:
        scores: what `scores` computed.
        num_classes: number of classes.
        evaluation_set, class_groups: as given to `scores`.

    Returns:
        Several lines without a final newline.
    """
    lines = [_line("", "classes", "mIoU", "mIoU-gt", "pAcc")]

    def add(title: str, count: int, suffix: str, accuracy: str) -> None:
        numbers = (scores[f"mIoU{suffix}"], scores[f"mIoU-gt{suffix}"], scores[accuracy])
        lines.append(_line(title, str(count), *map(_percent, numbers)))

    add("all", num_classes, "", "pACC")
    for name, ids in (evaluation_set or {}).items():
        add(name, len(set(ids)), f"-{name}", f"pAcc-{name}")
        add(f"un{name}", num_classes - len(set(ids)), f"-un{name}", f"pAcc-un{name}")
        harmonic = (_percent(scores[f"hIoU-{name}"]), _percent(scores[f"hIoU-gt-{name}"]))
        lines.append(_line(f"harmonic mean ({name}, un{name})", "", *harmonic, ""))
    for name, ids in (class_groups or {}).items():
        add(name, len(set(ids)), f"-{name}", f"pAcc-{name}")
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
