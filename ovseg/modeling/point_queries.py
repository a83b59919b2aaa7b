"""From maps of queries to masks: where to ask, what the answers are, which of them to keep.

Source: Segment Anything (Kirillov et al., ICCV 2023, appendix B), for the grid of points, the
stability of a mask, and the suppression of masks that repeat better ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ovseg.modeling.mask_overlap import distinct_masks


@dataclass(frozen=True)
class PointSelection:
    """How the masks of a picture are chosen.

    Args:
        grid: points along each side of a picture.
        most: masks that are kept at most.
        nms_iou: a mask that overlaps a better one by at least this is left out.
        stability_offset: of logits; a mask is as stable as its masks cut at plus and minus this
            overlap.

    Raises:
        ValueError: a number is out of range.
    """

    grid: int = 14
    most: int = 40
    nms_iou: float = 0.7
    stability_offset: float = 1.0

    def __post_init__(self) -> None:
        if self.grid < 1 or self.most < 1:
            raise ValueError(
                "MODEL.MASK_FORMER: expected POINTS.GRID and NUM_OBJECT_QUERIES of at least 1, got "
                f"{self.grid} and {self.most}."
            )
        if not 0 < self.nms_iou <= 1:
            raise ValueError(
                f"MODEL.MASK_FORMER.POINTS.NMS_IOU: expected a number in (0, 1], got {self.nms_iou}"
            )

    def points(self, covered: tuple[float, float] = (1.0, 1.0)) -> Tensor:
        """The centres of a grid's cells.

        Args:
            covered: shares of the padded height and width that the picture covers.

        Returns:
            (grid * grid, 2) x and y as shares of the padded width and height.
        """
        centres = (torch.arange(self.grid) + 0.5) / self.grid
        y, x = torch.meshgrid(centres * covered[0], centres * covered[1], indexing="ij")
        return torch.stack((x, y), dim=-1).flatten(0, 1)


def query_at(query_map: Tensor, points: Tensor) -> Tensor:
    """Reads queries off a map.

    Args:
        query_map: (B, C, h, w).
        points: (B, N, 2) x and y as shares of width and height, in [0, 1].

    Returns:
        (B, N, C), interpolated bilinearly.
    """
    found = F.grid_sample(
        query_map, 2 * points[:, :, None] - 1, padding_mode="border", align_corners=False
    )  # (B, C, N, 1)
    return found[..., 0].transpose(1, 2)


def point_masks(queries: Tensor, mask_features: Tensor) -> tuple[Tensor, Tensor]:
    """Turns queries into masks.

    Args:
        queries: (..., N, M + 1), the last entry the logit of the expected IoU.
        mask_features: (..., M, h, w).

    Returns:
        Mask logits (..., N, h, w), and expected IoUs (..., N) in [0, 1].
    """
    masks = torch.einsum("...nm,...mhw->...nhw", queries[..., :-1], mask_features)
    return masks, queries[..., -1].sigmoid()


def stability(masks: Tensor, offset: float) -> Tensor:
    """Tells how little masks depend on where they are cut.

    Args:
        masks: (N, h, w) logits.
        offset: of logits.

    Returns:
        (N,) IoU in [0, 1] of each mask cut at plus and at minus the offset; 0 for an empty one.
    """
    inner = (masks > offset).flatten(1).sum(1)
    return inner / (masks > -offset).flatten(1).sum(1).clamp(min=1)


def select_masks(masks: Tensor, quality: Tensor, selection: PointSelection) -> Tensor:
    """Chooses the best masks that do not repeat one another.

    Args:
        masks: (N, h, w) logits.
        quality: (N,) by which they are ranked.
        selection: how many, and what a repetition is.

    Returns:
        (Q,) int64 indices, best first; at least one.
    """
    order = quality.argsort(descending=True, stable=True)
    binary = masks[order] > 0
    filled = binary.flatten(1).any(1)
    if not bool(filled.any()):
        return order[:1]
    order, binary = order[filled], binary[filled]
    return order[distinct_masks(binary, selection.nms_iou)][: selection.most]
