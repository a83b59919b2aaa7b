"""What the labels of a training set explain: which proposals, and which nouns of a caption.

A proposal that lies on a labelled region needs no caption to be named. Taken out together with the
nouns that mean what is labelled, it leaves the other proposals to the other nouns: those that no
label shows. Nothing is concluded from ignored pixels: a proposal is explained by what it overlaps,
never left over for what it does not.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ovseg.data.captions.sources import ImageRow
from ovseg.data.labelled import LabelledPictures
from ovseg.mining.inflection import singular
from ovseg.mining.nouns import Noun

__all__ = ["MIN_IOU", "LabelReader", "PictureLabels", "TrainingLabels", "means_one_of"]

MIN_IOU = 0.5
"""A proposal is explained by a labelled region that it overlaps more than this."""


@dataclass(frozen=True)
class PictureLabels:
    """The labels of one picture.

    Attributes:
        labels: (H, W) class ids; those without words are no label.
        words: per labelled class the nouns that mean it, its own first; in the order of the ids.
    """

    labels: NDArray[np.integer]
    words: dict[int, tuple[str, ...]]

    @property
    def shown(self) -> tuple[str, ...]:
        """The nouns that mean a class of which the picture has a pixel."""
        present = set(np.unique(self.labels).tolist())
        return tuple(word for i, words in self.words.items() if i in present for word in words)

    def explain(self, masks: NDArray[np.bool_]) -> list[str | None]:
        """Name the proposals that lie on a labelled region.

        Args:
            masks: (Q, H, W) proposals, none empty.

        Returns:
            Per proposal the noun of the class whose region, all pixels of it in the picture, it
            overlaps most, or None where no IoU is above `MIN_IOU`.
        """
        ids = np.array(list(self.words), dtype=np.int64)  # (C,)
        if not len(ids):
            return [None] * len(masks)
        size = max(int(self.labels.max(initial=0)), int(ids.max())) + 1
        areas = np.bincount(self.labels.ravel(), minlength=size)[ids]  # (C,)
        named: list[str | None] = []
        for mask in masks:
            inside = self.labels[mask]
            common = np.bincount(inside, minlength=size)[ids]  # (C,)
            ious = common / (areas + inside.size - common)
            best = int(ious.argmax())
            named.append(self.words[int(ids[best])][0] if ious[best] > MIN_IOU else None)
        return named


class LabelReader(Protocol):
    """Finds the labels of a picture.

    Attributes:
        name: the training set, kept in the run's manifest.
    """

    name: str

    def __call__(self, row: ImageRow, size: tuple[int, int]) -> PictureLabels:
        """Read the labels of the picture of a row, whose size is (height, width).

        Raises:
            OSError, ValueError: there are none, or they are of another size.
        """
        ...


class TrainingLabels:
    """Labels of a training set, found by the pictures' names.

    Args:
        dataset: see `LabelledPictures`.

    Raises:
        FileNotFoundError, ValueError: a dataset that cannot be used.
    """

    def __init__(self, dataset: str) -> None:
        self._pictures = LabelledPictures(dataset)
        self._numbers = {name: number for number, name in enumerate(self._pictures.ids)}
        self.name = f"{self._pictures.name}:{len(self._pictures)}"

    def __call__(self, row: ImageRow, size: tuple[int, int]) -> PictureLabels:
        """Read labels by the name of the picture's file, else by its id; see `LabelReader`."""
        # A member of a tar is addressed as FILE.tar#NAME@PLACE.
        file = row.uri.partition("#")[2].rpartition("@")[0] or Path(row.uri).as_posix()
        number = self._numbers.get(PurePosixPath(file).stem, self._numbers.get(row.image_id))
        if number is None:
            raise ValueError(f"{self.name} has no label map for {row.uri} (image {row.image_id})")
        labels = self._pictures.labels(number)
        if labels.shape != size:
            raise ValueError(f"its labels in {self.name} are {labels.shape}, the picture is {size}")
        return PictureLabels(labels, dict(self._pictures.words))


def means_one_of(noun: Noun, words: Collection[str]) -> bool:
    """Say whether a noun means one of some classes: their heads, in the singular, are the same.

    The head of "red car" is "car", that of "dining table" is "table", and that of COCO-Stuff's
    "wall-brick" is "wall".

    Args:
        noun: of a caption.
        words: nouns that mean the classes.
    """
    own = _heads([noun.text, noun.lemma])
    return bool(own & _heads(words))


def _heads(words: Collection[str]) -> set[str]:
    heads = {word.lower().split(" ")[-1].split("-")[0] for word in words}
    return heads | {singular(head) for head in heads}
