"""Masked reconstruction: hidden patches are drawn again from the groups of the visible ones.

Source: He et al., "Masked Autoencoders Are Scalable Vision Learners", CVPR 2022, as Luo et al.,
"SegCLIP", ICML 2023, section 3.3, use it; names of parameters are those of the released checkpoint.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn


@dataclass(frozen=True)
class Masking:
    """Which of the L patches of B images are visible.

    Args:
        keep: (B, l) int64, the visible patches, in the order in which they are encoded.
        restore: (B, L) int64, the place of each patch among the visible ones, then the hidden.
        hidden: (B, L) bool.
    """

    keep: Tensor
    restore: Tensor
    hidden: Tensor

    @classmethod
    def from_noise(cls, noise: Tensor, ratio: float) -> Masking:
        """Keeps the patches with the least noise.

        Args:
            noise: (B, L), uniform.
            ratio: share of the 1 + L tokens, the class token counted in, that is hidden; the class
                token never is.

        Returns:
            The masking.
        """
        visible = visible_patches(noise.shape[1], ratio)
        shuffle = noise.argsort(dim=1)  # (B, L)
        restore = shuffle.argsort(dim=1)
        return cls(shuffle[:, :visible], restore, restore >= visible)

    def select(self, patches: Tensor) -> Tensor:
        """(B, L, C) patches to the visible ones, (B, l, C)."""
        return patches.gather(1, self.keep[..., None].expand(-1, -1, patches.shape[2]))


def visible_patches(patches: int, ratio: float) -> int:
    """How many of a number of patches are visible; see `Masking.from_noise`."""
    return int((1 + patches) * (1 - ratio)) - 1


class MAEDecoder(nn.Module):
    """Tokens of visible patches to the pixels of all.

    Args:
        width: C of the tokens.
        dim: width inside.
        depth: blocks.
        heads: of a block's attention.
        grid: (h, w), the patches of an image.
        patch_size: side of a patch.
    """

    def __init__(
        self,
        width: int,
        *,
        dim: int,
        depth: int,
        heads: int,
        grid: tuple[int, int],
        patch_size: int,
    ) -> None:
        super().__init__()
        norm: Any = partial(nn.LayerNorm, eps=1e-6)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dim))
        table = sincos_positions(grid, dim)
        self.decoder_pos_embed = nn.Parameter(table[None], requires_grad=False)
        self.decoder_embed = nn.Linear(width, dim)
        self.decoder_blocks = nn.ModuleList(
            Block(dim, heads, qkv_bias=True, norm_layer=norm) for _ in range(depth)
        )
        self.decoder_norm = norm(dim)
        self.decoder_pred = nn.Linear(dim, 3 * patch_size**2)

    def forward(self, tokens: Tensor, restore: Tensor) -> Tensor:
        """Predict pixels.

        Args:
            tokens: (B, 1 + l, C), one for the whole image, then those of the visible patches.
            restore: (B, L), of `Masking`.

        Returns:
            (B, 1 + L, 3 * patch_size ** 2), per patch row, column and channel; the first is that of
            the whole image and means nothing.
        """
        x = self.decoder_embed(tokens)  # (B, 1 + l, dim)
        hidden = restore.shape[1] - (x.shape[1] - 1)
        patches = torch.cat([x[:, 1:], self.mask_token.expand(len(x), hidden, -1)], dim=1)
        patches = patches.gather(1, restore[..., None].expand(-1, -1, x.shape[2]))  # (B, L, dim)
        x = torch.cat([x[:, :1], patches], dim=1) + self.decoder_pos_embed
        for block in self.decoder_blocks:
            x = block(x)
        return self.decoder_pred(self.decoder_norm(x))


def with_whole(tokens: Tensor) -> Tensor:
    """(B, l, C) tokens to (B, 1 + l, C): their mean, which stands for the whole image, and they."""
    return torch.cat([tokens.mean(1, keepdim=True), tokens], dim=1)


def reconstruction_error(predicted: Tensor, images: Tensor, hidden: Tensor) -> Tensor:
    """Mean squared error over hidden patches.

    Args:
        predicted: (B, 1 + L, P), of `MAEDecoder`.
        images: (B, 3, H, W), normalised with CLIP's statistics; no patch is normalised by itself.
        hidden: (B, L) bool, of `Masking`.

    Returns:
        A scalar, the mean over the batch's hidden patches.
    """
    patch_size = math.isqrt(predicted.shape[2] // 3)
    errors = (predicted[:, 1:] - patchify(images, patch_size)).square().mean(-1)  # (B, L)
    return (errors * hidden).sum() / hidden.sum()


def patchify(images: Tensor, patch_size: int) -> Tensor:
    """Images (B, 3, H, W) to patches (B, L, P): row, column in the patch, channel."""
    patches = images.unfold(2, patch_size, patch_size).unfold(3, patch_size, patch_size)
    return patches.permute(0, 2, 3, 4, 5, 1).flatten(3).flatten(1, 2)  # (B, h, w, p, p, 3) before


def sincos_positions(grid: tuple[int, int], dim: int) -> Tensor:
    """The fixed table of positions.

    Args:
        grid: (h, w).
        dim: channels, a multiple of 4: sines and cosines of the column, then of the row.

    Returns:
        (1 + h * w, dim) float32; the first row, of the whole image, is 0.
    """
    frequencies = 10000.0 ** -(torch.arange(dim // 4, dtype=torch.float64) / (dim / 4))
    rows, columns = torch.meshgrid(*(torch.arange(n) for n in grid), indexing="ij")
    angles = [place.flatten()[:, None] * frequencies for place in (columns, rows)]
    parts = [function(angle) for angle in angles for function in (torch.sin, torch.cos)]
    table = torch.cat(parts, dim=1)  # (h * w, dim)
    return torch.cat([table.new_zeros(1, dim), table]).float()
