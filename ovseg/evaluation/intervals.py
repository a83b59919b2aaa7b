"""Confidence intervals of scores: the bootstrap over images.

The images of a dataset are a sample of the pictures it stands for. Images are drawn again, with
replacement and as many as there are; the scores of the drawn images' summed confusion matrix vary
from draw to draw, and the percentiles of that variation are the interval (the percentile method;
Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13). A class that no drawn
image has is in no mean of that draw, by the same rule that a dataset without it would follow.

The interval says how far the choice of test images moves a score. It says nothing about other
seeds of training. To compare two results on the same images use the interval of their difference,
which is much narrower than the two intervals suggest: `ovseg.evaluation.comparison` does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ovseg.evaluation.counts import ClassCounts, divide, mean_ious

__all__ = ["Bootstrap", "percentile_interval", "resampled_scores"]

_CHUNK = 100  # resamples at a time; bounds memory


@dataclass(frozen=True)
class Bootstrap:
    """How intervals are made.

    Args:
        resamples: number of draws.
        level: share of the draws inside the interval, in percent.
        seed: of the draws; the same seed draws the same images.

    Raises:
        ValueError: not a single draw, or no share between 0 and 100.
    """

    resamples: int = 1000
    level: float = 95.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.resamples < 1 or not 0 < self.level < 100 or self.seed < 0:
            raise ValueError(
                "expected at least 1 draw (resamples), a level between 0 and 100 and a seed from "
                f"0, got {self.resamples}, {self.level} and {self.seed}"
            )

    def describe(self) -> dict[str, Any]:
        """State the method, for a record beside the numbers."""
        return {"method": "percentile bootstrap over images, drawn with replacement"} | asdict(self)


def resampled_scores(
    counts: ClassCounts,
    bootstrap: Bootstrap,
    groups: Mapping[str, Sequence[int]] | None = None,
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Compute the scores of every resample.

    Args:
        counts: of I images and K classes; the images' order decides what a seed draws.
        bootstrap: number of draws B and seed.
        groups: name -> ids; adds `mIoU-<name>` and `mIoU-gt-<name>`.

    Returns:
        (B,) percentages by the names of `ovseg.evaluation.confusion.scores`, and (B, K) IoU of
        each class, NaN where it is not in the drawn ground truth.
    """
    num_images, num_classes = counts.true.shape
    generator = np.random.default_rng(bootstrap.seed)
    selections = {"": np.ones(num_classes, bool)}
    for name, ids in (groups or {}).items():
        selections[f"-{name}"] = np.isin(np.arange(num_classes), list(ids))
    parts: list[dict[str, np.ndarray]] = []
    ious = []
    for start in range(0, bootstrap.resamples, _CHUNK):
        rows = min(_CHUNK, bootstrap.resamples - start)
        drawn = generator.integers(0, num_images, (rows, num_images))
        drawn += num_images * np.arange(rows)[:, None]
        times = np.bincount(drawn.ravel(), minlength=rows * num_images)
        weights = times.reshape(rows, num_images).astype(np.float64)  # (rows, I)
        # Sums of whole numbers below 2^53: exact in any order.
        summed = ClassCounts(*(weights @ x for x in (counts.hits, counts.true, counts.predicted)))
        parts.append(_scores(summed, selections))
        ious.append(100.0 * _iou(summed))
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}, (
        np.concatenate(ious)
    )


def percentile_interval(values: np.ndarray, level: float = 95.0) -> tuple[float, float] | None:
    """Take the percentiles that leave out the same share on both sides.

    Args:
        values: (B,) scores of resamples; NaN, a score undefined in its draw, is left out.
        level: share inside, in percent.

    Returns:
        (low, high), or None without a defined value.
    """
    defined = values[~np.isnan(values)]
    if not len(defined):
        return None
    margin = (100.0 - level) / 2
    low, high = np.percentile(defined, [margin, 100.0 - margin])
    return float(low), float(high)


def _scores(counts: ClassCounts, selections: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    result = {}
    for suffix, chosen in selections.items():
        result[f"mIoU{suffix}"], result[f"mIoU-gt{suffix}"] = mean_ious(counts, chosen)
    total = counts.true.sum(-1)
    accuracy = divide(counts.hits, counts.true)  # (B, K)
    found = counts.true > 0
    result["fwIoU"] = 100.0 * divide(np.nansum(_iou(counts) * counts.true, axis=-1), total)
    result["mACC"] = 100.0 * divide(np.nansum(accuracy, axis=-1), found.sum(-1))
    result["pACC"] = 100.0 * divide(counts.hits.sum(-1), total)
    return result


def _iou(counts: ClassCounts) -> np.ndarray:
    union = counts.true + counts.predicted - counts.hits
    return divide(counts.hits, np.where(counts.true > 0, union, 0.0))
