"""Confusion matrices and the scores that follow from them, as pure functions of arrays.

Two conventions of mIoU are in use, and on datasets with many absent classes they differ by
several points, so both are reported and each has its own name:

* `mIoU`, the convention of the OVSeg paper: the sum of IoU over the classes that occur in the
  ground truth, divided by the number of classes that occur in the ground truth *or in the
  predictions*. A class that is only predicted counts as 0.
* `mIoU-gt`, the convention of Detectron2 since July 2022: divided by the number of classes that
  occur in the ground truth.

Ignored pixels take part in neither. Scores are percentages; one that is undefined is NaN.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import numpy as np

from ovseg.vocab.class_sets import ClassSets

__all__ = [
    "CONVENTIONS",
    "Convention",
    "confusion_matrix",
    "scores",
    "scores_in_convention",
    "unique_names",
]

Convention = Literal["ovseg", "detectron2"]

CONVENTIONS: Mapping[str, str] = {
    "mIoU": "ovseg: IoU of classes in the ground truth, summed, over the number of classes in "
    "the ground truth or the predictions",
    "mIoU-gt": "detectron2: IoU of classes in the ground truth, summed, over the number of "
    "classes in the ground truth",
}
"""What the two names of mIoU (and the group scores derived from them) mean."""


def confusion_matrix(
    prediction: np.ndarray, ground_truth: np.ndarray, num_classes: int, ignore_label: int
) -> np.ndarray:
    """Count pixels by predicted and true class.

    Args:
        prediction: (H, W) integers in [0, num_classes]; num_classes means "no class".
        ground_truth: (H, W) integers in [0, num_classes) or equal to ignore_label.
        num_classes: number of classes K.
        ignore_label: ground-truth value of pixels without a class.

    Returns:
        (K + 1, K + 1) int64, `matrix[predicted, true]`; the last column holds ignored pixels,
        the last row pixels predicted as no class. The scores leave both out.

    Raises:
        ValueError: the sizes differ, or a value is out of range.
    """
    if prediction.shape != ground_truth.shape:
        raise ValueError(
            f"expected a prediction of the ground truth's size {ground_truth.shape}, got "
            f"{prediction.shape}; resize the prediction to the size of the label map"
        )
    true = ground_truth.reshape(-1).astype(np.int64)  # (H*W,), a copy
    predicted = prediction.reshape(-1).astype(np.int64, copy=False)
    ignored = true == ignore_label
    _require_range(true[~ignored], num_classes, f"ground truth (ignore label {ignore_label})")
    _require_range(predicted, num_classes + 1, "prediction")
    true[ignored] = num_classes
    size = num_classes + 1
    counts = np.bincount(predicted * size + true, minlength=size * size)
    return counts.reshape(size, size)


def scores(
    matrix: np.ndarray,
    class_names: Sequence[str],
    evaluation_set: Mapping[str, Sequence[int]] | None = None,
    class_groups: Mapping[str, Sequence[int]] | None = None,
) -> dict[str, float]:
    """Compute all scores of a confusion matrix, mIoU under both conventions.

    Args:
        matrix: (K + 1, K + 1) counts as `confusion_matrix` gives them.
        class_names: K names, in the order of the ids.
        evaluation_set: name of a set of classes -> its ids. For a set `seen` come `mIoU-seen`,
            `pAcc-seen`, the same for its counterpart `unseen` (see `ClassSets.make`), and
            `hIoU-seen`, the harmonic mean of the two; under the other convention
            `mIoU-gt-seen` and so on.
        class_groups: name -> ids of groups to score without their complement.

    Returns:
        Percentages by name: `mIoU`, `mIoU-gt`, `fwIoU`, `mACC`, `pACC`, groups, `IoU-<name>`,
        `ACC-<name>`.

    Raises:
        ValueError: matrix, names and groups do not fit together, or a group has a reserved name.
    """
    sets = ClassSets.make(evaluation_set, class_groups, len(class_names))
    ovseg = scores_in_convention(matrix, class_names, evaluation_set, convention="ovseg")
    other = scores_in_convention(matrix, class_names, evaluation_set, convention="detectron2")
    result = {"mIoU": ovseg["mIoU"], "mIoU-gt": other["mIoU"]}
    result.update({key: ovseg[key] for key in ("fwIoU", "mACC", "pACC")})
    for key, value in ovseg.items():
        if key.startswith(("mIoU-", "hIoU-")):
            result[key] = value
            result[f"{key[:4]}-gt{key[4:]}"] = other[key]
        elif key.startswith("pAcc-"):
            result[key] = value
    counts = _Counts(matrix, len(class_names))
    for name, ids in sets.groups.items():
        chosen = _selection(ids, len(class_names))
        result[f"mIoU-{name}"] = counts.mean_iou(chosen, "ovseg")
        result[f"mIoU-gt-{name}"] = counts.mean_iou(chosen, "detectron2")
        result[f"pAcc-{name}"] = counts.pixel_accuracy(chosen)
    result.update({k: v for k, v in ovseg.items() if k.startswith(("IoU-", "ACC-"))})
    return result


def scores_in_convention(
    matrix: np.ndarray,
    class_names: Sequence[str],
    evaluation_set: Mapping[str, Sequence[int]] | None = None,
    *,
    convention: Convention,
) -> dict[str, float]:
    """Compute the scores of a confusion matrix, with `mIoU` meaning one named convention.

    Args:
        matrix: (K + 1, K + 1) counts as `confusion_matrix` gives them.
        class_names: K names, in the order of the ids.
        evaluation_set: name of a set of classes -> its ids, see `scores`.
        convention: "ovseg" or "detectron2", see the module's text.

    Returns:
        Percentages by name.

    Raises:
        ValueError: unknown convention; matrix, names and sets do not fit together, or a set has a
            reserved name.
    """
    if convention not in get_args(Convention):
        raise ValueError(f"expected a convention of {get_args(Convention)}, got {convention!r}")
    num_classes = len(class_names)
    counts = _Counts(matrix, num_classes)
    names = unique_names(class_names)
    everything = np.ones(num_classes, dtype=bool)
    result = {
        "mIoU": counts.mean_iou(everything, convention),
        "fwIoU": counts.frequency_weighted_iou(),
        "mACC": counts.mean_accuracy(),
        "pACC": counts.pixel_accuracy(everything),
    }
    result.update({f"IoU-{n}": float(v) for n, v in zip(names, counts.iou, strict=True)})
    result.update({f"ACC-{n}": float(v) for n, v in zip(names, counts.accuracy, strict=True)})
    sets = ClassSets.make(evaluation_set, None, num_classes)
    for name, ids in sets.compared.items():
        chosen = _selection(ids, num_classes)
        result[f"mIoU-{name}"] = counts.mean_iou(chosen, convention)
        result[f"pAcc-{name}"] = counts.pixel_accuracy(chosen)
    for name, other in sets.pairs:
        result[f"hIoU-{name}"] = _harmonic_mean(result[f"mIoU-{name}"], result[f"mIoU-{other}"])
    return result


def unique_names(class_names: Sequence[str]) -> tuple[str, ...]:
    """Make class names usable as keys: a repeated name gets its id, as in `bar (17)`.

    Args:
        class_names: names in the order of the ids.

    Returns:
        As many names, all different.
    """
    seen: set[str] = set()
    unique = []
    for index, name in enumerate(class_names):
        key = f"{name} ({index})" if name in seen else name
        seen.add(key)
        unique.append(key)
    return tuple(unique)


class _Counts:
    """Pixel counts per class without ignored pixels, and the ratios of them."""

    def __init__(self, matrix: np.ndarray, num_classes: int) -> None:
        if matrix.shape != (num_classes + 1, num_classes + 1):
            raise ValueError(
                f"expected a confusion matrix of shape {(num_classes + 1, num_classes + 1)} for "
                f"{num_classes} class names, got {matrix.shape}"
            )
        inner = matrix[:-1, :-1].astype(np.float64)  # (K, K)
        self.hits = inner.diagonal()
        self.true = inner.sum(axis=0)
        self.predicted = inner.sum(axis=1)
        self.in_truth = self.true > 0
        union = self.true + self.predicted - self.hits
        self.iou = _ratio(self.hits, np.where(self.in_truth, union, 0.0))  # percent, NaN if absent
        self.accuracy = _ratio(self.hits, self.true)

    def mean_iou(self, chosen: np.ndarray, convention: Convention) -> float:
        counted = self.in_truth if convention == "detectron2" else self.true + self.predicted > 0
        return _divide(self.iou[self.in_truth & chosen].sum(), (counted & chosen).sum())

    def mean_accuracy(self) -> float:
        return _divide(self.accuracy[self.in_truth].sum(), self.in_truth.sum())

    def pixel_accuracy(self, chosen: np.ndarray) -> float:
        return 100.0 * _divide(self.hits[chosen].sum(), self.true[chosen].sum())

    def frequency_weighted_iou(self) -> float:
        weighted = self.iou[self.in_truth] * self.true[self.in_truth]
        return _divide(weighted.sum(), self.true.sum())


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    percent = np.full(part.shape, np.nan)
    np.divide(100.0 * part, whole, out=percent, where=whole > 0)
    return percent


def _divide(part: float, whole: float) -> float:
    return float(part) / float(whole) if whole else float("nan")


def _harmonic_mean(a: float, b: float) -> float:
    if np.isnan(a) or np.isnan(b):
        return float("nan")
    return 2 * a * b / (a + b) if a + b else 0.0


def _selection(ids: Sequence[int], num_classes: int) -> np.ndarray:
    chosen = np.zeros(num_classes, dtype=bool)
    chosen[list(ids)] = True
    return chosen


def _require_range(values: np.ndarray, end: int, what: str) -> None:
    if values.size and (values.min() < 0 or values.max() >= end):
        wrong = np.unique(values[(values < 0) | (values >= end)])[:5].tolist()
        raise ValueError(
            f"expected class ids in 0..{end - 1} in the {what}, got {wrong}; "
            "check that labels and class list belong together"
        )
