"""Segmentation models: the contract, OVSeg and MaskFormer, and views of them."""

from __future__ import annotations

from ovseg.modeling.encoding import MaskEncoding, RegionFeatures
from ovseg.modeling.ensemble import EnsembleSettings
from ovseg.modeling.mask_former import MaskFormer
from ovseg.modeling.ovseg import OVSeg, OVSegDEMO
from ovseg.modeling.prediction import DensePrediction, MaskPrediction, Prediction, Proposal
from ovseg.modeling.segmentor import (
    BoundSegmentor,
    Encoding,
    ImageBatch,
    SegmentationModel,
    Segmentor,
)
from ovseg.modeling.views import AugmentedSegmentor, DenseCRF, SlidingWindow, build_views

__all__ = [
    "AugmentedSegmentor",
    "BoundSegmentor",
    "DenseCRF",
    "DensePrediction",
    "Encoding",
    "EnsembleSettings",
    "ImageBatch",
    "MaskEncoding",
    "MaskFormer",
    "MaskPrediction",
    "OVSeg",
    "OVSegDEMO",
    "Prediction",
    "Proposal",
    "RegionFeatures",
    "SegmentationModel",
    "Segmentor",
    "SlidingWindow",
    "build_views",
]
