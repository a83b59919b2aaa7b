"""Transformer predictors: a feature map and mask features to per-query classes and masks.

Source: MaskFormer (Cheng et al., NeurIPS 2021), section 3.3; the class embedding in CLIP's space is
that of OVSeg (Liang et al., CVPR 2023), section 3.1.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
import torch.nn.functional as F
from fvcore.nn import weight_init
from torch import Tensor, nn

from ovseg.d2.config import CfgNode, configurable
from ovseg.d2.layers import Conv2d
from ovseg.modeling.heads.position import PositionEmbeddingSine
from ovseg.modeling.heads.transformer import LayerSpec, Transformer


class MLP(nn.Module):
    """Linear layers with a ReLU between them.

    Args:
        in_dim: input width.
        hidden_dim: width of the inner layers.
        out_dim: output width.
        layers: number of linear layers.
    """

    def __init__(self, *, in_dim: int, hidden_dim: int, out_dim: int, layers: int) -> None:
        super().__init__()
        widths = [in_dim, *[hidden_dim] * (layers - 1), out_dim]
        self.layers = nn.ModuleList(
            nn.Linear(before, after) for before, after in itertools.pairwise(widths)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Maps (..., in_dim) to (..., out_dim)."""
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)


class MaskPredictor(nn.Module):
    """Queries decoded from a map; each yields a class output and a mask.

    Subclasses choose what the class output is by the `class_embed` they pass.

    Args:
        in_channels: channels of the map that the decoder attends to.
        class_embed: maps (..., hidden_dim) to the class output.
        hidden_dim: token width.
        mask_dim: channels of the mask features.
        num_queries: number of masks per image.
        deep_supervision: whether training also returns the outputs of the inner layers.
        enforce_input_proj: project the map even where its width is `hidden_dim` already.
        transformer: decodes the queries.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        class_embed: nn.Module,
        hidden_dim: int,
        mask_dim: int,
        num_queries: int,
        deep_supervision: bool,
        enforce_input_proj: bool,
        transformer: Transformer,
    ) -> None:
        super().__init__()
        self.deep_supervision = deep_supervision
        self.pe_layer = PositionEmbeddingSine(features=hidden_dim // 2)
        self.transformer = transformer
        self.query_embed = nn.Embedding(num_queries, hidden_dim)
        self.input_proj: nn.Module = nn.Identity()
        if in_channels != hidden_dim or enforce_input_proj:
            self.input_proj = Conv2d(in_channels, hidden_dim, kernel_size=1)
            weight_init.c2_xavier_fill(self.input_proj)
        self.mask_embed = MLP(in_dim=hidden_dim, hidden_dim=hidden_dim, out_dim=mask_dim, layers=3)
        self.class_embed = class_embed

    @staticmethod
    def parts(cfg: CfgNode, in_channels: int) -> dict[str, Any]:
        """Reads what all predictors share from MODEL.MASK_FORMER and MODEL.SEM_SEG_HEAD."""
        former = cfg.MODEL.MASK_FORMER
        return {
            "in_channels": in_channels,
            "hidden_dim": former.HIDDEN_DIM,
            "mask_dim": cfg.MODEL.SEM_SEG_HEAD.MASK_DIM,
            "num_queries": former.NUM_OBJECT_QUERIES,
            "deep_supervision": former.DEEP_SUPERVISION,
            "enforce_input_proj": former.ENFORCE_INPUT_PROJ,
            "transformer": Transformer(
                LayerSpec(
                    dim=former.HIDDEN_DIM,
                    heads=former.NHEADS,
                    feedforward=former.DIM_FEEDFORWARD,
                    dropout=former.DROPOUT,
                    pre_norm=former.PRE_NORM,
                ),
                encoder_layers=former.ENC_LAYERS,
                decoder_layers=former.DEC_LAYERS,
            ),
        }

    def forward(self, x: Tensor, mask_features: Tensor) -> dict[str, Any]:
        """Predicts a class output and a mask per query.

        Args:
            x: (B, C, h, w) map the queries attend to.
            mask_features: (B, mask_dim, H / 4, W / 4).

        Returns:
            pred_logits (B, Q, D), pred_masks (B, Q, H / 4, W / 4) logits and, in training with
            deep supervision, aux_outputs: the same two of every inner layer.
        """
        every_layer = self.training and self.deep_supervision
        states = self.transformer(
            self.input_proj(x),
            self.pe_layer(x).to(x.dtype),
            self.query_embed.weight,
            all_layers=every_layer,
        )  # (L, B, Q, C)
        classes = self.class_embed(states)  # (L, B, Q, D)
        masks = torch.einsum("lbqc,bchw->lbqhw", self.mask_embed(states), mask_features)
        outputs: dict[str, Any] = {"pred_logits": classes[-1], "pred_masks": masks[-1]}
        if every_layer:
            outputs["aux_outputs"] = [
                {"pred_logits": layer_classes, "pred_masks": layer_masks}
                for layer_classes, layer_masks in zip(classes[:-1], masks[:-1], strict=True)
            ]
        return outputs


class TransformerPredictor(MaskPredictor):
    """Predictor of a closed vocabulary: one logit per class and one for no object.

    Args:
        num_classes: number of classes.
        parts: arguments of `MaskPredictor`.
    """

    @configurable
    def __init__(self, *, num_classes: int, **parts: Any) -> None:
        super().__init__(class_embed=nn.Linear(parts["hidden_dim"], num_classes + 1), **parts)

    @classmethod
    def from_config(cls, cfg: CfgNode, in_channels: int) -> dict[str, Any]:
        """Reads MODEL.MASK_FORMER and MODEL.SEM_SEG_HEAD."""
        return {
            "num_classes": cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES,
            **cls.parts(cfg, in_channels),
        }


class OpenVocabTransformerPredictor(MaskPredictor):
    """Predictor of embeddings that are compared with text features.

    Args:
        embedding_dim: width of the text features.
        embed_hidden_dim: width of the class MLP's inner layers.
        embed_layers: number of linear layers of the class MLP.
        parts: arguments of `MaskPredictor`.
    """

    @configurable
    def __init__(
        self, *, embedding_dim: int, embed_hidden_dim: int, embed_layers: int, **parts: Any
    ) -> None:
        class_embed = MLP(
            in_dim=parts["hidden_dim"],
            hidden_dim=embed_hidden_dim,
            out_dim=embedding_dim,
            layers=embed_layers,
        )
        super().__init__(class_embed=class_embed, **parts)

    @classmethod
    def from_config(cls, cfg: CfgNode, in_channels: int) -> dict[str, Any]:
        """Reads MODEL.MASK_FORMER and MODEL.SEM_SEG_HEAD."""
        head = cfg.MODEL.SEM_SEG_HEAD
        return {
            "embedding_dim": head.EMBEDDING_DIM,
            "embed_hidden_dim": head.EMBED_HIDDEN_DIM,
            "embed_layers": head.EMBED_LAYERS,
            **cls.parts(cfg, in_channels),
        }
