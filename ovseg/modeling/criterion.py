"""Losses of mask classification.

Source: MaskFormer (Cheng et al., NeurIPS 2021), section 3.2 and appendix A: weighted cross-entropy,
focal loss and dice loss of matched pairs, at every decoder layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed
import torch.nn.functional as F
from torch import Tensor, nn

from ovseg.d2.utils import comm
from ovseg.modeling.matcher import FOCAL_ALPHA, SURELY_OUTSIDE, HungarianMatcher

Matches = Sequence[tuple[Tensor, Tensor]]


def sigmoid_focal_loss(logits: Tensor, targets: Tensor, num_masks: float) -> Tensor:
    """Focal loss (alpha 0.25, gamma 2), mean over pixels, sum over masks / num_masks.

    Args:
        logits: (N, P).
        targets: (N, P) float 0 or 1.
        num_masks: divisor of the sum over masks.

    Returns:
        Scalar.
    """
    probability = logits.sigmoid()
    entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    hit = probability * targets + (1 - probability) * (1 - targets)
    alpha = FOCAL_ALPHA * targets + (1 - FOCAL_ALPHA) * (1 - targets)
    return (alpha * entropy * (1 - hit).square()).mean(1).sum() / num_masks


def dice_loss(logits: Tensor, targets: Tensor, num_masks: float) -> Tensor:
    """Dice loss, smoothed by one pixel, sum over masks / num_masks.

    Args:
        logits: (N, P).
        targets: (N, P) float 0 or 1.
        num_masks: divisor of the sum over masks.

    Returns:
        Scalar.
    """
    probability = logits.sigmoid()
    overlap = 2 * (probability * targets).sum(1)
    total = probability.sum(1) + targets.sum(1)
    return (1 - (overlap + 1) / (total + 1)).sum() / num_masks


class SetCriterion(nn.Module):
    """Matches predictions to targets and computes the losses of the pairs.

    Padding and ignored pixels count as negatives of every mask, as upstream has it, unless the
    targets name pixels to leave out ("ignored"): those then cost nothing, whatever is predicted.

    Args:
        num_classes: K; class K is "no object".
        matcher: assigns targets to queries.
        no_object_weight: class weight of "no object"; at 0 or below it is left out of the loss.
        mask_weight: weight of the focal loss.
        dice_weight: weight of the dice loss.
    """

    empty_weight: Tensor

    def __init__(
        self,
        *,
        num_classes: int,
        matcher: HungarianMatcher,
        no_object_weight: float,
        mask_weight: float,
        dice_weight: float,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.matcher = matcher
        self.no_object_weight = no_object_weight
        self.weights = {"loss_ce": 1.0, "loss_mask": mask_weight, "loss_dice": dice_weight}
        empty_weight = torch.ones(num_classes + 1)
        if no_object_weight > 0:
            empty_weight[-1] = no_object_weight
        self.register_buffer("empty_weight", empty_weight)

    def class_weight(self, counts: Sequence[int], queries: int) -> float:
        """Sum of the class weights of all queries; it does not depend on which ones are matched.

        Args:
            counts: targets of each image.
            queries: Q.

        Returns:
            What the weighted mean of the cross-entropy divides by.
        """
        matched = sum(min(count, queries) for count in counts)
        return matched + max(self.no_object_weight, 0.0) * (queries * len(counts) - matched)

    def divisors(self, counts: Sequence[int], queries: int) -> dict[str, float]:
        """What the losses divide by, as means over processes; all processes call this together.

        With means, the gradient that DistributedDataParallel averages is that of one process with
        all the images.

        Args:
            counts: targets of each image of this process.
            queries: Q.

        Returns:
            By name of a loss; those of masks divide by at least 1.
        """
        mine = [self.class_weight(counts, queries), float(sum(counts))]
        weight, masks = _mean_over_processes(mine, self.empty_weight.device)
        return {"loss_ce": weight, "loss_mask": masks, "loss_dice": masks}

    def micro_batch_weights(
        self, counts: Sequence[Sequence[int]], queries: int
    ) -> list[dict[str, float]]:
        """Weights that make the losses of parts of a batch add up to those of the whole batch.

        Args:
            counts: per part the targets of each image.
            queries: Q.

        Returns:
            Per part a factor by name of a loss; `loss_ce` stands for `loss_ce_0` and so on, too.
        """
        each = [self.divisors(part, queries) for part in counts]
        sums = {name: sum(part[name] for part in each) for name in each[0]}
        return [
            {
                "loss_ce": part["loss_ce"] / (sums["loss_ce"] or 1.0),
                **{
                    name: max(part[name], 1.0) / max(sums[name], 1.0)
                    for name in ("loss_mask", "loss_dice")
                },
            }
            for part in each
        ]

    def class_loss(
        self,
        logits: Tensor,
        targets: Sequence[Mapping[str, Tensor]],
        matches: Matches,
        share: float = 1.0,
    ) -> Tensor:
        """Cross-entropy of all queries; unmatched ones are "no object".

        Args:
            logits: (B, Q, K + 1).
            targets: per image labels (N,).
            matches: per image query and target indices.
            share: total class weight of this process over the mean of all processes.

        Returns:
            Scalar, the mean weighted by the class weights, times `share`.
        """
        wanted = torch.full(logits.shape[:2], self.num_classes, device=logits.device)  # (B, Q)
        for row, target, (queries, chosen) in zip(wanted, targets, matches, strict=True):
            row[queries.to(row.device)] = target["labels"][chosen.to(target["labels"].device)]
        if self.no_object_weight <= 0:
            # Dropped altogether, not weighted by zero: a mean over nothing stays defined below.
            wanted = wanted.masked_fill(wanted == self.num_classes, -100)
            if not bool((wanted >= 0).any()):
                return logits.sum() * 0.0
        mean = F.cross_entropy(logits.float().transpose(1, 2), wanted, self.empty_weight)
        return mean * share

    def mask_losses(
        self,
        masks: Tensor,
        targets: Sequence[Mapping[str, Tensor]],
        matches: Matches,
        num_masks: float,
    ) -> dict[str, Tensor]:
        """Focal and dice loss of the matched pairs at the targets' resolution.

        Args:
            masks: (B, Q, h, w) logits.
            targets: per image masks (N, H, W), one size for all images, and for all or none of
                them the pixels to leave out, ignored (H, W) bool.
            matches: per image query and target indices.
            num_masks: divisor of the sums over masks.

        Returns:
            loss_mask and loss_dice.
        """
        chosen = torch.cat([m[q.to(m.device)] for m, (q, _) in zip(masks, matches, strict=True)])
        wanted = torch.cat(
            [
                t["masks"][index.to(t["masks"].device)]
                for t, (_, index) in zip(targets, matches, strict=True)
            ]
        )  # (N, H, W)
        if not len(chosen):
            return {"loss_mask": masks.sum() * 0.0, "loss_dice": masks.sum() * 0.0}
        logits = F.interpolate(
            chosen[:, None].float(), size=wanted.shape[-2:], mode="bilinear", align_corners=False
        )[:, 0]  # (N, H, W)
        if "ignored" in targets[0]:
            images = [len(index) for _, index in matches]
            ignored = torch.stack([target["ignored"] for target in targets])  # (B, H, W)
            repeats = torch.tensor(images, device=ignored.device)
            logits = logits.masked_fill(ignored.repeat_interleave(repeats, dim=0), SURELY_OUTSIDE)
        logits = logits.flatten(1)  # (N, H * W)
        flat = wanted.flatten(1).to(logits)
        return {
            "loss_mask": sigmoid_focal_loss(logits, flat, num_masks),
            "loss_dice": dice_loss(logits, flat, num_masks),
        }

    def forward(
        self, outputs: Mapping[str, Any], targets: Sequence[Mapping[str, Tensor]]
    ) -> dict[str, Tensor]:
        """Computes the weighted losses of the last and of every auxiliary layer.

        Args:
            outputs: pred_logits (B, Q, K + 1), pred_masks (B, Q, h, w), optionally aux_outputs.
            targets: per image labels (N,) int64, masks (N, H, W) bool, optionally ignored (H, W)
                bool.

        Returns:
            loss_ce, loss_mask and loss_dice, and the same with suffix _i for auxiliary layer i.
        """
        counts = [len(target["labels"]) for target in targets]
        queries = outputs["pred_logits"].shape[1]
        divisors = self.divisors(counts, queries)
        num_masks = max(divisors["loss_mask"], 1.0)
        share = self.class_weight(counts, queries) / (divisors["loss_ce"] or 1.0)
        losses: dict[str, Tensor] = {}
        layers = [("", outputs)]
        layers += [(f"_{i}", aux) for i, aux in enumerate(outputs.get("aux_outputs", ()))]
        with torch.autocast(outputs["pred_masks"].device.type, enabled=False):
            for suffix, layer in layers:
                matches = self.matcher(layer, targets)
                terms = {"loss_ce": self.class_loss(layer["pred_logits"], targets, matches, share)}
                terms |= self.mask_losses(layer["pred_masks"], targets, matches, num_masks)
                losses |= {name + suffix: self.weights[name] * term for name, term in terms.items()}
        return losses


def _mean_over_processes(values: Sequence[float], device: torch.device) -> list[float]:
    if comm.get_world_size() == 1:
        return list(values)
    total = torch.tensor(values, dtype=torch.float64, device=device)
    torch.distributed.all_reduce(total)
    return (total / comm.get_world_size()).tolist()
