"""Pixel decoders: a feature pyramid to one stride-4 map of mask features.

Source: Cheng et al., "Per-Pixel Classification is Not All You Need for Semantic Segmentation"
(MaskFormer), NeurIPS 2021, section 4.1; the top-down pathway is that of Feature Pyramid Networks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch.nn.functional as F
from fvcore.nn import weight_init
from torch import Tensor, nn

from ovseg.d2.config import CfgNode, configurable
from ovseg.d2.layers import Conv2d, ShapeSpec, get_norm
from ovseg.d2.modeling import SEM_SEG_HEADS_REGISTRY
from ovseg.modeling.heads.position import PositionEmbeddingSine
from ovseg.modeling.heads.transformer import LayerSpec, TransformerEncoderOnly


def _conv(
    in_channels: int,
    out_channels: int,
    *,
    kernel: int,
    norm: str = "",
    activation: Callable[[Tensor], Tensor] | None = None,
) -> nn.Module:
    """A same-size convolution, Xavier-initialised, with a bias only where no norm follows."""
    conv = Conv2d(
        in_channels,
        out_channels,
        kernel_size=kernel,
        padding=kernel // 2,
        bias=norm == "",
        norm=get_norm(norm, out_channels),
        activation=activation,
    )
    weight_init.c2_xavier_fill(conv)
    return conv


@SEM_SEG_HEADS_REGISTRY.register()
class BasePixelDecoder(nn.Module):
    """Top-down pathway of 3x3 convolutions with lateral 1x1 convolutions.

    Args:
        input_shape: channels and stride of every input feature.
        conv_dim: width of the pathway.
        mask_dim: channels of the mask features.
        norm: normalisation of the convolutions, e.g. "GN"; "" for none.
    """

    @configurable
    def __init__(
        self,
        input_shape: Mapping[str, ShapeSpec],
        *,
        conv_dim: int,
        mask_dim: int,
        norm: str,
    ) -> None:
        super().__init__()
        by_stride = sorted(input_shape.items(), key=lambda item: item[1].stride or 0)
        self.in_features = [name for name, _ in by_stride]  # finest first
        channels = [shape.channels or 0 for _, shape in by_stride]
        for number, width in enumerate(channels[:-1], start=1):
            lateral = _conv(width, conv_dim, kernel=1, norm=norm)
            output = _conv(conv_dim, conv_dim, kernel=3, norm=norm, activation=F.relu)
            self.add_module(f"adapter_{number}", lateral)
            self.add_module(f"layer_{number}", output)
        coarsest = _conv(
            self._coarsest_width(channels[-1], conv_dim),
            conv_dim,
            kernel=3,
            norm=norm,
            activation=F.relu,
        )
        self.add_module(f"layer_{len(channels)}", coarsest)
        self.mask_features = _conv(conv_dim, mask_dim, kernel=3)

    @staticmethod
    def _coarsest_width(backbone: int, conv_dim: int) -> int:
        """Input width of the coarsest layer; subclasses that encode it first override this."""
        return backbone

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: Mapping[str, ShapeSpec]) -> dict[str, Any]:
        """Reads MODEL.SEM_SEG_HEAD."""
        head = cfg.MODEL.SEM_SEG_HEAD
        return {
            "input_shape": {name: input_shape[name] for name in head.IN_FEATURES},
            "conv_dim": head.CONVS_DIM,
            "mask_dim": head.MASK_DIM,
            "norm": head.NORM,
        }

    def encode(self, coarsest: Tensor) -> Tensor | None:
        """Encodes the coarsest feature; None where the decoder has no encoder."""
        return None

    def forward_pyramid(self, features: Mapping[str, Tensor]) -> tuple[list[Tensor], Tensor | None]:
        """Fuses the pyramid from its coarsest level down.

        Args:
            features: name to (B, C, h, w).

        Returns:
            Per level, finest first, the fused map (B, conv_dim, h, w), and, from a decoder with an
            encoder, its output (B, conv_dim, H / 32, W / 32).
        """
        names = self.in_features
        encoded = self.encode(features[names[-1]])
        coarsest = features[names[-1]] if encoded is None else encoded
        levels = [getattr(self, f"layer_{len(names)}")(coarsest)]
        for number in range(len(names) - 1, 0, -1):
            lateral = getattr(self, f"adapter_{number}")(features[names[number - 1]])
            upsampled = F.interpolate(levels[0], size=lateral.shape[-2:], mode="nearest")
            levels.insert(0, getattr(self, f"layer_{number}")(lateral + upsampled))
        return levels, encoded

    def forward_features(self, features: Mapping[str, Tensor]) -> tuple[Tensor, Tensor | None]:
        """Fuses the pyramid into mask features.

        Args:
            features: name to (B, C, h, w).

        Returns:
            (B, mask_dim, h, w) mask features at the finest level's size (in the released models H /
            4, W / 4), and the second result of `forward_pyramid`.
        """
        levels, encoded = self.forward_pyramid(features)
        return self.mask_features(levels[0]), encoded


@SEM_SEG_HEADS_REGISTRY.register()
class TransformerEncoderPixelDecoder(BasePixelDecoder):
    """`BasePixelDecoder` whose coarsest feature first passes a transformer encoder.

    Args:
        input_shape: channels and stride of every input feature.
        conv_dim: width of the pathway and of the encoder.
        mask_dim: channels of the mask features.
        norm: normalisation of the convolutions.
        encoder: encodes the coarsest feature at width `conv_dim`.
    """

    @configurable
    def __init__(
        self,
        input_shape: Mapping[str, ShapeSpec],
        *,
        conv_dim: int,
        mask_dim: int,
        norm: str,
        encoder: TransformerEncoderOnly,
    ) -> None:
        super().__init__(input_shape, conv_dim=conv_dim, mask_dim=mask_dim, norm=norm)
        coarsest = input_shape[self.in_features[-1]].channels or 0
        self.input_proj = _conv(coarsest, conv_dim, kernel=1)
        self.pe_layer = PositionEmbeddingSine(features=conv_dim // 2)
        self.transformer = encoder

    @staticmethod
    def _coarsest_width(backbone: int, conv_dim: int) -> int:
        return conv_dim

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: Mapping[str, ShapeSpec]) -> dict[str, Any]:
        """Reads MODEL.SEM_SEG_HEAD and MODEL.MASK_FORMER."""
        former = cfg.MODEL.MASK_FORMER
        spec = LayerSpec(
            dim=cfg.MODEL.SEM_SEG_HEAD.CONVS_DIM,
            heads=former.NHEADS,
            feedforward=former.DIM_FEEDFORWARD,
            dropout=former.DROPOUT,
            pre_norm=former.PRE_NORM,
        )
        layers = cfg.MODEL.SEM_SEG_HEAD.TRANSFORMER_ENC_LAYERS
        return super().from_config(cfg, input_shape) | {
            "encoder": TransformerEncoderOnly(layers, spec)
        }

    def encode(self, coarsest: Tensor) -> Tensor:
        """Encodes (B, C, h, w) to (B, conv_dim, h, w)."""
        x = self.input_proj(coarsest)
        return self.transformer(x, self.pe_layer(x))


def build_pixel_decoder(cfg: CfgNode, input_shape: Mapping[str, ShapeSpec]) -> BasePixelDecoder:
    """Builds the decoder that MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME names.

    Args:
        cfg: full configuration.
        input_shape: shapes of the backbone's features.

    Returns:
        A module with `forward_features`.
    """
    name = cfg.MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME
    decoder = SEM_SEG_HEADS_REGISTRY.get(name)(cfg, input_shape)
    if not callable(getattr(decoder, "forward_features", None)):
        raise ValueError(
            f"MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME: expected a class with forward_features, got "
            f"{name!r}; choose BasePixelDecoder or TransformerEncoderPixelDecoder."
        )
    return decoder
