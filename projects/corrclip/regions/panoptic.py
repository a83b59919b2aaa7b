"""Regions by a panoptic model of transformers: Mask2Former or EoMT.

Source: Cheng et al., "Masked-attention Mask Transformer for Universal Image Segmentation" (CVPR
2022); Kerssies et al., "Your ViT is Secretly an Image Segmentation Model" (CVPR 2025).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from ovseg.d2.config import CfgNode
from ovseg.projects.corrclip.regions.hub import load_from_hub, model_name
from ovseg.projects.corrclip.regions.source import REGION_SOURCE_REGISTRY

__all__ = ["PanopticRegions"]


class PanopticRegions:
    """The segments of a panoptic model, whatever it calls them.

    Args:
        model: a `Mask2FormerForUniversalSegmentation` or `EomtForUniversalSegmentation` of
            transformers, in eval mode.
        processor: its image processor.
        name: which model it is.
        threshold: a query counts from this probability of its class on.
        mask_threshold: a pixel belongs to a mask from this probability on.
        overlap: a mask of which no more than this share is left beside better ones is dropped.
        options: further arguments of the processor's panoptic post-processing.
    """

    needs_pixels = True

    def __init__(
        self,
        *,
        model: nn.Module,
        processor: Any,
        name: str,
        threshold: float = 0.5,
        mask_threshold: float = 0.5,
        overlap: float = 0.8,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.options = dict(options or {})
        self.model, self.processor = model, processor
        self.threshold, self.mask_threshold, self.overlap = threshold, mask_threshold, overlap
        self.name = f"{name} threshold {threshold:g}, mask {mask_threshold:g}, overlap {overlap:g}"

    @torch.no_grad()
    def __call__(self, image: np.ndarray, image_id: str) -> np.ndarray:
        """Cut a picture; see `RegionSource`."""
        weight = next(self.model.parameters())
        inputs = self.processor(images=[image], return_tensors="pt")
        found = self.model(pixel_values=inputs["pixel_values"].to(weight))
        # Sigmoids and their resizing are not there in half precision on every device.
        found.masks_queries_logits = found.masks_queries_logits.float()
        found.class_queries_logits = found.class_queries_logits.float()
        segments = self.processor.post_process_panoptic_segmentation(
            found,
            threshold=self.threshold,
            mask_threshold=self.mask_threshold,
            overlap_mask_area_threshold=self.overlap,
            target_sizes=[image.shape[:2]],
            **self.options,
        )[0]
        ids = segments["segmentation"].cpu().numpy().astype(np.int32)
        # Mask2Former counts its segments from 1 and leaves 0, EoMT counts from 0 and leaves -1;
        # where there is no segment at all both leave -1.
        first = min((one["id"] for one in segments["segments_info"]), default=1)
        return np.maximum(ids + 1 - first, 0)


@REGION_SOURCE_REGISTRY.register()
def mask2former(cfg: CfgNode) -> PanopticRegions:
    """Mask2Former, by REGIONS.MASK2FORMER."""
    node = cfg.MODEL.CORRCLIP.REGIONS.MASK2FORMER
    model, processor = load_from_hub(cfg, "Mask2FormerForUniversalSegmentation", node.WEIGHTS)
    return PanopticRegions(
        model=model,
        processor=processor,
        name=model_name("mask2former", node.WEIGHTS, model),
        threshold=node.THRESHOLD,
        mask_threshold=node.MASK_THRESHOLD,
        overlap=node.OVERLAP,
        options={"label_ids_to_fuse": set()},  # its default, without the warning
    )


@REGION_SOURCE_REGISTRY.register()
def eomt(cfg: CfgNode) -> PanopticRegions:
    """EoMT, by REGIONS.EOMT."""
    node = cfg.MODEL.CORRCLIP.REGIONS.EOMT
    model, processor = load_from_hub(cfg, "EomtForUniversalSegmentation", node.WEIGHTS)
    return PanopticRegions(
        model=model,
        processor=processor,
        name=model_name("eomt", node.WEIGHTS, model),
        threshold=node.THRESHOLD,
        mask_threshold=node.MASK_THRESHOLD,
        overlap=node.OVERLAP,
    )
