"""The folder an evaluation leaves behind: written at the end, read by reports and comparisons.

`metrics.json` (scores, intervals, images without a result), `per_class.csv`,
`confusion_pairs.csv`, `images.csv`, `image_counts.npz` (every image's confusion counts, from which
all numbers can be computed again), `examples/` (predicted label maps of the best and worst images)
and, from the engine, `manifest.json` and `report.html`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ovseg.evaluation.confusion import CONVENTIONS, scores
from ovseg.evaluation.counts import (
    ClassCounts,
    ImageCounts,
    add_up,
    class_counts,
    read_counts,
    write_counts,
)
from ovseg.evaluation.intervals import Bootstrap, percentile_interval, resampled_scores
from ovseg.evaluation.report import (
    ClassRow,
    ConfusionPair,
    ImageRow,
    class_rows,
    confusion_pairs,
    image_rows,
    summary_table,
    write_csv,
)
from ovseg.readers.documents import read_csv, read_json
from ovseg.utils.environment import environment_record
from ovseg.utils.files import write_json
from ovseg.vocab.class_sets import ClassSets

__all__ = [
    "EXAMPLES_FOLDER",
    "FEWEST_IMAGES",
    "DatasetResult",
    "Measured",
    "ResultError",
    "class_names_hash",
    "find_results",
    "labels_hash",
    "load_result",
    "write_result",
]

EXAMPLES_FOLDER = "examples"
_METRICS, _MANIFEST = "metrics.json", "manifest.json"
_CLASSES, _PAIRS, _IMAGES = "per_class.csv", "confusion_pairs.csv", "images.csv"
_COUNTS = "image_counts.npz"
# A class in fewer images than this has no interval: resampling a handful shows no spread.
FEWEST_IMAGES = 5


class ResultError(ValueError):
    """A folder that does not hold the result of an evaluation."""


@dataclass(frozen=True, eq=False)
class Measured:
    """The counts of all images of a dataset, and all that follows from them.

    Args:
        dataset: name of the dataset.
        class_names: K names.
        ignore_label: value of pixels without a class.
        evaluation_set, class_groups: as `ovseg.evaluation.confusion.scores` takes them.
        files: I short names.
        images: I images.
        bootstrap: how intervals are made.
    """

    dataset: str
    class_names: Sequence[str]
    ignore_label: int
    evaluation_set: Mapping[str, Sequence[int]]
    class_groups: Mapping[str, Sequence[int]]
    files: Sequence[str]
    images: Sequence[ImageCounts]
    bootstrap: Bootstrap

    @cached_property
    def matrix(self) -> np.ndarray:
        """(K + 1, K + 1) counts of all images."""
        return add_up(self.images, len(self.class_names))

    @cached_property
    def scores(self) -> dict[str, float]:
        """All scores in percent."""
        return scores(self.matrix, self.class_names, self.evaluation_set, self.class_groups)

    @cached_property
    def counts(self) -> ClassCounts:
        """Pixels per image and class, (I, K)."""
        return class_counts(self.images, len(self.class_names))

    @cached_property
    def sets(self) -> ClassSets:
        """All sets of classes with scores of their own, counterparts included."""
        return ClassSets.make(self.evaluation_set, self.class_groups, len(self.class_names))

    @cached_property
    def _resampled(self) -> tuple[dict[str, np.ndarray], np.ndarray]:
        return resampled_scores(self.counts, self.bootstrap, self.sets.all)

    @cached_property
    def intervals(self) -> dict[str, tuple[float, float]]:
        """Confidence intervals of the overall and group scores; none for a single image."""
        if len(self.images) < 2:
            return {}
        found = {
            key: percentile_interval(values, self.bootstrap.level)
            for key, values in self._resampled[0].items()
        }
        return {key: interval for key, interval in found.items() if interval is not None}

    @cached_property
    def class_rows(self) -> list[ClassRow]:
        """The result of each class."""
        times = (self.counts.true > 0).sum(axis=0)  # (K,)
        ranges = {
            int(index): percentile_interval(self._resampled[1][:, index], self.bootstrap.level)
            for index in np.flatnonzero(times >= FEWEST_IMAGES)
        }
        return class_rows(
            *(self.matrix, self.class_names, self.scores, self.sets.all),
            intervals=ranges,
            images=times.tolist(),
        )

    def summary(self) -> str:
        """Set the scores as a text table, the intervals of both mIoU below."""
        table = summary_table(self.scores, len(self.class_names), self.sets)
        ranges = [
            f"{key} {self.intervals[key][0]:.2f} to {self.intervals[key][1]:.2f}"
            for key in ("mIoU", "mIoU-gt")
            if key in self.intervals
        ]
        if not ranges:
            return table
        return f"{table}\n{self.bootstrap.level:g} % interval over images: {', '.join(ranges)}"


def write_result(
    folder: Path,
    measured: Measured,
    accounted: Mapping[str, Any],
    examples: Mapping[str, Sequence[Mapping[str, str]]],
) -> None:
    """Write all files of a result.

    Args:
        folder: made if missing.
        measured: the numbers.
        accounted: `expected`, `scored` and `missing` images.
        examples: `best` and `worst` images with their files.
    """
    record = {
        "dataset": measured.dataset,
        "sem_seg": measured.scores,
        "intervals": measured.bootstrap.describe()
        | {"images": len(measured.images), "scores": measured.intervals},
        "conventions": dict(CONVENTIONS),
        "images": accounted,
        "num_classes": len(measured.class_names),
        "class_names_sha256": class_names_hash(measured.class_names),
        "labels_hash": labels_hash(measured.files, measured.images),
        "ignore_label": measured.ignore_label,
        "groups": {name: list(ids) for name, ids in measured.sets.all.items()},
        "examples": examples,
        "environment": environment_record(),
    }
    write_csv(folder / _CLASSES, measured.class_rows, ClassRow)
    write_csv(
        folder / _PAIRS, confusion_pairs(measured.images, measured.class_names), ConfusionPair
    )
    rows = image_rows(measured.files, measured.images, measured.class_names)
    write_csv(folder / _IMAGES, rows, ImageRow)
    write_counts(folder / _COUNTS, measured.files, measured.images, len(measured.class_names))
    write_json(folder / _METRICS, record)


@dataclass(frozen=True, eq=False)
class DatasetResult:
    """What the folder of one evaluation holds.

    Args:
        folder: where it lies.
        metrics: content of `metrics.json`; undefined scores are None.
        manifest: content of `manifest.json`; empty without one.
    """

    folder: Path
    metrics: Mapping[str, Any]
    manifest: Mapping[str, Any]

    @property
    def dataset(self) -> str:
        """Name of the dataset."""
        return str(self.metrics["dataset"])

    @property
    def scores(self) -> Mapping[str, float | None]:
        """Scores in percent by name."""
        return dict(self.metrics["sem_seg"])

    def interval(self, score: str) -> tuple[float, float] | None:
        """Look up the confidence interval of a score."""
        found = self.metrics.get("intervals", {}).get("scores", {}).get(score)
        return (float(found[0]), float(found[1])) if found else None

    def rows(self, table: str) -> list[dict[str, str]]:
        """Read one of the tables: "per_class", "confusion_pairs" or "images"."""
        path = self.folder / f"{table}.csv"
        try:
            header, *rows = read_csv(path) or [[]]
        except FileNotFoundError:
            return []
        except ValueError as error:
            raise ResultError(str(error)) from error
        if any(len(row) != len(header) for row in rows):
            raise ResultError(f"{path}: expected {len(header)} cells in every row")
        return [dict(zip(header, row, strict=True)) for row in rows]

    def counts(self) -> tuple[dict[str, ImageCounts], int] | None:
        """Read the counts of every image and the number of classes, where they were kept."""
        path = self.folder / _COUNTS
        try:
            return read_counts(path) if path.is_file() else None
        except ValueError as error:
            raise ResultError(str(error)) from error


def load_result(folder: str | Path) -> DatasetResult:
    """Read the result of one evaluation.

    Args:
        folder: `OUTPUT_DIR/inference/<dataset>`.

    Returns:
        The result.

    Raises:
        ResultError: there is none, or it is damaged.
    """
    folder = Path(folder)
    metrics = _read_json(folder / _METRICS)
    if not isinstance(metrics, dict) or not isinstance(metrics.get("sem_seg"), dict):
        raise ResultError(
            f"{folder / _METRICS}: expected the scores of an evaluation (sem_seg), got something "
            "else; give the folder OUTPUT_DIR/inference/<dataset>"
        )
    _check_scores(folder / _METRICS, metrics)
    path = folder / _MANIFEST
    manifest = _read_json(path) if path.is_file() else {}
    return DatasetResult(folder, metrics, manifest if isinstance(manifest, dict) else {})


def find_results(path: str | Path) -> dict[str, DatasetResult]:
    """Find the results below a folder.

    Args:
        path: an OUTPUT_DIR, its `inference`, or the folder of one dataset.

    Returns:
        Results by name of the dataset, sorted.

    Raises:
        ResultError: there is none.
    """
    path = Path(path)
    for pattern in (f"inference/*/{_METRICS}", f"*/{_METRICS}", _METRICS):
        found = [load_result(file.parent) for file in sorted(path.glob(pattern))]
        if found:
            return {result.dataset: result for result in found}
    raise ResultError(
        f"{path}: expected the result of an evaluation ({_METRICS} there, in a folder below, or "
        "in inference/<dataset>), got none; evaluate with tools/train_net.py --eval-only"
    )


def labels_hash(files: Sequence[str], images: Sequence[ImageCounts]) -> str:
    """Fingerprint of the ground truth of a dataset.

    Args:
        files: I names.
        images: I images.

    Returns:
        SHA-256 over names and contents of the label maps, whatever their order.
    """
    pairs = sorted(zip(files, (image.labels_hash for image in images), strict=True))
    return hashlib.sha256(json.dumps(pairs).encode()).hexdigest()


def class_names_hash(class_names: Sequence[str]) -> str:
    """Fingerprint of a class list: names and order.

    Args:
        class_names: names in the order of the ids.

    Returns:
        SHA-256 of the names as a JSON list, hexadecimal.
    """
    return hashlib.sha256(json.dumps(list(class_names)).encode()).hexdigest()


def _check_scores(path: Path, metrics: Mapping[str, Any]) -> None:
    """Refuse what no evaluation gives: another kind of value, or one outside of 0 to 100."""
    if not isinstance(metrics.get("dataset"), str):
        raise ResultError(f"{path}: dataset: expected a name, got {metrics.get('dataset')!r}")
    intervals = metrics.get("intervals", {})
    ranges = intervals.get("scores", {}) if isinstance(intervals, dict) else None
    if not isinstance(ranges, dict):
        raise ResultError(f"{path}: intervals: expected two numbers a score, got {intervals!r:.80}")
    for name, score in metrics["sem_seg"].items():
        bounds = ranges.get(name)
        pair = [] if bounds is None else bounds
        sound = isinstance(pair, list) and len(pair) in (0, 2) and all(map(_is_percent, pair))
        if not sound or not (score is None or _is_percent(score)):
            raise ResultError(
                f"{path}: {name}: expected percents from 0 to 100, got {score!r}"
                + (f" and the interval {bounds!r}" if bounds is not None else "")
                + "; the file was changed or damaged, evaluate again"
            )


def _is_percent(value: Any) -> bool:
    # Sums of shares may pass 100 by a rounding error.
    return (
        isinstance(value, int | float) and not isinstance(value, bool) and -1e-6 <= value <= 100.001
    )


def _read_json(path: Path) -> Any:
    try:
        return read_json(path)
    except (OSError, ValueError) as error:
        raise ResultError(f"{path}: expected a JSON file, got: {error}") from error
