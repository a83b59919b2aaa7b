"""A head whose queries are made from the features of pixels: ask at a point, get its segment.

Learned queries that are matched to segments take long to settle, and on classes that training never
shows they hardly settle at all. Here nothing is matched: the query of a point is asked for the
segment that the point lies in, whatever that shows. Relatives: the point prompts of Segment
Anything (Kirillov et al., ICCV 2023, section 3), and the queries that FastInst (He et al., CVPR
2023) and Mask DINO (Li et al., CVPR 2023) select from pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ovseg.d2.config import CfgNode, configurable
from ovseg.d2.layers import ShapeSpec
from ovseg.modeling.heads.pixel_decoder import BasePixelDecoder, build_pixel_decoder
from ovseg.modeling.point_queries import (
    PointSelection,
    point_masks,
    query_at,
    select_masks,
    stability,
)


class PointPredictor(nn.Module):
    """A feature map to a query and a class output at every pixel.

    Args:
        in_channels: channels of the map.
        hidden_dim: channels inside the two branches.
        mask_dim: channels of the mask features.
        embedding_dim: width of the class output.
    """

    def __init__(
        self, *, in_channels: int, hidden_dim: int, mask_dim: int, embedding_dim: int
    ) -> None:
        super().__init__()
        # One channel more than a query has: the logit of the mask's expected IoU.
        self.query_embed = _branch(in_channels, hidden_dim, mask_dim + 1)
        self.class_embed = _branch(in_channels, hidden_dim, embedding_dim)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, h, w) to queries (B, mask_dim + 1, h, w) and class outputs (B, h, w, D)."""
        return self.query_embed(x), self.class_embed(x).movedim(1, -1)


class PointQueryHead(nn.Module):
    """Backbone features to queries and class embeddings of pixels.

    Masks are the products of queries with mask features, as in MaskFormer. A mask's class output is
    the mean of the class embeddings of its pixels, so that it needs no training of its own.

    Args:
        pixel_decoder: makes the pyramid and, at the size of its finest level, the mask features.
        predictor: makes queries and class outputs at the size of the next level.
        selection: how the masks of a picture are chosen.
    """

    learns_no_object: ClassVar[bool] = False

    @configurable
    def __init__(
        self,
        *,
        pixel_decoder: BasePixelDecoder,
        predictor: PointPredictor,
        selection: PointSelection,
    ) -> None:
        super().__init__()
        self.pixel_decoder = pixel_decoder
        self.predictor = predictor
        self.selection = selection

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: Mapping[str, ShapeSpec]) -> dict[str, Any]:
        """Reads MODEL.SEM_SEG_HEAD and MODEL.MASK_FORMER."""
        head, former = cfg.MODEL.SEM_SEG_HEAD, cfg.MODEL.MASK_FORMER
        predictor = PointPredictor(
            in_channels=head.CONVS_DIM,
            hidden_dim=former.HIDDEN_DIM,
            mask_dim=head.MASK_DIM,
            embedding_dim=head.NUM_CLASSES + 1 if is_closed(cfg) else head.EMBEDDING_DIM,
        )
        return {
            "pixel_decoder": build_pixel_decoder(cfg, input_shape),
            "predictor": predictor,
            "selection": PointSelection(
                grid=former.POINTS.GRID,
                most=former.NUM_OBJECT_QUERIES,
                nms_iou=former.POINTS.NMS_IOU,
                stability_offset=former.POINTS.STABILITY_OFFSET,
            ),
        }

    @property
    def num_queries(self) -> int:
        """Masks per picture, at most."""
        return self.selection.most

    def forward(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Computes the maps that masks are read from.

        Args:
            features: name to (B, C, h, w).

        Returns:
            mask_features (B, M, h, w) at the pyramid's finest size; at the next one query_map (B, M
            + 1, h', w'), whose last channel is the logit of the mask's expected IoU, and
            pred_logits (B, h', w', D), the class output of every pixel.
        """
        levels, _ = self.pixel_decoder.forward_pyramid(features)
        query_map, pred_logits = self.predictor(levels[1])
        return {
            "mask_features": self.pixel_decoder.mask_features(levels[0]),
            "query_map": query_map,
            "pred_logits": pred_logits,
        }

    def proposals(
        self, outputs: Mapping[str, Tensor], index: int, covered: tuple[float, float]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Reads the masks of one picture: asks at a grid of points, keeps the best distinct masks.

        Args:
            outputs: of `forward`.
            index: of the picture.
            covered: shares of the padded height and width that the picture covers.

        Returns:
            pred_masks (Q, h, w) logits, best first, pred_logits (Q, D), and the masks' quality
            (Q,), expected IoU times stability, above 0 so that none is left out for it.
        """
        features = outputs["mask_features"][index].float()  # (M, h, w)
        points = self.selection.points(covered).to(features.device)
        queries = query_at(outputs["query_map"][index].float()[None], points[None])[0]
        masks, expected_iou = point_masks(queries, features)  # (N, h, w), (N,)
        height, width = (round(s * n) for s, n in zip(covered, features.shape[1:], strict=True))
        inside = masks[:, :height, :width]
        quality = expected_iou * stability(inside, self.selection.stability_offset)
        chosen = select_masks(inside, quality, self.selection)
        masks = masks[chosen]
        embeddings = _mean_inside(masks, outputs["pred_logits"][index].float())
        return masks, embeddings, quality[chosen].clamp(min=1e-6)


def is_closed(cfg: CfgNode) -> bool:
    """Whether class outputs are logits of the training classes, not embeddings of any text.

    Args:
        cfg: MODEL.SEM_SEG_HEAD.NAME says so, as for learned queries.
    """
    return bool(cfg.MODEL.SEM_SEG_HEAD.NAME == "MaskFormerHead")


def _branch(channels: int, hidden: int, out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, hidden, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(hidden, hidden, 1),
        nn.ReLU(),
        nn.Conv2d(hidden, out, 1),
    )


def _mean_inside(masks: Tensor, embeddings: Tensor) -> Tensor:
    """Mean direction of the embeddings (h', w', D) inside masks (Q, h, w) of logits: (Q, D)."""
    size = (embeddings.shape[0], embeddings.shape[1])
    inside = F.interpolate(masks.sigmoid()[None], size=size, mode="area")[0]  # (Q, h', w')
    directions = F.normalize(embeddings, dim=-1).flatten(0, 1)  # (h' * w', D)
    weights = inside.flatten(1)
    return weights @ directions / weights.sum(1, keepdim=True).clamp(min=torch.finfo().tiny)
