"""Any convolutional or hierarchical network of timm as a backbone.

timm (Wightman, "PyTorch Image Models", 2019) keeps hundreds of them; MODEL.TIMM names one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import timm
import torch
from torch import Tensor

from ovseg.d2.config import CfgNode, configurable
from ovseg.d2.layers import ShapeSpec
from ovseg.d2.modeling import BACKBONE_REGISTRY, Backbone

# Stage names by stride, Detectron2's "res2" to "res5" and what lies before them.
STAGE_OF_STRIDE = {2: "res1", 4: "res2", 8: "res3", 16: "res4", 32: "res5"}


@BACKBONE_REGISTRY.register()
class TimmBackbone(Backbone):
    """Feature maps of a timm model.

    Args:
        name: of the model, as `timm.create_model` takes it.
        options: further arguments of the model, such as layers and channels.
        out_features: which of res1 (stride 2) to res5 (stride 32) to return.

    Raises:
        ValueError: timm has no such model, or the model has no such feature.
    """

    @configurable
    def __init__(
        self, *, name: str, options: Mapping[str, Any], out_features: Sequence[str]
    ) -> None:
        super().__init__()
        if not timm.is_model(name):
            close = ", ".join(timm.list_models(f"*{name.split('_')[0]}*")[:5]) or "resnet18"
            raise ValueError(f"MODEL.TIMM.NAME: timm has no model {name!r}; it has {close}, ...")
        with torch.device("meta"):
            every: Any = timm.create_model(name, features_only=True, **options)
        strides = every.feature_info.reduction()
        found = {STAGE_OF_STRIDE.get(stride): index for index, stride in enumerate(strides)}
        missing = [feature for feature in out_features if feature not in found]
        if missing:
            raise ValueError(
                f"MODEL.TIMM.OUT_FEATURES: {name} has {sorted(filter(None, found))}, not {missing}."
            )
        # Stages behind the last one are not built. Weights come from MODEL.WEIGHTS, not from timm.
        self._out_features = sorted(out_features, key=lambda feature: found[feature])
        indices = tuple(found[feature] for feature in self._out_features)
        self.net = timm.create_model(
            name, pretrained=False, features_only=True, out_indices=indices, **options
        )
        widths = every.feature_info.channels()
        self._out_feature_channels = {f: widths[found[f]] for f in self._out_features}
        self._out_feature_strides = {f: strides[found[f]] for f in self._out_features}

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict[str, Any]:
        """Reads MODEL.TIMM."""
        options = {key.lower(): value for key, value in cfg.MODEL.TIMM.OPTIONS.items()}
        return {
            "name": cfg.MODEL.TIMM.NAME,
            "options": options,
            "out_features": cfg.MODEL.TIMM.OUT_FEATURES,
        }

    @property
    def size_divisibility(self) -> int:
        """The coarsest stride."""
        return max(self._out_feature_strides.values())

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Computes the features.

        Args:
            images: (B, 3, H, W) normalised.

        Returns:
            Name to (B, C, H / stride, W / stride), finest first.
        """
        return dict(zip(self._out_features, self.net(images), strict=True))
