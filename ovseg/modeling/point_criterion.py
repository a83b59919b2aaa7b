"""Losses of masks that are asked for at points, and of the classes of pixels.

Nothing is matched: the target of a point is the segment that it lies in. Points are drawn on
segments only, so ignored pixels are never asked for, and no mask of theirs is a target. In other
segments' masks they count as outside, as all that does not belong to the segment.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ovseg.modeling.matcher import SURELY_OUTSIDE
from ovseg.modeling.point_queries import point_masks, query_at

Targets = Sequence[Mapping[str, Tensor]]
# Label of a segment that has a mask, but no class: see `ovseg.data.segment_augmentation`.
NO_CLASS = -1
_UNLABELLED = -100


class PointCriterion(nn.Module):
    """Mean losses of drawn points, and the cross-entropy of pixels.

    Args:
        num_classes: K.
        points: points that are drawn on each picture.
        mask_weight: weight of the masks' binary cross-entropy.
        dice_weight: weight of their dice loss.
        quality_weight: weight of the squared error of the expected IoU.
        class_weight: weight of the pixels' cross-entropy over the K classes.
        alignment_weight: weight of one minus the cosine of a pixel's embedding and its class's
            text. Cross-entropy alone drives embeddings away from the texts of the other training
            classes and so towards any text that it does not know.
        logit_scale: factor that turns cosines into logits; None where the logits are no cosines,
            and nothing is aligned.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        points: int,
        mask_weight: float,
        dice_weight: float,
        quality_weight: float,
        class_weight: float,
        alignment_weight: float = 0.0,
        logit_scale: float | None = None,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.points = points
        self.logit_scale = logit_scale
        self.weights = {
            "loss_mask": mask_weight,
            "loss_dice": dice_weight,
            "loss_quality": quality_weight,
            "loss_ce": class_weight,
            "loss_alignment": alignment_weight,
        }

    def micro_batch_weights(
        self, counts: Sequence[Sequence[int]], queries: int
    ) -> list[dict[str, float]]:
        """Nothing but equal weights: all losses are means over pictures."""
        return [{} for _ in counts]

    def mask_losses(self, masks: Tensor, quality: Tensor, wanted: Tensor) -> dict[str, Tensor]:
        """Losses of every point's mask.

        Args:
            masks: (..., h, w) logits.
            quality: (...) expected IoUs.
            wanted: (..., h, w) shares of the cells that the segments cover, in [0, 1].

        Returns:
            loss_mask, loss_dice and loss_quality, each (...).
        """
        logits, wanted = masks.flatten(-2), wanted.flatten(-2)
        inside = logits.sigmoid()
        overlap, total = 2 * (inside * wanted).sum(-1), inside.sum(-1) + wanted.sum(-1)
        found, true = logits > 0, wanted > 0.5
        iou = (found & true).sum(-1) / (found | true).sum(-1).clamp(min=1)
        entropy = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
        return {
            "loss_mask": entropy.mean(-1),
            "loss_dice": 1 - (overlap + 1) / (total + 1),
            "loss_quality": (quality - iou).square(),
        }

    def class_losses(self, logits: Tensor, targets: Targets) -> dict[str, Tensor]:
        """Losses of the pixels that have a class; large segments do not drown small ones.

        A pixel counts by one over the square root of its segment's size.

        Args:
            logits: (B, h, w, K + 1); "no object", the last, takes no part.
            targets: per image labels (N,) and masks (N, H, W).

        Returns:
            loss_ce and, for cosines, loss_alignment: scalars, the means over pictures.
        """
        wanted, weights = zip(*(_pixel_labels(t, logits.shape[1:3]) for t in targets), strict=True)
        logits, target = logits[..., :-1].float(), torch.stack(wanted)
        weight = torch.stack(weights)  # (B, h, w)
        weight = weight / weight.sum((1, 2), keepdim=True).clamp(min=torch.finfo().tiny)
        entropy = F.cross_entropy(
            logits.movedim(-1, 1), target, reduction="none", ignore_index=_UNLABELLED
        )
        losses = {"loss_ce": (entropy * weight).sum() / len(targets)}
        if self.logit_scale is not None:
            own = logits.gather(-1, target.clamp(min=0)[..., None])[..., 0] / self.logit_scale
            losses["loss_alignment"] = ((1 - own) * weight).sum() / len(targets)
        return losses

    def forward(self, outputs: Mapping[str, Any], targets: Targets) -> dict[str, Tensor]:
        """Draws points and computes the weighted losses.

        Args:
            outputs: mask_features (B, M, h, w), query_map (B, M + 1, h', w'), pred_logits (B, h',
                w', K + 1).
            targets: per image labels (N,) int64, -1 for a segment without a class, masks (N, H, W)
                bool, optionally ignored (H, W) bool: pixels that then cost nothing.

        Returns:
            loss_mask, loss_dice, loss_quality, loss_ce and, for cosines, loss_alignment; scalars.
        """
        with torch.autocast(outputs["mask_features"].device.type, enabled=False):
            features = outputs["mask_features"].float()
            drawn = [self._draw(target, features.shape[-2:]) for target in targets]
            points, wanted = (torch.stack(parts) for parts in zip(*drawn, strict=True))
            queries = query_at(outputs["query_map"].float(), points)  # (B, N, M + 1)
            masks, quality = point_masks(queries, features)  # (B, N, h, w), (B, N)
            if "ignored" in targets[0]:
                ignored = torch.stack([t["ignored"] for t in targets])[:, None].float()
                ignored = F.interpolate(ignored, size=features.shape[-2:], mode="area") > 0.5
                masks = masks.masked_fill(ignored, SURELY_OUTSIDE)
            each = self.mask_losses(masks, quality, wanted)
            asked = torch.tensor([len(t["labels"]) > 0 for t in targets]).to(masks)[:, None]
            losses = {name: (loss * asked).mean() for name, loss in each.items()}
            losses |= self.class_losses(outputs["pred_logits"], targets)
        return {name: self.weights[name] * loss for name, loss in losses.items()}

    def _draw(self, target: Mapping[str, Tensor], size: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Points (N, 2) in shares of width and height, and their segments (N, h, w) in [0, 1].

        Every segment is as likely as any other, and so is every pixel in it.
        """
        masks = target["masks"]  # (S, H, W)
        height, width = masks.shape[1:]
        if not len(masks):
            centre = torch.full((self.points, 2), 0.5, device=masks.device)
            return centre, torch.zeros(self.points, *size, device=masks.device)
        chosen = torch.randint(len(masks), (self.points,), device=masks.device)
        places = torch.rand(self.points, device=masks.device)
        inside = [mask.flatten().nonzero()[:, 0] for mask in masks]
        pixels = torch.stack(
            [
                inside[segment][int(place * len(inside[segment]))]
                for segment, place in zip(chosen.tolist(), places.tolist(), strict=True)
            ]
        )
        x, y = pixels % width + 0.5, pixels // width + 0.5
        segments = F.interpolate(masks[None].float(), size=tuple(size), mode="area")[0]
        return torch.stack((x / width, y / height), dim=-1), segments[chosen]


def _pixel_labels(target: Mapping[str, Tensor], size: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Labels (h, w) int64 of the pixels in the cells' centres, and their weights (h, w)."""
    masks, labels = target["masks"], target["labels"]
    rows, columns = (
        ((torch.arange(n, device=masks.device) + 0.5) * full / n).long()
        for n, full in zip(size, masks.shape[1:], strict=True)
    )
    masks = masks[:, rows][:, :, columns]  # (N, h, w)
    wanted = torch.full(tuple(size), _UNLABELLED, device=masks.device)
    weight = torch.zeros(tuple(size), device=masks.device)
    for mask, label in zip(masks, labels.tolist(), strict=True):
        if label != NO_CLASS:
            wanted[mask] = label
            weight[mask] = float(mask.sum().clamp(min=1)) ** -0.5
    return wanted, weight
