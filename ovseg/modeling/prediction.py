"""From class scores per mask to scores and labels per pixel at the requested size.

Source: MaskFormer (Cheng et al., NeurIPS 2021), section 3.4, semantic inference: the score of class
k at a pixel is the sum over masks of the mask's score for k times the mask's value at the pixel.

Scores of K classes at full size can take gigabytes (847 classes on a 4-megapixel photo: 13.6 GB),
yet labels only need their argmax. So scores are made in bands of rows of bounded size. `sem_seg`
and `labels` use the same bands; hence the labels are exactly the argmax of the scores.

Resizing and merging are both linear, so their order is free. Masks are resized first and merged at
the output size: the merge is a matrix product, which costs less than resizing K score maps.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

# Upper bound of the values held at a time. Small enough to stay in a processor's cache, large
# enough to keep a GPU busy.
BAND_BYTES = 16 * 2**20


class RowResizer:
    """Bilinear resizing (corners not aligned) of some rows of the output at a time.

    Args:
        size: (h, w) of the input.
        output_size: (H, W) of the output.
        device: where inputs are.
    """

    def __init__(
        self, size: tuple[int, int], output_size: tuple[int, int], device: torch.device
    ) -> None:
        self.size = size
        self.output_size = output_size
        position = torch.arange(output_size[0], device=device) + 0.5
        position = (position * (size[0] / output_size[0]) - 0.5).clamp(min=0)
        self.upper = position.long().clamp(max=size[0] - 1)  # (H,)
        self.lower = (self.upper + 1).clamp(max=size[0] - 1)  # (H,)
        self.weight = (position - self.upper)[:, None]  # (H, 1), of the lower row
        self.first, self.last = self.upper.tolist(), self.lower.tolist()

    def rows_needed(self, band: slice) -> slice:
        """Input rows that a band of output rows depends on.

        Args:
            band: output rows; both ends given.

        Returns:
            The input rows.
        """
        if self.size[0] == self.output_size[0]:
            return band
        return slice(self.first[band.start], self.last[band.stop - 1] + 1)

    def __call__(self, rows: Tensor, band: slice) -> Tensor:
        """Resizes the rows needed.

        Args:
            rows: (C, n, w), the input's rows `rows_needed(band)`.
            band: output rows; both ends given.

        Returns:
            (C, band.stop - band.start, W).
        """
        if self.size[0] != self.output_size[0]:
            offset = self.first[band.start]
            above, below = rows[:, self.upper[band] - offset], rows[:, self.lower[band] - offset]
            rows = torch.lerp(above, below, self.weight[band])  # (C, rows, w)
        if self.size[1] == self.output_size[1]:
            return rows
        # Rows map to themselves here, so this interpolates along the width only.
        size = (rows.shape[1], self.output_size[1])
        return F.interpolate(rows[None], size=size, mode="bilinear", align_corners=False)[0]


class Prediction(ABC):
    """Class scores of one image, read out at the size the caller asked for."""

    output_size: tuple[int, int]

    @property
    @abstractmethod
    def num_classes(self) -> int:
        """K."""

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where the scores are computed."""

    @property
    @abstractmethod
    def floats_per_pixel(self) -> int:
        """Values that `bands` holds per output pixel; sets the height of a band."""

    @abstractmethod
    def bands(self, height: int) -> Iterator[tuple[slice, Tensor]]:
        """Computes the scores in bands of rows.

        Args:
            height: rows per band.

        Returns:
            Per band its output rows and their scores (rows, W, C) float32. The first K channels
            are the classes; a further one, if any, is a class the caller did not ask for and that
            only `labels` looks at.
        """

    def _bounded_bands(self) -> Iterator[tuple[slice, Tensor]]:
        bytes_per_row = 4 * self.floats_per_pixel * self.output_size[1]
        return self.bands(max(1, BAND_BYTES // bytes_per_row))

    def sem_seg(self) -> Tensor:
        """Returns the scores of every class, (K, H, W) float32."""
        scores = torch.empty(self.num_classes, *self.output_size, device=self.device)
        for band, values in self._bounded_bands():
            scores[:, band] = values[..., : self.num_classes].permute(2, 0, 1)
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
        for band, values in self._bounded_bands():
            classes = values[..., : self.num_classes]  # (rows, W, K)
            best, labels[band] = classes.max(-1)
            if blank is None:
                continue
            unclaimed = best <= 0
            if values.shape[-1] > self.num_classes:
                unclaimed |= best < values[..., -1]
            labels[band].masked_fill_(unclaimed, blank)
        return labels


def _slices(length: int, step: int) -> Iterator[slice]:
    return (slice(start, min(start + step, length)) for start in range(0, length, step))


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
    def num_classes(self) -> int:
        """K."""
        return len(self.scores)

    @property
    def device(self) -> torch.device:
        """Where the scores are."""
        return self.scores.device

    @property
    def floats_per_pixel(self) -> int:
        """Values held per output pixel."""
        return len(self.scores)

    def bands(self, height: int) -> Iterator[tuple[slice, Tensor]]:
        """Resizes the scores band by band; see `Prediction.bands`."""
        size = (self.scores.shape[1], self.scores.shape[2])
        resize = RowResizer(size, self.output_size, self.device)
        for band in _slices(self.output_size[0], height):
            rows = self.scores[:, resize.rows_needed(band)].float()
            yield band, resize(rows, band).permute(1, 2, 0)


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
    def num_classes(self) -> int:
        """K."""
        return self.class_scores.shape[1]

    @property
    def device(self) -> torch.device:
        """Where the masks are."""
        return self.masks.device

    @property
    def floats_per_pixel(self) -> int:
        """Values held per output pixel: the scores and the resized masks."""
        return self.num_classes + len(self.masks)

    def bands(self, height: int) -> Iterator[tuple[slice, Tensor]]:
        """Resizes the masks and merges them band by band; see `Prediction.bands`."""
        scores = self.class_scores
        if self.hidden_scores is not None:
            scores = torch.cat((scores, self.hidden_scores[:, None]), dim=1)  # (Q, K + 1)
        used = scores.ne(0).any(1).nonzero()[:, 0]  # other masks need no resizing
        if not len(used):
            used = torch.zeros(1, dtype=torch.int64, device=self.device)  # any mask; it scores 0
        scores = scores[used].float()  # (U, C)
        resize = RowResizer(
            (self.masks.shape[1], self.masks.shape[2]), self.output_size, self.device
        )
        for band in _slices(self.output_size[0], height):
            rows = self.masks[:, resize.rows_needed(band)]
            if len(used) < len(rows):
                rows = rows[used]  # (U, n, w)
            if self.threshold is not None:
                rows = rows > self.threshold
            resized = resize(rows.float(), band)  # (U, rows, W)
            yield band, (resized.flatten(1).T @ scores).unflatten(0, resized.shape[1:])
