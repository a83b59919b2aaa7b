"""Backbones; importing this package registers them."""

from __future__ import annotations

from ovseg.modeling.backbone.resnet import build_ovseg_resnet_deeplab_backbone
from ovseg.modeling.backbone.swin import D2SwinTransformer
from ovseg.modeling.backbone.timm_backbone import TimmBackbone

__all__ = ["D2SwinTransformer", "TimmBackbone", "build_ovseg_resnet_deeplab_backbone"]
