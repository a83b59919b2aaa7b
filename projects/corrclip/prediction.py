"""From scores of strings to classes, a threshold, and one label per region.

Source: CorrCLIP (Zhang et al., ICCV 2025), map correction; the order of the steps is that of the
released code.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from ovseg.modeling import DensePrediction
from ovseg.modeling.prediction import Window
from ovseg.projects.corrclip.correlation import Unsegmented, number_regions

__all__ = ["RegionwisePrediction", "most_frequent"]


@dataclass(frozen=True, eq=False)
class RegionwisePrediction(DensePrediction):
    """Scores of P strings of K classes, of which each class takes the best.

    Probabilities are a softmax over the strings. Labels are decided region by region; only a label
    map is held at full size, never the scores. `sem_seg` puts a pixel's final label on top of its
    other classes, so that its argmax are the labels.

    Args:
        scores: (P, h, w) cosines.
        output_size: (H, W) the caller asked for.
        classes: (P,) int64 class of each string.
        count: K.
        scale: factor of the cosines before the softmax.
        threshold: pixels whose best class has less probability go to the background.
        background: the label for them; None leaves them blank.
        regions: (H, W) integers; None: labels are not corrected.
        unsegmented: which id is no region, see `number_regions`.
    """

    _: KW_ONLY
    classes: Tensor
    count: int
    scale: float = 40.0
    threshold: float = 0.0
    background: int | None = None
    regions: Tensor | None = None
    unsegmented: Unsegmented = "min"

    @property
    def num_classes(self) -> int:
        """K."""
        return self.count

    @property
    def floats_per_pixel(self) -> int:
        """Values held per output pixel."""
        return len(self.scores) + self.count

    def bands(self, height: int, window: Window | None = None) -> Iterator[tuple[slice, Tensor]]:
        """Computes the classes' probabilities band by band; see `Prediction.bands`."""
        for band, values in super().bands(height, window):
            values = (self.scale * values).softmax(-1)  # (rows, W, P)
            if len(self.classes) > self.count:
                best = values.new_zeros(*values.shape[:2], self.count)
                index = self.classes.expand_as(values)
                values = best.scatter_reduce_(-1, index, values, "amax")
            yield band, values

    def final_bands(
        self, height: int, window: Window | None = None
    ) -> Iterator[tuple[slice, Tensor]]:
        """Raises each pixel's final label to the top; see `Prediction.final_bands`."""
        columns = slice(None) if window is None else window[1]
        for band, values in self.bands(height, window):
            if self.regions is not None or self.threshold:
                label = self._decided[band, columns, None]  # (rows, W, 1)
                best, top = values.max(-1, keepdim=True)
                above = torch.nextafter(best, torch.full_like(best, 2.0))
                values = values.scatter(-1, label, torch.where(label == top, best, above))
            yield band, values

    def labels(self, *, blank: int | None = None) -> Tensor:
        """Returns the final label of every pixel; see `Prediction.labels`."""
        labels = self._decided.clone()
        if blank is not None and self.may_abstain:
            labels.masked_fill_(self._left_blank, blank)
        return labels

    @property
    def may_abstain(self) -> bool:
        """Whether pixels below the threshold have no class to go to."""
        return self.threshold > 0 and self.background is None

    def abstains(self, rows: slice, scores: Tensor, columns: slice = slice(None)) -> Tensor:
        """Cuts the band out of the pixels left blank; see `Prediction.abstains`."""
        return self._left_blank[rows, columns]

    @cached_property
    def _best(self) -> tuple[Tensor, Tensor]:
        """Each pixel's best class (H, W) int64, and whether its probability is too low."""
        labels = torch.empty(self.output_size, dtype=torch.int64, device=self.device)
        low = torch.zeros(self.output_size, dtype=torch.bool, device=self.device)
        for band, values in self._bounded_bands():
            best, labels[band] = values.max(-1)
            low[band] = best < self.threshold
        return labels, low

    @cached_property
    def _decided(self) -> Tensor:
        labels, low = self._best
        if self.background is not None:
            labels = labels.masked_fill(low, self.background)
        return self._corrected(labels)

    @cached_property
    def _left_blank(self) -> Tensor:
        labels, low = self._best
        return self._corrected(labels.masked_fill(low, -1)) < 0

    def _corrected(self, labels: Tensor) -> Tensor:
        if self.regions is None:
            return labels
        return most_frequent(labels, number_regions(self.regions, self.unsegmented))


def most_frequent(labels: Tensor, regions: Tensor) -> Tensor:
    """Give all pixels of a region its most frequent label (map correction).

    Args:
        labels: (H, W) int64, at least -1.
        regions: (H, W) int64, 0 for pixels in no region, which keep their labels; else 1..R.

    Returns:
        (H, W) int64; of equally frequent labels the smallest counts.
    """
    width = int(labels.max()) + 2
    counts = torch.bincount((regions * width + labels + 1).flatten())
    counts = F.pad(counts, (0, -len(counts) % width)).view(-1, width)  # (R + 1, K + 1)
    chosen = counts.argmax(1) - 1  # (R + 1,); the first of equal ones
    return torch.where(regions > 0, chosen[regions], labels)
