"""What differs between two results: first how they were made, then the numbers.

The difference of two scores has an interval of its own. Both results are resampled with the same
images, so that pictures which are hard for both do not blur what separates them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ovseg.evaluation.counts import class_counts
from ovseg.evaluation.intervals import Bootstrap, percentile_interval, resampled_scores
from ovseg.evaluation.manifest import decisive_settings, flatten
from ovseg.evaluation.results import FEWEST_IMAGES, DatasetResult

__all__ = ["Change", "Comparison", "ScoreChange", "compare", "format_comparison"]

Interval = tuple[float, float]
_OVERALL = ("mIoU", "mIoU-gt", "pACC", "mACC", "fwIoU")
_CLASSES_SHOWN = 10


@dataclass(frozen=True)
class Change:
    """A part of the manifests that differs.

    Args:
        name: dotted name of the part.
        first, second: its values; None where there is none.
    """

    name: str
    first: Any
    second: Any


@dataclass(frozen=True)
class ScoreChange:
    """A score of both results.

    Args:
        name: of the score.
        first, second: percent; None where undefined.
        first_interval, second_interval: confidence intervals, where known.
        difference_interval: of second minus first over the images of both, where it can be made.
    """

    name: str
    first: float | None
    second: float | None
    first_interval: Interval | None = None
    second_interval: Interval | None = None
    difference_interval: Interval | None = None

    @property
    def difference(self) -> float | None:
        """Second minus first, in points."""
        if self.first is None or self.second is None:
            return None
        return self.second - self.first


@dataclass(frozen=True)
class Comparison:
    """Two results side by side.

    Args:
        dataset: name of the dataset, of both if they differ.
        warnings: why the numbers may not be comparable.
        manifest: what differs in how the results were made.
        scores: overall and group scores.
        classes: IoU of the classes, the largest change first.
        paired_images: images that the intervals of differences are made from; 0 for none.
    """

    dataset: str
    warnings: list[str]
    manifest: list[Change]
    scores: list[ScoreChange]
    classes: list[ScoreChange]
    paired_images: int


def compare(
    first: DatasetResult, second: DatasetResult, bootstrap: Bootstrap | None = None
) -> Comparison:
    """Compare two results on one dataset.

    Args:
        first, second: the results.
        bootstrap: how the interval of a difference is made.

    Returns:
        The comparison; differences are second minus first.
    """
    names = [key for key in _OVERALL if key in first.scores or key in second.scores]
    for key in {**first.scores, **second.scores}:
        if key.startswith(("mIoU-", "hIoU-")) and key not in names:
            names.append(key)
    paired, images, classes_too = _paired(first, second, bootstrap or Bootstrap())
    scores = [replace(_score(first, second, n), difference_interval=paired.get(n)) for n in names]
    per_class = [
        replace(_score(first, second, key), difference_interval=classes_too.get(key))
        for key in {**first.scores, **second.scores}
        if key.startswith("IoU-")
    ]
    per_class.sort(key=lambda change: -abs(change.difference or 0.0))
    same = first.dataset == second.dataset
    return Comparison(
        dataset=first.dataset if same else f"{first.dataset} and {second.dataset}",
        warnings=_warnings(first, second),
        manifest=_manifest_changes(first, second),
        scores=scores,
        classes=per_class,
        paired_images=images,
    )


def _score(first: DatasetResult, second: DatasetResult, name: str) -> ScoreChange:
    values = (first.scores.get(name), second.scores.get(name))
    return ScoreChange(name, *values, first.interval(name), second.interval(name))


def _warnings(first: DatasetResult, second: DatasetResult) -> list[str]:
    found = []
    one, two = first.metrics, second.metrics
    if first.dataset != second.dataset:
        found.append(f"two datasets: {first.dataset} and {second.dataset}")
    if one.get("class_names_sha256") != two.get("class_names_sha256"):
        found.append("the class lists differ in names or order")
    if one.get("labels_hash") != two.get("labels_hash"):
        found.append("the ground truth differs: other images, or other label maps")
    if one.get("ignore_label") != two.get("ignore_label"):
        found.append(f"ignore label {one.get('ignore_label')} and {two.get('ignore_label')}")
    for side, metrics in (("first", one), ("second", two)):
        missing = len(metrics["images"]["missing"])
        if missing:
            found.append(f"{missing} images are missing from the {side} result")
    return found


def _manifest_changes(first: DatasetResult, second: DatasetResult) -> list[Change]:
    one, two = (_comparable(result.manifest) for result in (first, second))
    return [
        Change(name, one.get(name), two.get(name))
        for name in {**one, **two}
        if one.get(name) != two.get(name)
    ]


def _comparable(manifest: Any) -> dict[str, Any]:
    """Flatten what can explain a number; where it ran and for how long cannot."""
    kept = ("weights", "backend", "protocol", "hashes", "remarks", "environment")
    flat = flatten({key: manifest[key] for key in kept if key in manifest})
    flat.pop("weights.path", None)
    flat.pop("environment.d2_backend", None)  # is "backend"
    settings = decisive_settings(str(manifest.get("config", "")))
    return flat | {f"config.{key}": value for key, value in settings.items()}


def _paired(
    first: DatasetResult, second: DatasetResult, bootstrap: Bootstrap
) -> tuple[dict[str, Interval], int, dict[str, Interval]]:
    """Intervals of differences over the images of both, overall and per class."""
    one, two = first.counts(), second.counts()
    same = first.metrics.get("class_names_sha256") == second.metrics.get("class_names_sha256")
    if one is None or two is None or not same:
        return {}, 0, {}
    files = [file for file in one[0] if file in two[0]]
    if len(files) < 2:
        return {}, 0, {}
    groups = first.metrics.get("groups", {})
    num_classes = one[1]
    counts = [class_counts([images[f] for f in files], num_classes) for images in (one[0], two[0])]
    truth = counts[0].true  # (I, K)
    scores, ious = resampled_scores(counts[0], bootstrap, groups)
    other_scores, other_ious = resampled_scores(counts[1], bootstrap, groups)
    overall = {
        key: percentile_interval(other_scores[key] - scores[key], bootstrap.level) for key in scores
    }
    keys = [key for key in first.scores if key.startswith("IoU-")]
    often = (truth > 0).sum(axis=0) >= FEWEST_IMAGES  # (K,)
    per_class = {
        key: percentile_interval(other_ious[:, index] - ious[:, index], bootstrap.level)
        for index, key in enumerate(keys)
        if often[index]
    }
    return _known(overall), len(files), _known(per_class)


def _known(intervals: dict[str, Interval | None]) -> dict[str, Interval]:
    return {key: interval for key, interval in intervals.items() if interval is not None}


def format_comparison(comparison: Comparison, *, level: float = 95.0) -> str:
    """Set a comparison as text: manifest, scores, classes that changed most.

    Args:
        comparison: what `compare` returned.
        level: of its intervals, in percent.

    Returns:
        Several lines without a final newline.
    """
    lines = [f"== {comparison.dataset}"]
    lines += [f"NOT COMPARABLE AS THEY ARE: {text}" for text in comparison.warnings]
    lines.append("-- made differently" if comparison.manifest else "-- made in the same way")
    for change in comparison.manifest:
        lines.append(f"{change.name}: {_short(change.first)} -> {_short(change.second)}")
    lines.append(f"-- scores in percent, {level:g} % intervals over images")
    lines += _score_lines(comparison.scores)
    changed = [c for c in comparison.classes if c.difference]
    if changed:
        shown = changed[:_CLASSES_SHOWN]
        lines.append(f"-- IoU of classes, the {len(shown)} largest of {len(changed)} changes")
        lines += _score_lines([replace(c, name=c.name.removeprefix("IoU-")) for c in shown])
    if comparison.paired_images:
        lines.append(
            f"Intervals of differences: {comparison.paired_images} images drawn anew, the same "
            "ones for both; * marks those without 0 inside."
        )
    else:
        lines.append("No intervals of differences: classes differ, or image counts are missing.")
    return "\n".join(lines)


def _score_lines(changes: Sequence[ScoreChange]) -> list[str]:
    width = max((len(change.name) for change in changes), default=0)
    lines = []
    for change in changes:
        first = _cell(change.first, change.first_interval)
        second = _cell(change.second, change.second_interval)
        lines.append(
            f"{change.name:<{width}}  {first:>22}  {second:>22}  {_delta(change)}".rstrip()
        )
    return lines


def _cell(value: float | None, interval: Interval | None) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}" + (f" [{interval[0]:.2f}, {interval[1]:.2f}]" if interval else "")


def _delta(change: ScoreChange) -> str:
    if change.difference is None:
        return ""
    text = f"{change.difference:+.2f}"
    if change.difference_interval is None:
        return text
    low, high = change.difference_interval
    mark = " *" if np.sign(low) == np.sign(high) != 0 else ""
    return f"{text} [{low:+.2f}, {high:+.2f}]{mark}"


def _short(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    is_hash = len(text) == 64 and all(letter in "0123456789abcdef" for letter in text)
    return f"{text[:12]}..." if is_hash else text
