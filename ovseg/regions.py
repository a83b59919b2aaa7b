"""What a model's masks say about the regions found: confidence per class, proposals to inspect."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch

from ovseg.utils.masks import RunLength, encode_rle

if TYPE_CHECKING:
    from ovseg.modeling.segmentor import MaskPrediction


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
    mask weighted by its value at the pixel.

    Args:
        prediction: the model's masks and scores.
        labels: (H, W) integers in [-1, K), at output size.

    Returns:
        (K,) float32 in [0, 1]; 0 for a class without pixels.
    """
    masks, class_scores = prediction.masks, prediction.class_scores  # (Q, h, w), (Q, K)
    num_classes = class_scores.shape[1]
    size = (masks.shape[2], masks.shape[1])
    near = cv2.resize(labels.astype(np.int32), size, interpolation=cv2.INTER_NEAREST)  # (h, w)
    index = torch.from_numpy(near.astype(np.int64)).to(masks.device).flatten() + 1  # blank first
    weights = masks.new_zeros(masks.shape[0], num_classes + 1)
    weights.index_add_(1, index, masks.flatten(1))
    weights = weights[:, 1:]  # (Q, K)
    total = weights.sum(0)  # (K,)
    means = (weights * class_scores).sum(0) / total.clamp(min=1e-12)
    # A region too thin for the network's grid: the best mask stands for it.
    best = class_scores.amax(0) if len(class_scores) else torch.zeros_like(total)
    scores = torch.where(total > 0, means, best).float().cpu().numpy()
    present = np.isin(np.arange(num_classes), np.unique(labels))
    return np.where(present, scores, 0.0).clip(0.0, 1.0).astype(np.float32)


def list_proposals(prediction: MaskPrediction, *, threshold: float) -> tuple[Proposal, ...]:
    """List the masks that survived, with the classes they were given.

    Args:
        prediction: the model's masks and scores.
        threshold: value above which a pixel belongs to a mask.

    Returns:
        Best score first; masks without any pixel above the threshold are left out.
    """
    scores, labels = prediction.class_scores.max(1)  # (Q,)
    proposals = []
    for q in scores.argsort(descending=True, stable=True).tolist():
        mask = (prediction.masks[q] > threshold).cpu().numpy()  # (h, w)
        if not mask.any():
            continue
        k = int(labels[q])
        asked = prediction.clip_scores is not None and bool(prediction.valid[q])
        proposals.append(
            Proposal(
                rle=encode_rle(mask),
                label=k,
                score=float(scores[q]),
                proposal_score=float(prediction.proposal_scores[q, k]),
                clip_score=float(prediction.clip_scores[q, k]) if asked else None,
                area=float(mask.mean()),
            )
        )
    return tuple(proposals)
