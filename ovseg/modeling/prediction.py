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
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from torch import Tensor

from ovseg.modeling.contenders import contenders
from ovseg.modeling.row_resizer import RowResizer
from ovseg.utils.masks import RunLength, encode_rle

# Upper bound of the values held at a time. Small enough to stay in a processor's cache, large
# enough to keep a GPU busy.
BAND_BYTES = 16 * 2**20

# Rows and columns of a picture; both ends of each given.
Window = tuple[slice, slice]
_ALL = slice(None)


@dataclass(frozen=True)
class Proposal:
    """One mask that the model proposed, as the classifier saw it.

    Attributes:
        rle: COCO RLE of the binary mask, at the network's input size.
        label: index of the class with the highest score.
        score: that class's score after the ensemble, in [0, 1].
        proposal_score: the same class's score from the mask proposer alone.
        clip_score: the same class's score from CLIP alone; None where CLIP was not asked.
        area: share of the picture that the mask covers, in [0, 1].
    """

    rle: RunLength
    label: int
    score: float
    proposal_score: float
    clip_score: float | None
    area: float


class Prediction(ABC):
    """Class scores of one image, read out at the size the caller asked for.

    Attributes:
        output_size: (H, W).
    """

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
    def bands(self, height: int, window: Window | None = None) -> Iterator[tuple[slice, Tensor]]:
        """Computes the scores in bands of rows.

        Args:
            height: rows per band.
            window: the part of the picture that is wanted; None: all of it.

        Returns:
            Per band its output rows and their scores (rows, W, C) float32 of any range, W the
            window's. The first K channels are the classes; further ones, if any, are for
            `abstains` alone.
        """

    def final_bands(
        self, height: int, window: Window | None = None
    ) -> Iterator[tuple[slice, Tensor]]:
        """Computes the bands of which `sem_seg` consists, so that the labels are their argmax.

        Other than `bands` only where a method has more to say about labels than scores.

        Args:
            height: rows per band.
            window: the part of the picture that is wanted; None: all of it.

        Returns:
            As `bands`.
        """
        return self.bands(height, window)

    @abstractmethod
    def region_scores(self, labels: np.ndarray) -> np.ndarray:
        """Says with what confidence each class's pixels were named.

        Args:
            labels: (H, W) integers in [-1, K), at output size.

        Returns:
            (K,) float32 in [0, 1]; 0 for a class without pixels.
        """

    @property
    def may_abstain(self) -> bool:
        """Whether there can be pixels that no class may have."""
        return False

    def abstains(self, rows: slice, scores: Tensor, columns: slice = _ALL) -> Tensor:
        """Tells which pixels of a band no class may have; asked only where `may_abstain`.

        Args:
            rows: the band's output rows.
            scores: (rows, W, C) of `bands`.
            columns: the window's, where the band has one.

        Returns:
            (rows, W) bool.
        """
        return scores.new_zeros(scores.shape[:2], dtype=torch.bool)

    def proposals(self) -> tuple[Proposal, ...]:
        """Lists the masks that took part, best score first; a method without masks has none."""
        return ()

    @property
    def band_height(self) -> int:
        """Rows of the output whose scores take `BAND_BYTES` at most, or one row."""
        return max(1, BAND_BYTES // (4 * self.floats_per_pixel * self.output_size[1]))

    def _bounded_bands(self) -> Iterator[tuple[slice, Tensor]]:
        return self.bands(self.band_height)

    def sem_seg(self) -> Tensor:
        """Returns the scores of every class, (K, H, W) float32."""
        scores = torch.empty(self.num_classes, *self.output_size, device=self.device)
        for band, values in self.final_bands(self.band_height):
            scores[:, band] = values[..., : self.num_classes].permute(2, 0, 1)
        return scores

    def labels(self, *, blank: int | None = None) -> Tensor:
        """Returns the best class of every pixel.

        Args:
            blank: label of pixels for which the prediction abstains. None gives them the best
                class like all others.

        Returns:
            (H, W) int64. Without `blank`, equal to `sem_seg().argmax(0)`.
        """
        labels = torch.empty(self.output_size, dtype=torch.int64, device=self.device)
        for band, values in self._bounded_bands():
            labels[band] = values[..., : self.num_classes].max(-1).indices
            if blank is not None and self.may_abstain:
                labels[band].masked_fill_(self.abstains(band, values), blank)
        return labels

    def abstention(self) -> Tensor | None:
        """Returns the pixels for which the prediction abstains, (H, W) bool, if it ever does."""
        if not self.may_abstain:
            return None
        return torch.cat([self.abstains(band, values) for band, values in self._bounded_bands()])


def _bands_of(rows: slice, height: int) -> Iterator[slice]:
    starts = range(rows.start, rows.stop, height)
    return (slice(start, min(start + height, rows.stop)) for start in starts)


@dataclass(frozen=True, eq=False)
class DensePrediction(Prediction):
    """Scores that a method computed per pixel.

    Args:
        scores: (K, h, w) of any range, such as probabilities or logits.
        output_size: (H, W) the caller asked for.
        blank: (H, W) bool, pixels for which the method abstains; None: it names every pixel.
        logit_scale: factor that makes logits of `scores`, whose softmax is the confidence; None
            where they are probabilities already.
    """

    scores: Tensor
    output_size: tuple[int, int]
    blank: Tensor | None = None
    logit_scale: float | None = None

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

    def bands(self, height: int, window: Window | None = None) -> Iterator[tuple[slice, Tensor]]:
        """Resizes the scores band by band; see `Prediction.bands`."""
        wanted, columns = window or (slice(0, self.output_size[0]), _ALL)
        size = (self.scores.shape[1], self.scores.shape[2])
        resize = RowResizer(size, self.output_size, self.device)
        for band in _bands_of(wanted, height):
            rows = self.scores[:, resize.rows_needed(band)].float()
            yield band, resize(rows, band)[..., columns].permute(1, 2, 0)

    @property
    def may_abstain(self) -> bool:
        """Whether the method left pixels blank."""
        return self.blank is not None

    def abstains(self, rows: slice, scores: Tensor, columns: slice = _ALL) -> Tensor:
        """Cuts the band out of `blank`; see `Prediction.abstains`."""
        assert self.blank is not None
        return self.blank[rows, columns]

    def region_scores(self, labels: np.ndarray) -> np.ndarray:
        """Averages each class's probability over its pixels; see `Prediction.region_scores`."""
        total = torch.zeros(self.num_classes + 1, device=self.device)
        target = torch.from_numpy(labels.astype(np.int64)).to(self.device) + 1  # blank first
        for band, values in self._bounded_bands():
            if self.logit_scale is not None:
                values = (self.logit_scale * values).softmax(-1)
            named = target[band]  # (rows, W)
            own = values.gather(-1, (named - 1).clamp(min=0)[..., None])[..., 0]
            total.index_add_(0, named.flatten(), own.flatten())
        pixels = target.flatten().bincount(minlength=self.num_classes + 1)
        means = total[1:] / pixels[1:].clamp(min=1)
        return means.clamp(0, 1).float().cpu().numpy()


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
        mask_threshold: a pixel belongs to a mask above this value.
        binary: merge masks cut at the threshold instead of their values; pixels in none of them
            stay blank.
        hidden_scores: (Q,) final scores of a class that was added to those asked for; pixels that
            it would get stay blank.
    """

    masks: Tensor
    class_scores: Tensor
    proposal_scores: Tensor
    clip_scores: Tensor | None
    valid: Tensor
    output_size: tuple[int, int]
    mask_threshold: float = 0.4
    binary: bool = False
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

    def bands(self, height: int, window: Window | None = None) -> Iterator[tuple[slice, Tensor]]:
        """Resizes the masks and merges them band by band; see `Prediction.bands`."""
        wanted, columns = window or (slice(0, self.output_size[0]), _ALL)
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
        for band in _bands_of(wanted, height):
            rows = self.masks[:, resize.rows_needed(band)]
            if len(used) < len(rows):
                rows = rows[used]  # (U, n, w)
            if self.binary:
                rows = rows > self.mask_threshold
            resized = resize(rows.float(), band)[..., columns]  # (U, rows, W)
            yield band, (resized.flatten(1).T @ scores).unflatten(0, resized.shape[1:])

    def labels(self, *, blank: int | None = None) -> Tensor:
        """Returns the best class of every pixel; see `Prediction.labels`."""
        kept = contenders(self.class_scores)  # others need no merging
        if len(kept) == self.num_classes:
            return super().labels(blank=blank)
        fewer = replace(self, class_scores=self.class_scores[:, kept])
        found = Prediction.labels(fewer, blank=None if blank is None else -1)
        labels = kept[found.clamp(min=0)]
        return labels if blank is None else labels.masked_fill_(found < 0, blank)

    @property
    def may_abstain(self) -> bool:
        """Whether masks were cut, so that there are pixels in none of them."""
        return self.binary or self.hidden_scores is not None

    def abstains(self, rows: slice, scores: Tensor, columns: slice = _ALL) -> Tensor:
        """Pixels that no mask covers or the hidden class has; see `Prediction.abstains`."""
        # Scores are sums of products of mask values and probabilities: 0 means that no mask that
        # was kept reaches the pixel.
        best = scores[..., : self.num_classes].amax(-1)  # (rows, W)
        unclaimed = best <= 0
        if self.hidden_scores is not None:
            unclaimed |= best < scores[..., -1]
        return unclaimed

    def region_scores(self, labels: np.ndarray) -> np.ndarray:
        """Averages the masks' scores over each class's pixels; see `Prediction.region_scores`.

        Each mask counts by its value at the pixel. Masks that were left out do not count.
        """
        used = self.class_scores.ne(0).any(1)
        masks, class_scores = self.masks, self.class_scores[used]  # (Q, h, w), (U, K)
        if self.binary:
            masks = (masks > self.mask_threshold).to(class_scores.dtype)
        size = (masks.shape[2], masks.shape[1])
        near = cv2.resize(labels.astype(np.int32), size, interpolation=cv2.INTER_NEAREST)  # (h, w)
        named = torch.from_numpy(near).to(masks.device).flatten()  # (h * w,)
        present = torch.from_numpy(np.unique(near)).to(masks.device)
        present = present[present >= 0].long()  # (P,), few of the K
        inside = (present[:, None] == named).to(masks.dtype)  # (P, h * w)
        weights = masks.new_zeros(len(class_scores), self.num_classes)  # (U, K)
        weights[:, present] = (inside @ masks.flatten(1).T).T[used]
        total = weights.sum(0)  # (K,)
        means = (weights * class_scores).sum(0) / total.clamp(min=1e-12)
        # A region too thin for the network's grid: the best mask stands for it.
        best = class_scores.amax(0) if len(class_scores) else torch.zeros_like(total)
        scores = torch.where(total > 0, means, best).float().cpu().numpy()
        pixels = np.bincount(labels.ravel() + 1, minlength=self.num_classes + 1)[1:]
        return np.where(pixels > 0, scores, 0.0).clip(0.0, 1.0).astype(np.float32)

    def proposals(self) -> tuple[Proposal, ...]:
        """Lists the masks that took part, with the classes they were given.

        Returns:
            Best score first. Masks without a pixel above the threshold are not listed, nor those
            that the model left out (in the demo inference mode, all but each class's best).
        """
        scores, labels = self.class_scores.max(1)  # (Q,)
        found = []
        for q in scores.argsort(descending=True, stable=True).tolist():
            mask = (self.masks[q] > self.mask_threshold).cpu().numpy()  # (h, w)
            if scores[q] <= 0 or not mask.any():
                continue
            k = int(labels[q])
            clip = self.clip_scores if self.valid[q] else None
            found.append(
                Proposal(
                    rle=encode_rle(mask),
                    label=k,
                    score=float(scores[q]),
                    proposal_score=float(self.proposal_scores[q, k]),
                    clip_score=None if clip is None else float(clip[q, k]),
                    area=float(mask.mean()),
                )
            )
        return tuple(found)
