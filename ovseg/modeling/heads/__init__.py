"""Pixel decoders, predictors and the heads that join them; importing this registers the heads."""

from __future__ import annotations

from typing import cast

from ovseg.d2.config import CfgNode
from ovseg.d2.layers import ShapeSpec
from ovseg.d2.modeling import build_sem_seg_head
from ovseg.modeling.heads.mask_former_head import MaskFormerHead, OpenVocabMaskFormerHead
from ovseg.modeling.heads.pixel_decoder import BasePixelDecoder, TransformerEncoderPixelDecoder
from ovseg.modeling.heads.point_head import PointQueryHead, is_closed

__all__ = [
    "BasePixelDecoder",
    "MaskFormerHead",
    "MaskHead",
    "OpenVocabMaskFormerHead",
    "PointQueryHead",
    "TransformerEncoderPixelDecoder",
    "build_mask_head",
    "is_closed",
]

QUERIES = ("learned", "points")
MaskHead = MaskFormerHead | PointQueryHead


def build_mask_head(cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> MaskHead:
    """Builds the head with the queries that MODEL.MASK_FORMER.QUERIES names.

    Args:
        cfg: full configuration.
        input_shape: shapes of the backbone's features.

    Returns:
        The head of MODEL.SEM_SEG_HEAD.NAME for learned queries, else a `PointQueryHead`.

    Raises:
        ValueError: there are no such queries.
    """
    queries = cfg.MODEL.MASK_FORMER.QUERIES
    if queries not in QUERIES:
        raise ValueError(f"MODEL.MASK_FORMER.QUERIES: expected one of {QUERIES}, got {queries!r}.")
    if queries == "points":
        return PointQueryHead(cfg, input_shape)
    return cast(MaskHead, build_sem_seg_head(cfg, input_shape))
