"""Fewer tokens for a masked region: patches outside of it go on in fours.

What surrounds a region says little, and most of it is alike: the colour of the fill, or the learned
tokens of the mask prompt. From some block on, four neighbouring patches that all lie outside are
one token, their mean, which counts as four in every attention: its score is raised by log 4.
Weighing merged tokens by their size follows Bolya et al., "Token Merging: Your ViT But Faster"
(ICLR 2023), section 3; what is merged is not chosen by likeness here, but by the mask.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

_SIDE = 2


@dataclass(frozen=True)
class PackedTokens:
    """Tokens of N regions without padding, one region after the other, its class token first.

    Args:
        tokens: (1, M, C).
        places: (N, T) int64, where each region's tokens are among the M; T is the most that one
            has, and what lies behind the last is 0.
        bias: (N, 1, 1, T), added to the scores of attention: the logarithm of how many tokens each
            stands for, -inf behind the last.
        own: (M,) int64, the places of the M tokens in (N, T), flattened.
    """

    tokens: Tensor
    places: Tensor
    bias: Tensor
    own: Tensor

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Softmax attention within each region; all (1, heads, M, d)."""
        q, k, v = (
            part[0][:, self.places].transpose(0, 1) for part in (q, k, v)
        )  # (N, heads, T, d)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=self.bias.to(q.dtype))
        return mixed.transpose(0, 1).flatten(1, 2)[None, :, self.own]

    def padded(self, tokens: Tensor) -> Tensor:
        """Takes the regions apart: (1, M, C) to (N, T, C), with anything behind the last."""
        return tokens[0, self.places]


def merge_outside(tokens: Tensor, inside: Tensor, grid: tuple[int, int]) -> PackedTokens:
    """Merge patches that lie outside of a region.

    Args:
        tokens: (N, 1 + h * w, C), the class token first, then the patches row by row.
        inside: (N, h * w) bool, the patches that show something of the region.
        grid: (h, w). Of an odd side the last row or column stays as it is.

    Returns:
        The tokens: class tokens, patches, merged patches.
    """
    height, width = grid
    patches = tokens[:, 1:].transpose(1, 2).unflatten(2, grid)  # (N, C, h, w)
    outside = 1.0 - inside.unflatten(1, grid)[:, None].float()  # (N, 1, h, w)
    means = F.avg_pool2d(patches, _SIDE).flatten(2).transpose(1, 2)  # (N, b, C)
    merged = F.avg_pool2d(outside, _SIDE) == 1  # (N, 1, h // 2, w // 2)
    gone = merged.repeat_interleave(_SIDE, 2).repeat_interleave(_SIDE, 3)
    gone = F.pad(gone, (0, width % _SIDE, 0, height % _SIDE))  # (N, 1, h, w)
    class_tokens = torch.ones_like(merged[:, 0, 0, :1])  # (N, 1) bool
    kept = torch.cat([class_tokens, ~gone.flatten(1), merged.flatten(1)], dim=1)  # (N, 1 + P + b)
    counts = kept.sum(1)  # (N,)
    weights = torch.ones_like(kept, dtype=torch.float32)
    weights[:, -means.shape[1] :] = _SIDE * _SIDE
    positions = torch.arange(int(counts.max()), device=tokens.device)  # (T,)
    there = positions < counts[:, None]  # (N, T)
    starts = counts.cumsum(0) - counts
    bias = torch.full(there.shape, -torch.inf, device=tokens.device)
    bias[there] = weights[kept].log()
    return PackedTokens(
        tokens=torch.cat([tokens, means], dim=1)[kept][None],
        places=torch.where(there, starts[:, None] + positions, 0),
        bias=bias[:, None, None],
        own=there.flatten().nonzero()[:, 0],
    )
