"""Transformer encoder and decoder over the tokens of a feature map.

Source: Carion et al., "End-to-End Object Detection with Transformers", ECCV 2020, section 3.2 and
figure 10: position encodings are added to queries and keys of every attention, never to values.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class LayerSpec:
    """The dimensions of a transformer layer.

    Args:
        dim: token width C.
        heads: attention heads.
        feedforward: hidden width of the feed-forward network.
        dropout: dropout of every branch.
        pre_norm: normalise before instead of after each branch.
    """

    dim: int
    heads: int
    feedforward: int
    dropout: float
    pre_norm: bool


def _attention(spec: LayerSpec) -> nn.MultiheadAttention:
    return nn.MultiheadAttention(spec.dim, spec.heads, dropout=spec.dropout, batch_first=True)


class _Layer(nn.Module):
    """What encoder and decoder layers share: the residual rule and the feed-forward network."""

    def __init__(self, spec: LayerSpec) -> None:
        super().__init__()
        self.pre_norm = spec.pre_norm
        self.linear1 = nn.Linear(spec.dim, spec.feedforward)
        self.linear2 = nn.Linear(spec.feedforward, spec.dim)
        self.dropout = nn.Dropout(spec.dropout)

    def _residual(self, x: Tensor, norm: nn.Module, branch: Callable[[Tensor], Tensor]) -> Tensor:
        if self.pre_norm:
            return x + self.dropout(branch(norm(x)))
        return norm(x + self.dropout(branch(x)))

    def _feedforward(self, x: Tensor) -> Tensor:
        return self.linear2(self.dropout(F.relu(self.linear1(x))))


class EncoderLayer(_Layer):
    """Self-attention and a feed-forward network."""

    def __init__(self, spec: LayerSpec) -> None:
        super().__init__(spec)
        self.self_attn = _attention(spec)
        self.norm1 = nn.LayerNorm(spec.dim)
        self.norm2 = nn.LayerNorm(spec.dim)

    def forward(self, x: Tensor, pos: Tensor) -> Tensor:
        """Maps (B, N, C) to (B, N, C); `pos` is (1, N, C)."""

        def attend(tokens: Tensor) -> Tensor:
            query = tokens + pos
            return self.self_attn(query, query, tokens, need_weights=False)[0]

        x = self._residual(x, self.norm1, attend)
        return self._residual(x, self.norm2, self._feedforward)


class DecoderLayer(_Layer):
    """Self-attention among queries, attention to the memory, a feed-forward network."""

    def __init__(self, spec: LayerSpec) -> None:
        super().__init__(spec)
        self.self_attn = _attention(spec)
        self.multihead_attn = _attention(spec)
        self.norm1 = nn.LayerNorm(spec.dim)
        self.norm2 = nn.LayerNorm(spec.dim)
        self.norm3 = nn.LayerNorm(spec.dim)

    def forward(self, x: Tensor, memory: Tensor, keys: Tensor, query_pos: Tensor) -> Tensor:
        """Updates the queries.

        Args:
            x: (B, Q, C) query states.
            memory: (B, N, C) values of the cross-attention.
            keys: (B, N, C) memory with its position encoding.
            query_pos: (1, Q, C) learned query embedding.

        Returns:
            (B, Q, C).
        """

        def attend_queries(tokens: Tensor) -> Tensor:
            query = tokens + query_pos
            return self.self_attn(query, query, tokens, need_weights=False)[0]

        def attend_memory(tokens: Tensor) -> Tensor:
            return self.multihead_attn(tokens + query_pos, keys, memory, need_weights=False)[0]

        x = self._residual(x, self.norm1, attend_queries)
        x = self._residual(x, self.norm2, attend_memory)
        return self._residual(x, self.norm3, self._feedforward)


class TransformerEncoder(nn.Module):
    """A stack of encoder layers; a final norm only in the pre-norm form."""

    def __init__(self, layers: int, spec: LayerSpec) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(spec) for _ in range(layers))
        self.norm = nn.LayerNorm(spec.dim) if spec.pre_norm else None

    def forward(self, x: Tensor, pos: Tensor) -> Tensor:
        """Maps (B, N, C) to (B, N, C); `pos` is (1, N, C)."""
        for layer in self.layers:
            x = layer(x, pos)
        return x if self.norm is None else self.norm(x)


class TransformerDecoder(nn.Module):
    """A stack of decoder layers, each output through one shared norm."""

    def __init__(self, layers: int, spec: LayerSpec) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DecoderLayer(spec) for _ in range(layers))
        self.norm = nn.LayerNorm(spec.dim)

    def forward(
        self, memory: Tensor, pos: Tensor, query_pos: Tensor, *, all_layers: bool
    ) -> Tensor:
        """Decodes from zero queries.

        Args:
            memory: (B, N, C).
            pos: (1, N, C) position encoding of the memory.
            query_pos: (1, Q, C).
            all_layers: return every layer's state instead of the last one's.

        Returns:
            (L, B, Q, C), L = number of layers or 1.
        """
        keys = memory + pos  # the same for every layer
        x = torch.zeros_like(query_pos).expand(len(memory), -1, -1)  # (B, Q, C)
        states: list[Tensor] = []
        for layer in self.layers:
            x = layer(x, memory, keys, query_pos)
            states.append(x)
        return self.norm(torch.stack(states if all_layers else states[-1:]))


class Transformer(nn.Module):
    """An optional encoder over a map's tokens, then a decoder of queries.

    Args:
        spec: dimensions of every layer.
        encoder_layers: 0 for no encoder.
        decoder_layers: number of decoder layers.
    """

    def __init__(self, spec: LayerSpec, *, encoder_layers: int, decoder_layers: int) -> None:
        super().__init__()
        self.encoder = TransformerEncoder(encoder_layers, spec) if encoder_layers else None
        self.decoder = TransformerDecoder(decoder_layers, spec)
        init_xavier(self)

    def forward(self, x: Tensor, pos: Tensor, query_pos: Tensor, *, all_layers: bool) -> Tensor:
        """Decodes the queries from a map.

        Args:
            x: (B, C, h, w).
            pos: (1, C, h, w) position encoding.
            query_pos: (Q, C) learned query embedding.
            all_layers: return every layer's state instead of the last one's.

        Returns:
            (L, B, Q, C).
        """
        memory = x.flatten(2).transpose(1, 2)  # (B, h * w, C)
        tokens = pos.flatten(2).transpose(1, 2)  # (1, h * w, C)
        if self.encoder is not None:
            memory = self.encoder(memory, tokens)
        return self.decoder(memory, tokens, query_pos[None], all_layers=all_layers)


class TransformerEncoderOnly(nn.Module):
    """An encoder that keeps the shape of its map.

    Args:
        layers: number of encoder layers.
        spec: dimensions of every layer.
    """

    def __init__(self, layers: int, spec: LayerSpec) -> None:
        super().__init__()
        self.encoder = TransformerEncoder(layers, spec)
        init_xavier(self)

    def forward(self, x: Tensor, pos: Tensor) -> Tensor:
        """Maps (B, C, h, w) to (B, C, h, w); `pos` is (1, C, h, w)."""
        tokens = self.encoder(x.flatten(2).transpose(1, 2), pos.flatten(2).transpose(1, 2))
        return tokens.transpose(1, 2).reshape(x.shape)


def init_xavier(module: nn.Module) -> None:
    """Initialises every matrix of `module` uniformly after Glorot, in place."""
    for parameter in module.parameters():
        if parameter.dim() > 1:
            nn.init.xavier_uniform_(parameter)
