"""The best and worst predictions of an evaluation, kept to be looked at."""

from __future__ import annotations

import hashlib
from bisect import insort
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np

from ovseg.utils.images import write_png

__all__ = ["ExampleKeeper", "choose_examples", "example_path", "remove_other_examples"]


class ExampleKeeper:
    """Writes the predicted label maps of the best and worst images seen so far.

    Whatever part of a dataset a process sees, and however often it is started anew: the best
    images of the whole are among the best of their part, so their label maps are there at the end.

    Args:
        folder: for the label maps.
        size: images to keep at either end.
    """

    def __init__(self, folder: str | Path, size: int) -> None:
        self._folder = Path(folder)
        self._size = size
        self._best: list[tuple[float, str]] = []  # both ascending
        self._worst: list[tuple[float, str]] = []

    def offer(self, file: str, score: float, labels: np.ndarray) -> None:
        """Keep a prediction if it is among the best or worst.

        Args:
            file: name of the image.
            score: of the image; NaN is never kept.
            labels: (H, W) predicted classes, 0-65535.
        """
        if np.isnan(score) or not self._size:
            return
        insort(self._best, (score, file))
        insort(self._worst, (score, file))
        leaving = set()
        if len(self._best) > self._size:
            leaving = {self._best.pop(0)[1], self._worst.pop()[1]}
        staying = {name for _, name in (*self._best, *self._worst)}
        if file in staying:
            write_png(example_path(self._folder, file), labels.astype(np.uint16))
        for name in leaving - staying - {file}:
            example_path(self._folder, name).unlink(missing_ok=True)


def example_path(folder: str | Path, file: str) -> Path:
    """Name the file of a kept prediction.

    Args:
        folder: of the label maps.
        file: name of the image.

    Returns:
        A PNG whose name depends on the image's whole path.
    """
    digest = hashlib.sha256(file.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    return Path(folder) / f"{digest}.png"


def choose_examples(scores: Mapping[str, float], size: int) -> dict[str, list[str]]:
    """Choose the images to show.

    Args:
        scores: of all images; those that are NaN are left out.
        size: images at either end; with fewer than twice as many, no image is in both.

    Returns:
        `worst` and `best`, each the most extreme first; ties by name.
    """
    order = sorted(
        (file for file in scores if not np.isnan(scores[file])),
        key=lambda file: (scores[file], file),
    )
    best = min(size, len(order) // 2)
    worst = min(size, len(order) - best)
    return {"worst": order[:worst], "best": order[::-1][:best]}


def remove_other_examples(folder: str | Path, files: Collection[str]) -> None:
    """Delete the label maps that are not of the given images.

    Args:
        folder: of the label maps; need not exist.
        files: names of the images whose label maps stay.
    """
    keep = {example_path(folder, file) for file in files}
    for path in Path(folder).glob("*.png"):
        if path not in keep:
            path.unlink()
