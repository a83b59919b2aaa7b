"""Regions by a MaskFormer of this package, such as the bundled one.

Source: Cheng et al., "Per-Pixel Classification is Not All You Need for Semantic Segmentation"
(NeurIPS 2021); the proposals are those of OVSeg's first stage.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch

from ovseg.config import load_cfg
from ovseg.d2.config import CfgNode
from ovseg.d2.modeling import build_model
from ovseg.modeling.mask_former import MaskFormer
from ovseg.modeling.proposer import MaskFormerProposer
from ovseg.projects.corrclip.regions.hub import PRECISIONS
from ovseg.projects.corrclip.regions.source import REGION_SOURCE_REGISTRY
from ovseg.proposals import RegionProposer
from ovseg.utils.masks import paint_by_area
from ovseg.utils.resizing import resize_shortest_edge
from ovseg.weights import catalogue
from ovseg.weights.record import load_named

__all__ = ["PaintedProposals"]

ON_TOP = ("larger", "smaller")


class PaintedProposals:
    """Paints the masks of a proposer into one map.

    Args:
        proposer: gives masks that may overlap.
        on_top: "larger", as CorrCLIP paints SAM's masks, or "smaller", where large masks should
            not hide what lies on them.

    Raises:
        ValueError: another `on_top`.
    """

    needs_pixels = True

    def __init__(self, proposer: RegionProposer, *, on_top: str = "larger") -> None:
        if on_top not in ON_TOP:
            raise ValueError(
                f"MODEL.CORRCLIP.REGIONS.MASKFORMER.ON_TOP: expected one of {ON_TOP}, got "
                f"{on_top!r}"
            )
        self.proposer, self.on_top = proposer, on_top
        self.name = f"{proposer.name}, {on_top} on top"

    def __call__(self, image: np.ndarray, image_id: str) -> np.ndarray:
        """Cut a picture; see `RegionSource`."""
        masks = self.proposer(image, image_id)
        return paint_by_area(masks, larger_on_top=self.on_top == "larger")


@REGION_SOURCE_REGISTRY.register()
def maskformer(cfg: CfgNode) -> PaintedProposals:
    """A MaskFormer of this package, by REGIONS.MASKFORMER."""
    node = cfg.MODEL.CORRCLIP.REGIONS
    wanted = node.MASKFORMER.WEIGHTS
    entry = catalogue.entries().get(wanted)
    config = node.MASKFORMER.CONFIG or (entry.config if entry is not None else "")
    if not config:
        raise ValueError(
            "MODEL.CORRCLIP.REGIONS.MASKFORMER.CONFIG: expected the config that belongs to the "
            f"weights {wanted!r}, got ''"
        )
    own = load_cfg(config, ["MODEL.DEVICE", cfg.MODEL.DEVICE])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # random weights, too, are the same in every process
        model = build_model(own)
    if not isinstance(model, MaskFormer):
        raise ValueError(
            f"MODEL.CORRCLIP.REGIONS.MASKFORMER.CONFIG: expected a MaskFormer or an OVSeg, got "
            f"{own.MODEL.META_ARCHITECTURE}"
        )
    loaded = load_named(model, wanted)
    short, longest = own.INPUT.MIN_SIZE_TEST, own.INPUT.MAX_SIZE_TEST
    threshold, duplicates = own.MODEL.CLIP_ADAPTER.MASK_THR, node.MASKFORMER.DUPLICATE_IOU
    proposer = MaskFormerProposer(
        model=model,
        name=f"maskformer:{loaded['name']}@{loaded['sha256'][:8]} above {threshold:g}, duplicates "
        f"from {duplicates:g}",
        resize=partial(resize_shortest_edge, short=short, max_size=longest),
        threshold=threshold,
        duplicate_iou=duplicates,
        dtype=None if node.PRECISION == "float32" else PRECISIONS[node.PRECISION],
    )
    return PaintedProposals(proposer, on_top=node.MASKFORMER.ON_TOP)
