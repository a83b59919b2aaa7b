"""Backbones; importing this package registers them."""

from __future__ import annotations

from ovseg.modeling.backbone.resnet import build_resnet_deeplab_backbone
from ovseg.modeling.backbone.swin import D2SwinTransformer

__all__ = ["D2SwinTransformer", "build_resnet_deeplab_backbone"]
