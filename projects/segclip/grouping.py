"""The semantic group module: learned centres collect the patches of an image.

Source: Luo et al., "SegCLIP", ICML 2023, section 3.2; names of parameters are those of the released
checkpoint.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from open_clip.transformer import QuickGELU
from torch import Tensor, nn


@dataclass(frozen=True)
class Grouping:
    """How the L patches of B images fall to K centres.

    Args:
        tokens: (B, K, C), one token per group.
        logits: (B, K, L), products of centres and patches, without noise or scale.
        hard: (B, K, L), one-hot over the centres; gradients are those of a softmax.
    """

    tokens: Tensor
    logits: Tensor
    hard: Tensor

    @property
    def soft(self) -> Tensor:
        """(B, K, L) softmax over the centres, without noise."""
        return self.logits.softmax(1)


class CrossAttention(nn.Module):
    """Centres attend to tokens, then an MLP; both with residual connections.

    Args:
        width: C.
        heads: of the attention.
        batch_mix: in training, read the keys' buffer (B, S, C) as (S, B, C): the key s of sample n
            is row s * B + n of all. That is what the released code does under torch 1.8.
    """

    def __init__(self, width: int, heads: int, *, batch_mix: bool = False) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.ln_x = nn.LayerNorm(width)
        self.ln_k = nn.LayerNorm(width)
        self.ln_2 = nn.LayerNorm(width)
        mlp = {
            "c_fc": nn.Linear(width, 4 * width),
            "gelu": QuickGELU(),
            "c_proj": nn.Linear(4 * width, width),
        }
        self.mlp = nn.Sequential(OrderedDict(mlp))
        self.batch_mix = batch_mix

    def forward(self, queries: Tensor, tokens: Tensor) -> Tensor:
        """(B, K, C) queries and (B, S, C) tokens to (B, K, C)."""
        if self.batch_mix and self.training:
            size, length, width = tokens.shape
            tokens = tokens.reshape(length, size, width).transpose(0, 1)
        keys = self.ln_k(tokens)
        attended, _ = self.attn(self.ln_x(queries), keys, keys, need_weights=False)
        queries = queries + attended
        return queries + self.mlp(self.ln_2(queries))


class GroupProjection(nn.Module):
    """Normalisation and an MLP without a residual connection, with an activation behind it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.ln = nn.LayerNorm(width)
        mlp = {
            "fc1": nn.Linear(width, 4 * width),
            "gelu": nn.GELU(),
            "fc2": nn.Linear(4 * width, width),
        }
        self.mlp = nn.Sequential(OrderedDict(mlp))
        self.activation = QuickGELU()

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, K, C) to the same shape."""
        return self.activation(self.mlp(self.ln(tokens)))


class SemanticGrouping(nn.Module):
    """Assigns every patch to one of K learned centres and averages the patches of each.

    Args:
        width: C.
        heads: of the cross-attention, and blocks of the two projections of patches.
        centers: K.
        layers: cross-attention layers.
        tau: temperature of the assignment in training.
        batch_mix: see `CrossAttention`.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        centers: int = 8,
        layers: int = 2,
        tau: float = 0.9,
        batch_mix: bool = False,
    ) -> None:
        super().__init__()
        self.semantic_center = nn.Parameter(torch.zeros(centers, width))
        self.norm = nn.LayerNorm(width)
        self.cross_ln = nn.LayerNorm(width)
        self.k_ln = nn.LayerNorm(width)
        self.cross_att = nn.ModuleList(
            CrossAttention(width, heads, batch_mix=batch_mix) for _ in range(layers)
        )
        self.k_conv = nn.Conv1d(width, width, 1, groups=heads, bias=False)
        self.v_conv = nn.Conv1d(width, width, 1, groups=heads, bias=False)
        self.proj_o = GroupProjection(width)
        self.tau = tau

    def forward(self, patches: Tensor, gumbel: Tensor | None = None) -> Grouping:
        """Group patches.

        Args:
            patches: (B, L, C).
            gumbel: (B, K, L) noise of a standard Gumbel distribution, in training; None assigns
                without noise and temperature.

        Returns:
            The groups; that of a centre without patches has an average of 0.
        """
        queries = self.semantic_center.expand(len(patches), -1, -1)  # (B, K, C)
        for layer in self.cross_att:
            queries = layer(queries, torch.cat([queries, patches], dim=1))
        queries = self.cross_ln(queries)

        normed = self.norm(patches).transpose(1, 2)  # (B, C, L)
        keys = self.k_ln(self.k_conv(normed).transpose(1, 2))  # (B, L, C)
        values = self.v_conv(normed).transpose(1, 2)  # (B, L, C)
        logits = queries @ keys.transpose(1, 2)  # (B, K, L)
        noisy = logits if gumbel is None else (logits + gumbel) / self.tau
        soft = noisy.softmax(1)
        one_hot = F.one_hot(soft.argmax(1), soft.shape[1]).transpose(1, 2).to(soft)
        hard = one_hot - soft.detach() + soft
        means = hard @ values / hard.sum(2, keepdim=True).clamp(min=1.0)  # (B, K, C)
        return Grouping(self.proj_o(queries + means), logits, hard)


class Ungrouping(nn.Module):
    """Gives the patches back what their groups know.

    Args:
        centers: K.
    """

    def __init__(self, centers: int) -> None:
        super().__init__()
        self.rec_proj_a = nn.ModuleDict({"a_fc": nn.Linear(centers, centers)})
        self.activation = QuickGELU()

    def forward(self, grouping: Grouping) -> Tensor:
        """The groups of (B, L) patches to tokens (B, L, C)."""
        weights = self.rec_proj_a["a_fc"](grouping.hard.transpose(1, 2))  # (B, L, K)
        return self.activation(weights @ grouping.tokens)
