"""Combining what the mask classifier and CLIP say about each mask.

Source: OVSeg (Liang et al., CVPR 2023), section 3.1, equation 3: a geometric mean with weight
lambda; the one-mask-per-class rule is that of the demo of OVSeg.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class EnsembleSettings:
    """How OVSeg's two classifiers are combined.

    Args:
        use_clip: whether CLIP takes part; without it the mask classifier decides alone.
        weight: CLIP's exponent in [0, 1]; 0 means CLIP alone.
        weight_unseen: the same for classes whose names the mask classifier was not trained with;
            None: `weight`.
        mask_threshold: a pixel belongs to a region above this mask value, in [0, 1).

    Raises:
        ValueError: a value is out of range.
    """

    use_clip: bool = True
    weight: float = 0.7
    mask_threshold: float = 0.4
    weight_unseen: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.weight <= 1:
            raise ValueError(
                "MODEL.CLIP_ADAPTER.CLIP_ENSEMBLE_WEIGHT: expected a number in [0, 1], got "
                f"{self.weight}."
            )
        if self.weight_unseen is not None and not 0 <= self.weight_unseen <= 1:
            raise ValueError(
                "MODEL.CLIP_ADAPTER.CLIP_ENSEMBLE_WEIGHT_UNSEEN: expected a number in [0, 1], or a "
                f"negative one for that of all classes, got {self.weight_unseen}."
            )
        check_mask_threshold(self.mask_threshold)


def check_mask_threshold(threshold: float) -> float:
    """Return a threshold of mask values if some masks can be above it and others below.

    Raises:
        ValueError: it is not in [0, 1).
    """
    if not 0 <= threshold < 1:
        raise ValueError(
            "MODEL.CLIP_ADAPTER.MASK_THR: expected a mask probability from 0 to below 1, got "
            f"{threshold}."
        )
    return threshold


def ensemble_scores(proposal: Tensor, clip: Tensor, valid: Tensor, *, weight: float) -> Tensor:
    """Weighted geometric mean of two classifiers.

    Args:
        proposal: (Q, K) probabilities of the mask classifier.
        clip: (Q, K) probabilities of CLIP.
        valid: (Q,) bool, the masks that CLIP saw; rows of `clip` elsewhere are not read.
        weight: CLIP's exponent in [0, 1]. At 0 CLIP alone decides and masks that it did not see
            score zero: this special value is part of the released configurations. Where it saw
            none at all, the mask classifier decides, so that no pixel is left without a class.

    Returns:
        (Q, K).
    """
    if weight == 0:
        return torch.where(valid[:, None], clip, 0.0) if bool(valid.any()) else proposal
    seen = torch.where(valid[:, None], clip, 1.0)
    return proposal ** (1 - weight) * seen**weight


def ensemble_scores_by_class(
    proposal: Tensor, clip: Tensor, valid: Tensor, *, weights: tuple[float, float], unseen: Tensor
) -> Tensor:
    """Combines the scores of two classifiers with a weight for each of two kinds of classes.

    Args:
        proposal, clip, valid: see `ensemble_scores`.
        weights: CLIP's exponent for the other classes and for unseen ones.
        unseen: (K,) bool.

    Returns:
        (Q, K). Masks that CLIP did not see have the first weight throughout: where only one
        classifier spoke, its order of the classes stays.
    """
    seen_scores, unseen_scores = (
        ensemble_scores(proposal, clip, valid, weight=weight) for weight in weights
    )
    return torch.where(valid[:, None] & unseen, unseen_scores, seen_scores)


def keep_best_mask_per_class(scores: Tensor, valid: Tensor, *, skip: int | None = None) -> Tensor:
    """Keeps the scores of only those masks that are the best of some class.

    Args:
        scores: (Q, K).
        valid: (Q,) bool; other masks are never the best.
        skip: a class whose best mask is not kept on its account.

    Returns:
        (Q, K), `scores` with all other rows zero.
    """
    if not bool(valid.any()):
        return torch.zeros_like(scores)
    best = scores.masked_fill(~valid[:, None], -torch.inf).argmax(0)  # (K,)
    if skip is not None:
        best = torch.cat((best[:skip], best[skip + 1 :]))
    kept = torch.zeros_like(valid).index_fill(0, best, True)
    return torch.where(kept[:, None], scores, 0.0)
