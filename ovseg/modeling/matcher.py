"""One-to-one assignment of predicted to ground-truth masks.

Source: MaskFormer (Cheng et al., NeurIPS 2021), section 3.2; the costs are those of DETR (Carion et
al., ECCV 2020).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

FOCAL_ALPHA = 0.25
# A logit whose sigmoid is 0: on pixels outside every target it costs nothing and has no gradient.
SURELY_OUTSIDE = -1e4


def focal_cost(logits: Tensor, targets: Tensor) -> Tensor:
    """Sigmoid focal loss (alpha 0.25, gamma 2) of every pair, averaged over pixels.

    Args:
        logits: (Q, P) mask logits.
        targets: (N, P) float 0 or 1.

    Returns:
        (Q, N).
    """
    probability = logits.sigmoid()
    positive = FOCAL_ALPHA * (1 - probability).square() * F.softplus(-logits)
    negative = (1 - FOCAL_ALPHA) * probability.square() * F.softplus(logits)
    return (positive @ targets.T + negative @ (1 - targets).T) / logits.shape[1]


def dice_cost(logits: Tensor, targets: Tensor) -> Tensor:
    """Dice loss, smoothed by one pixel, of every pair.

    Args:
        logits: (Q, P) mask logits.
        targets: (N, P) float 0 or 1.

    Returns:
        (Q, N) in [0, 1).
    """
    probability = logits.sigmoid()
    overlap = 2 * probability @ targets.T
    total = probability.sum(1)[:, None] + targets.sum(1)[None, :]
    return 1 - (overlap + 1) / (total + 1)


class HungarianMatcher(nn.Module):
    """Assigns every target of an image to a different query at minimal total cost.

    Args:
        cost_class: weight of the negative class probability.
        cost_mask: weight of the focal cost.
        cost_dice: weight of the dice cost.
    """

    def __init__(self, *, cost_class: float, cost_mask: float, cost_dice: float) -> None:
        super().__init__()
        self.cost_class = cost_class
        self.cost_mask = cost_mask
        self.cost_dice = cost_dice

    def cost(self, logits: Tensor, masks: Tensor, target: Mapping[str, Tensor]) -> Tensor:
        """Cost of every pair of one image.

        Args:
            logits: (Q, K + 1) class logits, the last one for no object.
            masks: (Q, h, w) mask logits.
            target: labels (N,) int64, masks (N, H, W) bool or float, and optionally the pixels that
                count for nothing, ignored (H, W) bool.

        Returns:
            (Q, N) float32.
        """
        size = masks.shape[-2:]
        if "ignored" in target:
            ignored = F.interpolate(target["ignored"][None, None].float(), size=size)[0] > 0
            masks = masks.float().masked_fill(ignored, SURELY_OUTSIDE)
        flat = masks.float().flatten(1)  # (Q, h * w)
        resized = F.interpolate(target["masks"][:, None].float(), size=size)
        wanted = resized.flatten(1).to(flat)  # (N, h * w)
        classes = logits.float().softmax(-1)[:, target["labels"]]  # (Q, N)
        return (
            self.cost_mask * focal_cost(flat, wanted)
            - self.cost_class * classes
            + self.cost_dice * dice_cost(flat, wanted)
        )

    @torch.no_grad()
    def forward(
        self, outputs: Mapping[str, Tensor], targets: Sequence[Mapping[str, Tensor]]
    ) -> list[tuple[Tensor, Tensor]]:
        """Matches a batch, image by image.

        Args:
            outputs: pred_logits (B, Q, K + 1) and pred_masks (B, Q, h, w).
            targets: per image labels (N,) and masks (N, H, W).

        Returns:
            Per image query indices, ascending, and their target indices, both (min(Q, N),) int64.

        Raises:
            FloatingPointError: a cost is not finite, so no assignment exists.
        """
        with torch.autocast(outputs["pred_masks"].device.type, enabled=False):
            costs = [
                self.cost(logits, masks, target).cpu()
                if len(target["labels"])
                else torch.zeros(len(logits), 0)
                for logits, masks, target in zip(
                    outputs["pred_logits"], outputs["pred_masks"], targets, strict=True
                )
            ]
        if not all(bool(cost.isfinite().all()) for cost in costs):
            raise FloatingPointError(
                "The matching cost is not finite: expected finite class and mask logits. Training "
                "has diverged; lower SOLVER.BASE_LR or disable SOLVER.AMP."
            )
        pairs = [linear_sum_assignment(cost.numpy()) for cost in costs]
        return [(torch.as_tensor(q).long(), torch.as_tensor(t).long()) for q, t in pairs]
