"""Registries of model parts, and building a model from a config.

The functions here import what a config names before they look it up (see `ovseg.d2.methods`).
Detectron2's own `build_model(cfg)` knows registered classes only: a script of Detectron2's that
calls it imports the method's module first, or `ovseg.detectron2` for OVSeg and MaskFormer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from ovseg.d2 import backend
from ovseg.d2.config import CfgNode
from ovseg.d2.layers import ShapeSpec
from ovseg.d2.methods import import_method

if TYPE_CHECKING or backend() == "lite":
    from ovseg.d2._lite import modeling as _backend
    from ovseg.d2._lite.modeling import (
        BACKBONE_REGISTRY,
        META_ARCH_REGISTRY,
        SEM_SEG_HEADS_REGISTRY,
        Backbone,
        Registry,
    )
else:
    from detectron2 import modeling as _backend
    from detectron2.modeling import (
        BACKBONE_REGISTRY,
        META_ARCH_REGISTRY,
        SEM_SEG_HEADS_REGISTRY,
        Backbone,
    )
    from detectron2.utils.registry import Registry

__all__ = [
    "BACKBONE_REGISTRY",
    "META_ARCH_REGISTRY",
    "SEM_SEG_HEADS_REGISTRY",
    "Backbone",
    "Registry",
    "build_backbone",
    "build_model",
    "build_sem_seg_head",
]


# Detectron2's DeepLab project registers this name. Ours goes by another one, so that both can be
# imported, in any order, and our models have ours.
_OURS = {"build_resnet_deeplab_backbone": "build_ovseg_resnet_deeplab_backbone"}


def build_model(cfg: CfgNode) -> nn.Module:
    """Build the model that `cfg.MODEL.META_ARCHITECTURE` names, on `cfg.MODEL.DEVICE`.

    Imports the module of this one method, unless its class is registered already.

    Args:
        cfg: a full config, e.g. from `ovseg.config.load_cfg`.

    Returns:
        The model with fresh weights; `cfg.MODEL.WEIGHTS` is not read.

    Raises:
        KeyError: if no such method is known, or its module registers no class of this name.
    """
    _register(META_ARCH_REGISTRY, cfg.MODEL.META_ARCHITECTURE, cfg)
    return _backend.build_model(cfg)


def build_backbone(cfg: CfgNode, input_shape: ShapeSpec | None = None) -> Backbone:
    """Build the backbone that `cfg.MODEL.BACKBONE.NAME` names.

    Args:
        cfg: a full config.
        input_shape: shape of the images; None takes the channels from `cfg.MODEL.PIXEL_MEAN`.

    Returns:
        A `Backbone`: a module that maps images (B, C, H, W) to a dict of feature maps.

    Raises:
        KeyError: if neither a registered class nor the method's module has this name.
    """
    name = _OURS.get(cfg.MODEL.BACKBONE.NAME, cfg.MODEL.BACKBONE.NAME)
    _register(BACKBONE_REGISTRY, name, cfg)
    if name != cfg.MODEL.BACKBONE.NAME:
        cfg = cfg.clone()
        cfg.defrost()
        cfg.MODEL.BACKBONE.NAME = name
    return _backend.build_backbone(cfg, input_shape)


def build_sem_seg_head(cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> nn.Module:
    """Build the segmentation head that `cfg.MODEL.SEM_SEG_HEAD.NAME` names.

    Args:
        cfg: a full config.
        input_shape: shape of each feature map the backbone returns, by name.

    Returns:
        The head.

    Raises:
        KeyError: if neither a registered class nor the method's module has this name.
    """
    _register(SEM_SEG_HEADS_REGISTRY, cfg.MODEL.SEM_SEG_HEAD.NAME, cfg)
    return _backend.build_sem_seg_head(cfg, input_shape)


def _register(registry: Registry, name: str, cfg: CfgNode) -> None:
    """Import the config's method, which registers its parts, where `name` is not known yet."""
    if name not in registry:
        import_method(cfg.MODEL.META_ARCHITECTURE)
