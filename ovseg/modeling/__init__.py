"""Segmentation models. Importing this package registers them."""

from __future__ import annotations

from ovseg.modeling.backbone.resnet import build_resnet_deeplab_backbone
from ovseg.modeling.backbone.swin import D2SwinTransformer
from ovseg.modeling.heads.mask_former_head import MaskFormerHead, OpenVocabMaskFormerHead
from ovseg.modeling.heads.pixel_decoder import BasePixelDecoder, TransformerEncoderPixelDecoder
from ovseg.modeling.mask_former import MaskFormer
from ovseg.modeling.ovseg import OVSeg, OVSegDEMO
from ovseg.modeling.prediction import DensePrediction, MaskPrediction, Prediction
from ovseg.modeling.segmentor import BoundSegmentor, ImageBatch, Segmentor
from ovseg.modeling.views.tiles import SlidingWindow
from ovseg.weights.ovseg import load_ovseg_weights

__all__ = [
    "BasePixelDecoder",
    "BoundSegmentor",
    "D2SwinTransformer",
    "DensePrediction",
    "ImageBatch",
    "MaskFormer",
    "MaskFormerHead",
    "MaskPrediction",
    "OVSeg",
    "OVSegDEMO",
    "OpenVocabMaskFormerHead",
    "Prediction",
    "Segmentor",
    "SlidingWindow",
    "TransformerEncoderPixelDecoder",
    "build_resnet_deeplab_backbone",
    "load_ovseg_weights",
]
