"""What a model's masks say about the regions found: confidence per class, proposals to inspect."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch

from ovseg.utils.masks import RunLength, encode_rle
from ovseg.visualization import pixel_counts

if TYPE_CHECKING:
    from ovseg.modeling import MaskPrediction


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


def region_scores(prediction: MaskPrediction, labels: np.ndarray) -> np.ndarray:
    """Say with what confidence each class's pixels were named.

    The score of class k is the mean of the masks' class scores over the pixels labelled k, each
    mask weighted by its value at the pixel. Masks that the model left out do not count.

    Args:
        prediction: the model's masks and scores.
        labels: (H, W) integers in [-1, K), at output size.

    Returns:
        (K,) float32 in [0, 1]; 0 for a class without pixels.
    """
    used = prediction.class_scores.ne(0).any(1)
    masks, class_scores = prediction.masks[used], prediction.class_scores[used]  # (U, h, w), (U, K)
    if prediction.threshold is not None:
        masks = (masks > prediction.threshold).to(class_scores.dtype)
    num_classes = class_scores.shape[1]
    size = (masks.shape[2], masks.shape[1])
    near = cv2.resize(labels.astype(np.int32), size, interpolation=cv2.INTER_NEAREST)  # (h, w)
    index = torch.from_numpy(near.astype(np.int64)).to(masks.device).flatten() + 1  # blank first
    weights = masks.new_zeros(len(masks), num_classes + 1)
    weights = weights.index_add_(1, index, masks.flatten(1))[:, 1:]  # (U, K)
    total = weights.sum(0)  # (K,)
    means = (weights * class_scores).sum(0) / total.clamp(min=1e-12)
    # A region too thin for the network's grid: the best mask stands for it.
    best = class_scores.amax(0) if len(class_scores) else torch.zeros_like(total)
    scores = torch.where(total > 0, means, best).float().cpu().numpy()
    present = pixel_counts(labels, num_classes) > 0
    return np.where(present, scores, 0.0).clip(0.0, 1.0).astype(np.float32)


def list_proposals(prediction: MaskPrediction, *, threshold: float) -> tuple[Proposal, ...]:
    """List the masks that took part, with the classes they were given.

    Args:
        prediction: the model's masks and scores.
        threshold: value above which a pixel belongs to a mask.

    Returns:
        Best score first. Masks without a pixel above the threshold are not listed, nor those
        that the model left out (in the demo inference mode, all but each class's best).
    """
    scores, labels = prediction.class_scores.max(1)  # (Q,)
    proposals = []
    for q in scores.argsort(descending=True, stable=True).tolist():
        mask = (prediction.masks[q] > threshold).cpu().numpy()  # (h, w)
        if scores[q] <= 0 or not mask.any():
            continue
        k = int(labels[q])
        clip = prediction.clip_scores if prediction.valid[q] else None
        proposals.append(
            Proposal(
                rle=encode_rle(mask),
                label=k,
                score=float(scores[q]),
                proposal_score=float(prediction.proposal_scores[q, k]),
                clip_score=None if clip is None else float(clip[q, k]),
                area=float(mask.mean()),
            )
        )
    return tuple(proposals)
