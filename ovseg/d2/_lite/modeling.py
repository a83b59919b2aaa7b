"""Registries for model parts and the functions that build from them."""

from __future__ import annotations

from abc import ABCMeta, abstractmethod
from typing import Any

import torch
from fvcore.common.registry import Registry
from torch import nn

from ovseg.d2._lite.config import CfgNode
from ovseg.d2._lite.layers import ShapeSpec

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

META_ARCH_REGISTRY = Registry("META_ARCH")
BACKBONE_REGISTRY = Registry("BACKBONE")
SEM_SEG_HEADS_REGISTRY = Registry("SEM_SEG_HEADS")


class Backbone(nn.Module, metaclass=ABCMeta):
    """Base class of networks that turn images into named feature maps.

    A subclass sets `_out_features`, `_out_feature_channels` and `_out_feature_strides`, or
    overrides `output_shape`.
    """

    _out_features: list[str]
    _out_feature_channels: dict[str, int]
    _out_feature_strides: dict[str, int]

    @abstractmethod
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return a dict from feature name, e.g. "res2", to a tensor (B, C, h, w)."""

    @property
    def size_divisibility(self) -> int:
        """What height and width of the input must be multiples of; 0 for no such need."""
        return 0

    @property
    def padding_constraints(self) -> dict[str, int]:
        """Padding needs as a dict with the optional keys size_divisibility and square_size."""
        return {}

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Return channels and stride of every feature map by name."""
        return {
            name: ShapeSpec(
                channels=self._out_feature_channels[name],
                stride=self._out_feature_strides[name],
            )
            for name in self._out_features
        }


def build_model(cfg: CfgNode) -> nn.Module:
    """Build `cfg.MODEL.META_ARCHITECTURE` and move it to `cfg.MODEL.DEVICE`."""
    model: nn.Module = META_ARCH_REGISTRY.get(cfg.MODEL.META_ARCHITECTURE)(cfg)
    model.to(torch.device(cfg.MODEL.DEVICE))
    return model


def build_backbone(cfg: CfgNode, input_shape: ShapeSpec | None = None) -> Backbone:
    """Build `cfg.MODEL.BACKBONE.NAME` for images of `input_shape`."""
    if input_shape is None:
        input_shape = ShapeSpec(channels=len(cfg.MODEL.PIXEL_MEAN))
    backbone = BACKBONE_REGISTRY.get(cfg.MODEL.BACKBONE.NAME)(cfg, input_shape)
    if not isinstance(backbone, Backbone):
        raise TypeError(
            f"backbone {cfg.MODEL.BACKBONE.NAME} must build a Backbone, "
            f"got {type(backbone).__name__}"
        )
    return backbone


def build_sem_seg_head(cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> nn.Module:
    """Build `cfg.MODEL.SEM_SEG_HEAD.NAME` on top of features of `input_shape`."""
    head: nn.Module = SEM_SEG_HEADS_REGISTRY.get(cfg.MODEL.SEM_SEG_HEAD.NAME)(cfg, input_shape)
    return head
