"""Registries of model parts, and building a model from a config."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from torch import nn

from ovseg.d2 import backend
from ovseg.d2.config import CfgNode
from ovseg.d2.layers import ShapeSpec

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


def build_model(cfg: CfgNode) -> nn.Module:
    """Build the model that `cfg.MODEL.META_ARCHITECTURE` names, on `cfg.MODEL.DEVICE`.

    Args:
        cfg: a full config, e.g. from `ovseg.config.load_cfg`.

    Returns:
        The model with fresh weights; `cfg.MODEL.WEIGHTS` is not read.

    Raises:
        KeyError: if no such architecture is registered.
    """
    _register_models()
    return _backend.build_model(cfg)


def build_backbone(cfg: CfgNode, input_shape: ShapeSpec | None = None) -> Backbone:
    """Build the backbone that `cfg.MODEL.BACKBONE.NAME` names.

    Args:
        cfg: a full config.
        input_shape: shape of the images; None takes the channels from `cfg.MODEL.PIXEL_MEAN`.

    Returns:
        A `Backbone`: a module that maps images (B, C, H, W) to a dict of feature maps.

    Raises:
        KeyError: if no such backbone is registered.
    """
    _register_models()
    return _backend.build_backbone(cfg, input_shape)


def build_sem_seg_head(cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> nn.Module:
    """Build the segmentation head that `cfg.MODEL.SEM_SEG_HEAD.NAME` names.

    Args:
        cfg: a full config.
        input_shape: shape of each feature map the backbone returns, by name.

    Returns:
        The head.

    Raises:
        KeyError: if no such head is registered.
    """
    _register_models()
    return _backend.build_sem_seg_head(cfg, input_shape)


def _register_models() -> None:
    # By name and at call time: the seam is the lowest layer and knows no model, yet a config
    # must be enough to build one.
    importlib.import_module("ovseg.modeling")
