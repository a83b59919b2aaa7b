"""Regions by SAM 2: every point of a grid asks for a mask, good ones stay, large ones lie on top.

Source: Ravi et al., "SAM 2: Segment Anything in Images and Videos" (2024), with the automatic mask
generator's rules; CorrCLIP's settings (arXiv 2411.10086). The model is that of transformers. Its
mask-generation pipeline is not used: it always takes three masks a point, and it places the points
as if the picture were scaled by its longer side, while SAM 2's processor squeezes it into a square,
so that a part of every picture that is not square would get no points.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import masks_to_boxes, nms

from ovseg.d2.config import CfgNode
from ovseg.projects.corrclip.regions.hub import load_from_hub, model_name
from ovseg.projects.corrclip.regions.source import REGION_SOURCE_REGISTRY
from ovseg.utils.masks import paint_by_area

__all__ = ["Sam2Regions"]


class Sam2Regions:
    """Regions by a SAM 2.

    Args:
        model: a `Sam2Model` of transformers, in eval mode.
        processor: its `Sam2ImageProcessor`.
        name: which model it is.
        points_per_side: points of the grid in either direction.
        points_per_batch: points that go through the decoder together.
        pred_iou: masks whose quality the model puts at this or below are dropped.
        stability: so are those whose area changes too much with the threshold: masks cut
            `stability_offset` above and below it overlap by this or less.
        stability_offset: in logits.
        mask_threshold: a pixel belongs to a mask above this logit.
        nms: of masks whose boxes overlap by more than this the best stays.
        multimask: take the three masks of each point instead of one.
        dynamic_multimask: with one mask a point, take the best of the three where it is unstable.
    """

    needs_pixels = True

    def __init__(
        self,
        *,
        model: Any,
        processor: Any,
        name: str,
        points_per_side: int = 8,
        points_per_batch: int = 64,
        pred_iou: float = 0.4,
        stability: float = 0.4,
        stability_offset: float = 1.0,
        mask_threshold: float = 0.0,
        nms: float = 0.7,
        multimask: bool = False,
        dynamic_multimask: bool = False,
    ) -> None:
        if points_per_side < 1 or points_per_batch < 1:
            raise ValueError(
                "MODEL.CORRCLIP.REGIONS.SAM2: expected at least 1 point per side and per batch, "
                f"got {points_per_side} and {points_per_batch}"
            )
        self.model, self.processor = model, processor
        self.model.mask_decoder.dynamic_multimask_via_stability = dynamic_multimask
        self.points_per_side, self.points_per_batch = points_per_side, points_per_batch
        self.pred_iou, self.stability = pred_iou, stability
        self.stability_offset, self.mask_threshold = stability_offset, mask_threshold
        self.nms, self.multimask = nms, multimask
        self.name = (
            f"{name} {points_per_side}x{points_per_side} points, iou {pred_iou:g}, stability "
            f"{stability:g} (offset {stability_offset:g}, cut {mask_threshold:g}), nms {nms:g}"
            + (", 3 masks a point" if multimask else "")
            + (", dynamic" if dynamic_multimask else "")
        )

    def __call__(self, image: np.ndarray, image_id: str) -> np.ndarray:
        """Cut a picture; see `RegionSource`."""
        return paint_by_area(self.masks(image))

    @torch.no_grad()
    def masks(self, image: np.ndarray) -> np.ndarray:
        """Find the masks before they are painted into one map.

        Args:
            image: (H, W, 3) uint8 RGB.

        Returns:
            (Q, H, W) bool, the best first.
        """
        weight = next(self.model.parameters())
        pixels = self.processor(images=[image], return_tensors="pt")["pixel_values"].to(weight)
        embeddings = self.model.get_image_embeddings(pixels)
        side, (height, width) = self.points_per_side, pixels.shape[-2:]
        along = (torch.arange(side, device=weight.device) + 0.5) / side
        y, x = torch.meshgrid(along, along, indexing="ij")
        points = torch.stack([x.flatten() * width, y.flatten() * height], dim=1)  # (P, 2)
        found = [
            self._good_masks(embeddings, some.to(weight.dtype), image.shape[:2])
            for some in points.split(self.points_per_batch)
        ]
        masks, scores = (torch.cat(parts) for parts in zip(*found, strict=True))
        if len(masks):
            kept = nms(masks_to_boxes(masks), scores, self.nms)
            masks = masks[kept]
        return masks.cpu().numpy()

    def _good_masks(
        self, embeddings: list[Tensor], points: Tensor, size: tuple[int, ...]
    ) -> tuple[Tensor, Tensor]:
        """The masks (Q, H, W) bool of some points that pass the limits, and their scores (Q,)."""
        found = self.model(
            image_embeddings=list(embeddings),
            input_points=points[None, :, None],  # (1, P, 1, 2)
            input_labels=torch.ones(1, len(points), 1, dtype=torch.int32, device=points.device),
            multimask_output=self.multimask,
        )
        scores = found.iou_scores[0].flatten().float()  # (P * M,)
        logits = found.pred_masks[0].flatten(0, 1).float()  # (P * M, h, w)
        good = scores > self.pred_iou
        logits, scores = logits[good], scores[good]
        if not len(logits):
            return logits.new_zeros((0, *size), dtype=torch.bool), scores
        logits = F.interpolate(logits[None], size=size, mode="bilinear", align_corners=False)[0]
        masks = logits > self.mask_threshold
        inner = (logits > self.mask_threshold + self.stability_offset).sum((1, 2))
        outer = (logits > self.mask_threshold - self.stability_offset).sum((1, 2))
        stable = (inner / outer.clamp(min=1) > self.stability) & masks.any(2).any(1)
        return masks[stable], scores[stable]


@REGION_SOURCE_REGISTRY.register()
def sam2(cfg: CfgNode) -> Sam2Regions:
    """SAM 2, by REGIONS.SAM2."""
    node = cfg.MODEL.CORRCLIP.REGIONS.SAM2
    model, processor = load_from_hub(cfg, "Sam2Model", node.WEIGHTS)
    return Sam2Regions(
        model=model,
        processor=processor,
        name=model_name("sam2", node.WEIGHTS, model),
        points_per_side=node.POINTS_PER_SIDE,
        points_per_batch=node.POINTS_PER_BATCH,
        pred_iou=node.PRED_IOU,
        stability=node.STABILITY,
        stability_offset=node.STABILITY_OFFSET,
        mask_threshold=node.MASK_THRESHOLD,
        nms=node.NMS,
        multimask=node.MULTIMASK,
        dynamic_multimask=node.DYNAMIC_MULTIMASK,
    )
