"""Scores of a few classes as those of a whole vocabulary."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ovseg.modeling import DensePrediction
from ovseg.modeling.prediction import Prediction, Window

__all__ = ["SubsetPrediction"]

# Of classes that were not asked for: just below anything that was.
_NOT_ASKED = -1e-6


@dataclass(frozen=True, eq=False)
class SubsetPrediction(Prediction):
    """A prediction that had only some classes of the vocabulary to choose from.

    Memory grows with the classes asked for; a map per class of the vocabulary is made only in
    bands of rows, or where a caller wants all of them (`sem_seg`).

    Args:
        inner: scores, at least 0, of the classes asked for.
        classes: per class of `inner` its index in the vocabulary, all different.
        total: K, classes of the vocabulary.
    """

    inner: DensePrediction
    classes: Sequence[int]
    total: int

    @property
    def output_size(self) -> tuple[int, int]:  # type: ignore[override]
        """The requested (H, W)."""
        return self.inner.output_size

    @property
    def num_classes(self) -> int:
        """K."""
        return self.total

    @property
    def device(self) -> torch.device:
        """Where the scores are."""
        return self.inner.device

    @property
    def floats_per_pixel(self) -> int:
        """Values held per output pixel."""
        return self.total + len(self.classes)

    def bands(self, height: int, window: Window | None = None) -> Iterator[tuple[slice, Tensor]]:
        """Puts each class at its place; see `Prediction.bands`."""
        places = list(self.classes)
        for rows, values in self.inner.bands(height, window):
            scores = values.new_full((*values.shape[:2], self.total), _NOT_ASKED)
            scores[..., places] = values
            yield rows, scores

    @property
    def may_abstain(self) -> bool:
        """Whether the method left pixels blank."""
        return self.inner.may_abstain

    def abstains(self, rows: slice, scores: Tensor, columns: slice = slice(None)) -> Tensor:
        """Pixels of the band that no class has; see `Prediction.abstains`."""
        return self.inner.abstains(rows, scores, columns)

    def region_scores(self, labels: np.ndarray) -> np.ndarray:
        """Averages each class's score over its pixels; see `Prediction.region_scores`."""
        # Labels of classes that were not asked for do not occur.
        places = np.full(self.total + 1, -1)  # the last one for blank pixels, -1
        places[list(self.classes)] = np.arange(len(self.classes))
        found = np.zeros(self.total, np.float32)
        found[list(self.classes)] = self.inner.region_scores(places[labels])
        return found
