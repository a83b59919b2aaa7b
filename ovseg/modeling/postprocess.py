"""From class scores per mask to scores and labels per pixel at the requested size.

Source: MaskFormer (Cheng et al., NeurIPS 2021), section 3.4, semantic inference: the score of class
k at a pixel is the sum over masks of the mask's score for k times the mask's value at the pixel.

Scores of K classes at full size can take gigabytes (847 classes on a 4-megapixel photo: 13.6 GB),
yet labels only need their argmax. So scores are made in bands of rows of bounded size, each from
the few input rows that bilinear interpolation reads. `sem_seg` and `labels` use the same bands;
hence the labels are exactly the argmax of the scores.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

# Upper bound of the scores held at a time, those before plus those after resizing.
BAND_BYTES = 32 * 2**20


def interpolation_rows(
    size_in: int, size_out: int, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Rows and weights of bilinear interpolation along one axis, corners not aligned.

    Args:
        size_in: rows of the input.
        size_out: rows of the output.
        device: where the tensors are made.

    Returns:
        Upper row (size_out,) int64, lower row (size_out,) int64, weight of the lower row
        (size_out,) float32 in [0, 1).
    """
    position = (torch.arange(size_out, device=device) + 0.5) * (size_in / size_out) - 0.5
    position = position.clamp(min=0)
    upper = position.long().clamp(max=size_in - 1)
    return upper, (upper + 1).clamp(max=size_in - 1), position - upper


class Prediction(ABC):
    """Class scores of one image, read out at the size the caller asked for."""

    output_size: tuple[int, int]

    @property
    @abstractmethod
    def size(self) -> tuple[int, int]:
        """(h, w) at which scores are computed, before resizing."""

    @property
    @abstractmethod
    def num_classes(self) -> int:
        """K."""

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where the scores are computed."""

    @abstractmethod
    def rows(self, start: int, stop: int) -> Tensor:
        """Scores of some rows before resizing.

        Args:
            start: first row.
            stop: row behind the last one.

        Returns:
            (C, stop - start, w) float32. The first K channels are the classes; a further one, if
            any, is a class the caller did not ask for and that only `labels` looks at.
        """

    def _bands(self) -> Iterator[tuple[slice, Tensor]]:
        """Yields slices of output rows and their scores (C, rows, W)."""
        (height, width), (out_height, out_width) = self.size, self.output_size
        upper, lower, weight = interpolation_rows(height, out_height, self.device)
        bytes_per_row = 4 * (self.num_classes + 1) * (out_width + width * height / out_height)
        step = max(1, int(BAND_BYTES / bytes_per_row))
        first_row, last_row = upper.tolist(), lower.tolist()
        for start in range(0, out_height, step):
            band = slice(start, min(start + step, out_height))
            if height == out_height:
                scores = self.rows(band.start, band.stop)  # (C, rows, w)
            else:
                offset = first_row[band.start]
                scores = self.rows(offset, last_row[band.stop - 1] + 1)  # (C, n, w)
                above, below = scores[:, upper[band] - offset], scores[:, lower[band] - offset]
                scores = torch.lerp(above, below, weight[band, None])  # (C, rows, w)
            if width != out_width:
                # Rows map to themselves here, so this interpolates along the width only.
                scores = F.interpolate(
                    scores[None],
                    size=(scores.shape[1], out_width),
                    mode="bilinear",
                    align_corners=False,
                )[0]  # (C, rows, W)
            yield band, scores

    def sem_seg(self) -> Tensor:
        """Returns the scores of every class, (K, H, W) float32."""
        scores = torch.empty(self.num_classes, *self.output_size, device=self.device)
        for band, values in self._bands():
            scores[:, band] = values[: self.num_classes]
        return scores

    def labels(self, *, blank: int | None = None) -> Tensor:
        """Returns the best class of every pixel.

        Args:
            blank: label of pixels that no class claims: all scores are zero there, or a class
                that the caller did not ask for scores higher. None labels them like all others.

        Returns:
            (H, W) int64. Without `blank`, equal to `sem_seg().argmax(0)`.
        """
        labels = torch.empty(self.output_size, dtype=torch.int64, device=self.device)
        for band, values in self._bands():
            best, index = values[: self.num_classes].max(0)
            if blank is not None:
                rest = values[self.num_classes :].amax(0) if len(values) > self.num_classes else 0
                index = index.masked_fill((best <= 0) | (best < rest), blank)
            labels[band] = index
        return labels


@dataclass(frozen=True, eq=False)
class DensePrediction(Prediction):
    """Scores that a method computed per pixel.

    Args:
        scores: (K, h, w).
        output_size: (H, W) the caller asked for.
    """

    scores: Tensor
    output_size: tuple[int, int]

    @property
    def size(self) -> tuple[int, int]:
        """(h, w) of the scores."""
        return self.scores.shape[1], self.scores.shape[2]

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.scores)

    @property
    def device(self) -> torch.device:
        """Where the scores are."""
        return self.scores.device

    def rows(self, start: int, stop: int) -> Tensor:
        """Returns rows start to stop of the scores, (K, stop - start, w)."""
        return self.scores[:, start:stop].float()


@dataclass(frozen=True, eq=False)
class MaskPrediction(Prediction):
    """Masks of one image and what each of them shows.

    Args:
        masks: (Q, h, w) float32 in [0, 1] at the network's input size, without padding.
        class_scores: (Q, K) final scores; a row of zeros leaves its mask out.
        proposal_scores: (Q, K) the mask classifier's probabilities. They do not sum to 1, as "no
            object" took part in the softmax.
        clip_scores: (Q, K) CLIP's probabilities, ones where `valid` is False; None where CLIP was
            not asked.
        valid: (Q,) bool, whether any pixel of the mask exceeds the mask threshold.
        output_size: (H, W) the caller asked for.
        threshold: merge masks as `mask > threshold` instead of their values; None keeps the values.
        hidden_scores: (Q,) final scores of a class that was added to those asked for.
    """

    masks: Tensor
    class_scores: Tensor
    proposal_scores: Tensor
    clip_scores: Tensor | None
    valid: Tensor
    output_size: tuple[int, int]
    threshold: float | None = None
    hidden_scores: Tensor | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(h, w) of the masks."""
        return self.masks.shape[1], self.masks.shape[2]

    @property
    def num_classes(self) -> int:
        """K."""
        return self.class_scores.shape[1]

    @property
    def device(self) -> torch.device:
        """Where the masks are."""
        return self.masks.device

    @cached_property
    def _merged(self) -> tuple[Tensor, Tensor]:
        """Indices (U,) of the masks that contribute, and their scores (C, U)."""
        scores = self.class_scores
        if self.hidden_scores is not None:
            scores = torch.cat((scores, self.hidden_scores[:, None]), dim=1)  # (Q, K + 1)
        used = scores.ne(0).any(1).nonzero()[:, 0]
        return used, scores[used].float().T

    def rows(self, start: int, stop: int) -> Tensor:
        """Merges the masks over rows start to stop, (K or K + 1, stop - start, w)."""
        used, scores = self._merged
        masks = self.masks[:, start:stop]
        if len(used) < len(masks):
            masks = masks[used]
        if self.threshold is not None:
            masks = masks > self.threshold
        merged = scores @ masks.float().flatten(1)  # (C, n * w)
        return merged.unflatten(1, masks.shape[1:])
