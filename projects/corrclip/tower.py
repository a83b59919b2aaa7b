"""CLIP's image tower with its last attention rebuilt: dense features of one crop.

Source: CorrCLIP (Zhang et al., ICCV 2025, arXiv 2411.10086). Three branches go through the last
block: the block before it and the mean of earlier blocks, whose values are mixed by the rebuilt
attention, and a class token per region.

The blocks run from their own weights (`ovseg.clip.blocks`); the tower is not touched.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from open_clip.transformer import VisionTransformer
from torch import Tensor

from ovseg.clip.blocks import Block, query_key_value, run_block
from ovseg.clip.dense import check_patch_tower, embed_patches
from ovseg.d2.config import CfgNode
from ovseg.projects.corrclip.correlation import (
    UNCOVERED_RULES,
    UNSEGMENTED_RULES,
    Uncovered,
    Unsegmented,
    allowed_pairs,
    merge_regions,
    number_regions,
    rebuilt_attention,
    resize_ids,
)

# Number of blocks that the spatial branch averages, by the tower's depth; else the depth minus 4.
SPATIAL_BLOCKS = {12: 5, 24: 12, 32: 28}


@dataclass(frozen=True)
class CorrelationSettings:
    """The constants of the method, with the released code's values.

    Args:
        tau: factor of the similarities before the softmax.
        merge: whether regions that look alike are joined (v2 does not).
        eps: distance up to which they are.
        min_samples: see `cluster_regions`.
        uncovered: see `allowed_pairs`.
        unsegmented: see `number_regions`.
        num_spatial: blocks that the spatial branch averages; None for the rule by depth.
        spatial_weight: of the spatial branch.
        semantic_weight: of the semantic branch.
        position_offset: see `ovseg.clip.dense.interpolate_positions`.

    Raises:
        ValueError: a rule that does not exist.
    """

    tau: float = 4.0
    merge: bool = True
    eps: float = 0.2
    min_samples: int = 1
    uncovered: Uncovered = "either"
    unsegmented: Unsegmented = "min"
    num_spatial: int | None = None
    spatial_weight: float = 1.0
    semantic_weight: float = 0.5
    position_offset: float = 0.1

    @classmethod
    def from_config(cls, cfg: CfgNode) -> CorrelationSettings:
        """Read MODEL.CORRCLIP."""
        node = cfg.MODEL.CORRCLIP
        return cls(
            tau=node.TAU,
            merge=node.MERGE,
            eps=node.EPS,
            min_samples=node.MIN_SAMPLES,
            uncovered=node.UNCOVERED,
            unsegmented=node.REGIONS.UNSEGMENTED_RULE,
            num_spatial=node.NUM_SPATIAL or None,
            spatial_weight=node.SPATIAL_WEIGHT,
            semantic_weight=node.SEMANTIC_WEIGHT,
            position_offset=node.POSITION_OFFSET,
        )

    def __post_init__(self) -> None:
        for key, value, known in (
            ("UNCOVERED", self.uncovered, UNCOVERED_RULES),
            ("REGIONS.UNSEGMENTED_RULE", self.unsegmented, UNSEGMENTED_RULES),
        ):
            if value not in known:
                raise ValueError(f"MODEL.CORRCLIP.{key}: expected one of {known}, got {value!r}")


@dataclass(frozen=True)
class CorrelatedTower:
    """Crops to features that are alike within regions, by any Vision Transformer of open_clip.

    Args:
        visual: the image tower; held, not copied and not registered as a submodule.
        settings: the constants.

    Raises:
        ValueError: the tower is of another kind, or too shallow for the spatial branch.
    """

    visual: VisionTransformer
    settings: CorrelationSettings

    def __post_init__(self) -> None:
        check_patch_tower(self.visual)
        if self.visual.pool_type != "tok":
            raise ValueError(
                "expected a CLIP that pools by its class token, which CorrCLIP copies per region, "
                f"got one that pools by {self.visual.pool_type!r}"
            )
        first, end = self.spatial_blocks
        if first < 0 or first >= end:
            raise ValueError(
                "MODEL.CORRCLIP.NUM_SPATIAL: expected 1 to "
                f"{self.depth - 2} blocks for a tower of {self.depth}, got {end - first}; for a "
                "shallow tower the number has to be set"
            )

    @property
    def depth(self) -> int:
        """Number of blocks, L."""
        return len(self.visual.transformer.resblocks)

    @property
    def spatial_blocks(self) -> tuple[int, int]:
        """The blocks whose outputs the spatial branch averages, [first, end)."""
        number = self.settings.num_spatial
        if number is None:
            number = SPATIAL_BLOCKS.get(self.depth, self.depth - 4)
        return self.depth - 2 - number, self.depth - 2

    def __call__(self, image: Tensor, dense: Tensor, ids: Tensor) -> Tensor:
        """Compute the features of a crop.

        Args:
            image: (1, 3, H, W) float, normalised with the tower's statistics.
            dense: (C, h, w), a vision model's features of the crop, not normalised.
            ids: (H, W) integers, the regions of the crop.

        Returns:
            (D, h, w) in the space of the texts, not normalised.
        """
        chosen, grid = self.settings, (dense.shape[1], dense.shape[2])
        rows = F.normalize(dense.float().flatten(1).T, dim=1)  # (N, C)
        regions = number_regions(resize_ids(ids, grid), chosen.unsegmented)  # (h, w)
        if chosen.merge:
            regions = merge_regions(rows, regions, eps=chosen.eps, min_samples=chosen.min_samples)
        similarity = rows @ rows.T  # (N, N)
        allowed = allowed_pairs(similarity, regions.flatten(), chosen.uncovered)
        attention = rebuilt_attention(similarity, allowed, chosen.tau)
        tokens, token_grid = embed_patches(
            self.visual, image, scale_offset=chosen.position_offset
        )  # (1, 1 + n, width)
        outputs, summaries, where = self.run_blocks(tokens, resize_ids(regions, token_grid))
        inputs = torch.cat([outputs[-1], torch.stack(outputs[slice(*self.spatial_blocks)]).mean(0)])
        last = self.visual.transformer.resblocks[-1]
        values = last_values(last, inputs, token_grid)  # (2, width, h', w')
        main, spatial = mix_values(last, values, attention, grid)  # (N, width) each
        semantic = summaries[resize_ids(where, grid).flatten()]  # (N, width)
        return self.fuse(main, spatial, semantic).T.unflatten(1, grid)

    def run_blocks(self, tokens: Tensor, regions: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
        """Run the blocks with a copy of the class token for each region.

        A region's token attends to the class token and its region's patches, and nobody attends to
        it: the others come out as without it.

        Args:
            tokens: (1, 1 + n, C) what enters the first block.
            regions: (h', w') int64 on the token grid.

        Returns:
            outputs: per block but the last (1, 1 + n, C), without the regions' tokens.
            summaries: (M, C) the regions' tokens after the last block, in the order of the ids.
            where: (h', w') int64 in 0..M - 1, the token of each patch.
        """
        present, where = regions.unique(return_inverse=True)
        number = len(present)
        own = torch.arange(number, device=tokens.device)[:, None] == where.flatten()  # (M, n)
        length = number + tokens.shape[1]
        attends = torch.ones(length, length, dtype=torch.bool, device=tokens.device)
        attends[:, :number] = False
        attends[:number, number + 1 :] = own
        attend = partial(F.scaled_dot_product_attention, attn_mask=attends)
        joined = torch.cat([tokens[:, :1].expand(-1, number, -1), tokens], dim=1)
        outputs = []
        for block in self.visual.transformer.resblocks:
            outputs.append(joined[:, number:])
            joined = run_block(block, joined, attention=attend)
        return outputs[1:], joined[0, :number], where

    def fuse(self, main: Tensor, spatial: Tensor, semantic: Tensor) -> Tensor:
        """Normalise the branches (N, C) one by one, add them up and project them: (N, D)."""
        norm, chosen = self.visual.ln_post, self.settings
        fused = norm(main) + chosen.spatial_weight * norm(spatial)
        fused = fused + chosen.semantic_weight * norm(semantic)
        return fused if self.visual.proj is None else fused @ self.visual.proj


def last_values(block: Block, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """Values of a block's attention as maps.

    Args:
        block: the last one.
        tokens: (B, 1 + h * w, C), the class token first.
        grid: (h, w).

    Returns:
        (B, C, h, w), heads side by side.
    """
    value = query_key_value(block, tokens)[2]  # (B, heads, 1 + h * w, d)
    return value[:, :, 1:].transpose(2, 3).flatten(1, 2).unflatten(2, grid)


def mix_values(block: Block, values: Tensor, attention: Tensor, grid: tuple[int, int]) -> Tensor:
    """Mix values by an attention that all heads share; no residual connection, no MLP.

    Args:
        block: whose output projection is applied.
        values: (B, C, h', w').
        attention: (h * w, h * w).
        grid: (h, w) to which the values are brought.

    Returns:
        (B, h * w, C).
    """
    values = F.interpolate(values, size=grid, mode="bilinear", align_corners=False)
    return block.attn.out_proj(attention.to(values.dtype) @ values.flatten(2).transpose(1, 2))
