"""Heads that join a pixel decoder and a transformer predictor.

Source: MaskFormer (Cheng et al., NeurIPS 2021), figure 2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from ovseg.d2.config import CfgNode, configurable
from ovseg.d2.layers import ShapeSpec
from ovseg.d2.modeling import SEM_SEG_HEADS_REGISTRY
from ovseg.modeling.heads.pixel_decoder import BasePixelDecoder, build_pixel_decoder
from ovseg.modeling.heads.predictor import (
    MaskPredictor,
    OpenVocabTransformerPredictor,
    TransformerPredictor,
)


@SEM_SEG_HEADS_REGISTRY.register()
class MaskFormerHead(nn.Module):
    """Backbone features to per-query classes and masks.

    Args:
        pixel_decoder: makes the mask features.
        predictor: makes classes and masks.
        transformer_in_feature: what the queries attend to: "transformer_encoder" (the output of
            the pixel decoder's encoder), "pixel_embedding" (the mask features) or the name of a
            backbone feature.
    """

    predictor_class: Callable[..., MaskPredictor] = TransformerPredictor
    learns_no_object: ClassVar[bool] = True

    @configurable
    def __init__(
        self,
        *,
        pixel_decoder: BasePixelDecoder,
        predictor: MaskPredictor,
        transformer_in_feature: str,
    ) -> None:
        super().__init__()
        self.pixel_decoder = pixel_decoder
        self.predictor = predictor
        self.transformer_in_feature = transformer_in_feature

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: Mapping[str, ShapeSpec]) -> dict[str, Any]:
        """Reads MODEL.SEM_SEG_HEAD and MODEL.MASK_FORMER."""
        head = cfg.MODEL.SEM_SEG_HEAD
        feature = cfg.MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE
        channels = {"transformer_encoder": head.CONVS_DIM, "pixel_embedding": head.MASK_DIM}
        channels |= {name: shape.channels or 0 for name, shape in input_shape.items()}
        if feature not in channels:
            raise ValueError(
                f"MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE: expected one of {list(channels)}, "
                f"got {feature!r}."
            )
        return {
            "pixel_decoder": build_pixel_decoder(cfg, input_shape),
            "predictor": cls.predictor_class(cfg, channels[feature]),
            "transformer_in_feature": feature,
        }

    @property
    def num_queries(self) -> int:
        """Masks per picture."""
        return self.predictor.query_embed.num_embeddings

    def proposals(
        self, outputs: Mapping[str, Any], index: int, covered: tuple[float, float]
    ) -> tuple[Tensor, Tensor, None]:
        """Takes the masks of one picture out of a batch's.

        Args:
            outputs: of `forward`.
            index: of the picture.
            covered: shares of the padded height and width that the picture covers.

        Returns:
            pred_masks (Q, h, w) logits, pred_logits (Q, D), and None: their quality is what "no
            object" leaves of their class scores.
        """
        return outputs["pred_masks"][index], outputs["pred_logits"][index], None

    def forward(self, features: Mapping[str, Tensor]) -> dict[str, Any]:
        """Predicts from backbone features.

        Args:
            features: name to (B, C, h, w).

        Returns:
            See `MaskPredictor.forward`.
        """
        mask_features, encoded = self.pixel_decoder.forward_features(features)
        if self.transformer_in_feature == "transformer_encoder":
            if encoded is None:
                raise ValueError(
                    "MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE is 'transformer_encoder', but the "
                    "pixel decoder has no encoder; set MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME to "
                    "TransformerEncoderPixelDecoder or choose a backbone feature such as 'res5'."
                )
            return self.predictor(encoded, mask_features)
        if self.transformer_in_feature == "pixel_embedding":
            return self.predictor(mask_features, mask_features)
        return self.predictor(features[self.transformer_in_feature], mask_features)


@SEM_SEG_HEADS_REGISTRY.register()
class OpenVocabMaskFormerHead(MaskFormerHead):
    """`MaskFormerHead` that predicts text-space embeddings instead of class logits."""

    predictor_class = OpenVocabTransformerPredictor
