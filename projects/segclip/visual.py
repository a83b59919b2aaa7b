"""SegCLIP's image tower: CLIP's, cut in two by the semantic group module.

Source: Luo et al., "SegCLIP", ICML 2023, section 3; names of parameters are those of the released
checkpoint.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from open_clip.transformer import QuickGELU, ResidualAttentionBlock, VisionTransformer
from torch import Tensor, nn

from ovseg.clip.dense import interpolate_positions
from ovseg.projects.segclip.grouping import Grouping, SemanticGrouping, Ungrouping


@dataclass(frozen=True)
class GroupedImage:
    """What the tower says of B images.

    Args:
        image: (B, D), of the whole image, not normalised.
        groups: (B, K, D), of each group, not normalised.
        grouping: which patch is in which group.
    """

    image: Tensor
    groups: Tensor
    grouping: Grouping


class GroupTransformer(nn.Module):
    """Blocks on patches, the group module, blocks on groups; beside it the way back to patches.

    Args:
        blocks: CLIP's.
        first_stage: how many of them see patches.
        grouping: the group module.
        reconstruction_layers: blocks on the patches that were rebuilt from their groups.
    """

    def __init__(
        self,
        blocks: Sequence[nn.Module],
        *,
        first_stage: int,
        grouping: SemanticGrouping,
        reconstruction_layers: int = 2,
    ) -> None:
        super().__init__()
        if not 0 < first_stage < len(blocks):
            raise ValueError(
                "MODEL.SEGCLIP.FIRST_STAGE_LAYERS: expected blocks on both sides of the group "
                f"module, 1 to {len(blocks) - 1} for this CLIP, got {first_stage}"
            )
        self.layers0 = nn.ModuleList(blocks[:first_stage])
        self.layers2 = nn.ModuleList(blocks[first_stage:])
        attention = cast(ResidualAttentionBlock, blocks[0]).attn
        width, heads = attention.embed_dim, attention.num_heads
        self.layers_mae2 = nn.ModuleList(
            ResidualAttentionBlock(width, heads, act_layer=QuickGELU)
            for _ in range(reconstruction_layers)
        )
        self.semantic_layer2 = grouping
        self.reconstruct_layer2 = Ungrouping(len(grouping.semantic_center))

    def group(self, patches: Tensor, gumbel: Tensor | None = None) -> Grouping:
        """(B, L, C) patches, and noise as `SemanticGrouping` takes it, to their groups."""
        for block in self.layers0:
            patches = block(patches)
        return self.semantic_layer2(patches, gumbel)

    def forward(self, patches: Tensor, gumbel: Tensor | None = None) -> tuple[Tensor, Grouping]:
        """(B, L, C) patches to group tokens (B, K, C) after all blocks, and the grouping."""
        grouping = self.group(patches, gumbel)
        tokens = grouping.tokens
        for block in self.layers2:
            tokens = block(tokens)
        return tokens, grouping

    def rebuild(self, patches: Tensor, gumbel: Tensor | None = None) -> Tensor:
        """(B, l, C) visible patches, through their groups, to tokens (B, l, C) of the same."""
        tokens = self.reconstruct_layer2(self.group(patches, gumbel))
        for block in self.layers_mae2:
            tokens = block(tokens)
        return tokens


class SegCLIPVisual(nn.Module):
    """Images to one feature of the whole and one per group.

    CLIP's class token is a parameter that nothing reads: it is dropped before the first block.

    Args:
        tower: CLIP's image tower; its parts become this one's.
        first_stage: see `GroupTransformer`.
        grouping: the group module.
        reconstruction_layers: see `GroupTransformer`.
        image_size: side of the training images; 0 takes the tower's. For another one the position
            embedding is interpolated once, bicubically.

    Raises:
        ValueError: no block on one side of the group module, or a size that is no multiple of the
            patch's.
    """

    def __init__(
        self,
        tower: VisionTransformer,
        *,
        first_stage: int,
        grouping: SemanticGrouping,
        reconstruction_layers: int = 2,
        image_size: int = 0,
    ) -> None:
        super().__init__()
        side = image_size or tower.image_size[0]
        self.patch_size = tower.patch_size[0]
        if side % self.patch_size:
            raise ValueError(
                "MODEL.SEGCLIP.IMAGE_SIZE: expected a multiple of the patch size "
                f"{self.patch_size}, got {side}"
            )
        self.image_size = (side, side)
        self.grid_size = (side // self.patch_size, side // self.patch_size)
        self.output_dim = tower.output_dim
        self.conv1 = tower.conv1
        self.class_embedding = tower.class_embedding
        with torch.no_grad():
            positions = interpolate_positions(
                tower.positional_embedding, tower.grid_size, self.grid_size
            )
        self.positional_embedding = nn.Parameter(positions.detach().clone())
        self.ln_pre = tower.ln_pre
        self.transformer = GroupTransformer(
            list(tower.transformer.resblocks),
            first_stage=first_stage,
            grouping=grouping,
            reconstruction_layers=reconstruction_layers,
        )
        self.ln_post = tower.ln_post
        self.proj = tower.proj

    def embed(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W), normalised, in whole patches, to patch tokens (B, h * w, C)."""
        maps = self.conv1(images)  # (B, C, h, w)
        grid = (maps.shape[2], maps.shape[3])
        positions = interpolate_positions(self.positional_embedding, self.grid_size, grid)[1:]
        return self.ln_pre(maps.flatten(2).transpose(1, 2) + positions)

    def encode(self, patches: Tensor, gumbel: Tensor | None = None) -> GroupedImage:
        """Patch tokens (B, L, C), and noise as `SemanticGrouping` takes it, to features."""
        tokens, grouping = self.transformer(patches, gumbel)
        # The whole image is the maximum over its groups.
        tokens = torch.cat([tokens.amax(1, keepdim=True), tokens], dim=1)  # (B, 1 + K, C)
        features = self.ln_post(tokens) @ self.proj  # (B, 1 + K, D)
        return GroupedImage(features[:, 0], features[:, 1:], grouping)

    def forward(self, images: Tensor) -> GroupedImage:
        """Encode images.

        Args:
            images: (B, 3, H, W) float, normalised with CLIP's statistics; H and W are multiples of
                the patch size. On another grid than the trained one positions are interpolated.

        Returns:
            Features and the grouping of the (H / patch) * (W / patch) patches.
        """
        return self.encode(self.embed(images))
