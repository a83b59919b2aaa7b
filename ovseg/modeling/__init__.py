"""Segmentation models: the contract and views of them. Each method is a module of its own."""

from __future__ import annotations

from ovseg.modeling.encoding import MaskEncoding, RegionFeatures
from ovseg.modeling.ensemble import EnsembleSettings
from ovseg.modeling.prediction import DensePrediction, MaskPrediction, Prediction, Proposal
from ovseg.modeling.segmentor import (
    BoundSegmentor,
    Encoding,
    ImageBatch,
    SegmentationModel,
    Segmentor,
    unpad,
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
    "MaskPrediction",
    "Prediction",
    "Proposal",
    "RegionFeatures",
    "SegmentationModel",
    "Segmentor",
    "SlidingWindow",
    "build_views",
    "unpad",
]
