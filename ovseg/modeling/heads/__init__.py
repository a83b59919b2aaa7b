"""Pixel decoders, predictors and the heads that join them; importing this registers the heads."""

from __future__ import annotations

from ovseg.modeling.heads.mask_former_head import MaskFormerHead, OpenVocabMaskFormerHead
from ovseg.modeling.heads.pixel_decoder import BasePixelDecoder, TransformerEncoderPixelDecoder

__all__ = [
    "BasePixelDecoder",
    "MaskFormerHead",
    "OpenVocabMaskFormerHead",
    "TransformerEncoderPixelDecoder",
]
