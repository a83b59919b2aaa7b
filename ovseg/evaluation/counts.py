"""Confusion counts of single images, kept sparse, and what follows from them per image."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ovseg.readers.arrays import read_npz
from ovseg.utils.files import atomic_path

__all__ = [
    "ClassCounts",
    "ImageCounts",
    "add_up",
    "class_counts",
    "divide",
    "hash_labels",
    "mean_ious",
    "read_counts",
    "write_counts",
]


@dataclass(frozen=True, eq=False)
class ImageCounts:
    """The cells of one image's confusion matrix that are not zero.

    Args:
        cells: (N,) int64, ascending: predicted * (K + 1) + true, where K means "ignored".
        pixels: (N,) int64, pixels of each cell.
        labels_hash: fingerprint of the label map they were counted with.
        predictions: entries of `sem_seg_predictions.json`, where those are wanted.
    """

    cells: np.ndarray
    pixels: np.ndarray
    labels_hash: str = ""
    predictions: Sequence[dict[str, Any]] = field(default=())

    @classmethod
    def of_matrix(cls, matrix: np.ndarray, **others: Any) -> ImageCounts:
        """Take what is not zero from a confusion matrix.

        Args:
            matrix: (K + 1, K + 1) counts, see `confusion_matrix`.
            **others: the remaining fields.

        Returns:
            The counts.
        """
        flat = matrix.reshape(-1)
        cells = np.flatnonzero(flat)
        return cls(cells=cells, pixels=flat[cells], **others)


@dataclass(frozen=True, eq=False)
class ClassCounts:
    """Pixels per class, ignored ones left out, for each of several pictures or resamples.

    Args:
        hits: (..., K) float64, pixels of the class that were found.
        true: (..., K) float64, pixels of the class in the ground truth.
        predicted: (..., K) float64, pixels predicted as the class.
    """

    hits: np.ndarray
    true: np.ndarray
    predicted: np.ndarray


def add_up(images: Sequence[ImageCounts], num_classes: int) -> np.ndarray:
    """Add the counts of images.

    Args:
        images: any number of images.
        num_classes: K.

    Returns:
        (K + 1, K + 1) int64, `matrix[predicted, true]`, see `confusion_matrix`.
    """
    size = num_classes + 1
    matrix = np.zeros(size * size, np.int64)
    for image in images:
        matrix[image.cells] += image.pixels  # an image names each cell once
    return matrix.reshape(size, size)


def class_counts(images: Sequence[ImageCounts], num_classes: int) -> ClassCounts:
    """Count hits, true and predicted pixels of each class in each image.

    Args:
        images: I images.
        num_classes: K.

    Returns:
        Arrays of shape (I, K).
    """
    rows = np.repeat(np.arange(len(images)), [len(image.cells) for image in images])  # (N,)
    cells = _joined([image.cells for image in images])
    pixels = _joined([image.pixels for image in images])
    predicted, true = np.divmod(cells, num_classes + 1)
    counted = (true < num_classes) & (predicted < num_classes)
    rows, predicted, true, pixels = (x[counted] for x in (rows, predicted, true, pixels))

    def tally(classes: np.ndarray, chosen: np.ndarray | slice = np.s_[:]) -> np.ndarray:
        places = rows[chosen] * num_classes + classes[chosen]
        size = len(images) * num_classes
        counts = np.bincount(places, weights=pixels[chosen], minlength=size)  # exact below 2^53
        return counts.reshape(len(images), num_classes)

    return ClassCounts(
        hits=tally(true, predicted == true), true=tally(true), predicted=tally(predicted)
    )


def mean_ious(
    counts: ClassCounts, chosen: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Compute mIoU of each row under both conventions, as `ovseg.evaluation.confusion` has them.

    Args:
        counts: arrays of shape (..., K).
        chosen: (K,) bool, the classes to average over; None takes all.

    Returns:
        `mIoU` and `mIoU-gt` in percent, each (...); NaN where no class counts.
    """
    chosen = np.ones(counts.true.shape[-1], bool) if chosen is None else chosen
    in_truth = (counts.true > 0) & chosen
    mentioned = (counts.true + counts.predicted > 0) & chosen
    union = counts.true + counts.predicted - counts.hits
    total = 100.0 * divide(np.where(in_truth, counts.hits, 0.0), union, empty=0.0).sum(-1)
    return divide(total, mentioned.sum(-1)), divide(total, in_truth.sum(-1))


def divide(part: np.ndarray, whole: np.ndarray, *, empty: float = np.nan) -> np.ndarray:
    """Divide; where the denominator is 0 the result is `empty`."""
    result = np.full(np.broadcast(part, whole).shape, empty)
    np.divide(part, whole, out=result, where=whole > 0)
    return result


def hash_labels(labels: np.ndarray) -> str:
    """Fingerprint of a label map's content, however its file is compressed.

    Args:
        labels: (H, W) integers in [0, 65535].

    Returns:
        32 hexadecimal digits.
    """
    digest = hashlib.blake2b(repr(labels.shape).encode(), digest_size=16)
    digest.update(labels.astype("<u2").tobytes())
    return digest.hexdigest()


def write_counts(
    path: str | Path, files: Sequence[str], images: Sequence[ImageCounts], num_classes: int
) -> None:
    """Write the counts of images to one compressed file.

    Args:
        path: target, ending in .npz; replaced atomically.
        files: I names.
        images: I images.
        num_classes: K.
    """
    with atomic_path(path) as partial:
        np.savez_compressed(
            partial,
            files=np.array(list(files), dtype=np.str_),
            ends=np.cumsum([len(image.cells) for image in images], dtype=np.int64),
            cells=_joined([image.cells for image in images]),
            pixels=_joined([image.pixels for image in images]),
            num_classes=np.array(num_classes),
        )


def read_counts(path: str | Path) -> tuple[dict[str, ImageCounts], int]:
    """Read what `write_counts` wrote.

    Args:
        path: the file.

    Returns:
        Counts by name, in the order of the file, and K.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or its numbers are no counts.
    """
    data = read_npz(path, ["files", "ends", "cells", "pixels", "num_classes"])
    files, ends, cells, pixels = (data[name] for name in ("files", "ends", "cells", "pixels"))
    num_classes = int(data["num_classes"]) if data["num_classes"].size == 1 else 0
    whole = all(values.ndim == 1 and values.dtype.kind in "iu" for values in (ends, cells, pixels))
    if (
        not whole
        or files.ndim != 1
        or not len(files) == len(ends) == len(set(files.tolist()))
        or (np.diff(ends, prepend=0) < 0).any()
        or not len(cells) == len(pixels) == (ends[-1] if len(ends) else 0)
        or not 0 < num_classes < 1_000_000
        or (cells < 0).any()
        or (cells >= (num_classes + 1) ** 2).any()
        or (pixels < 0).any()
    ):
        raise ValueError(
            f"{path}: expected the confusion counts of an evaluation, got arrays that do not fit "
            "each other; evaluate again"
        )
    # What follows the last end is nothing, and all there is where there are no images.
    parts = zip(np.split(cells, ends)[:-1], np.split(pixels, ends)[:-1], strict=True)
    images = (ImageCounts(c, p) for c, p in parts)
    return dict(zip(files.tolist(), images, strict=True)), num_classes


def _joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.zeros(0, np.int64), *parts])
