"""Blocks of open_clip's towers, computed from their own weights.

`nn.MultiheadAttention` in evaluation mode writes out all N x N weights per head, 0.4 GiB for the
53 x 53 patches of ViT-B/16 with stride 4; `F.scaled_dot_product_attention` does not. And what a
block does with its queries, keys and values can be replaced.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
import torch.nn.functional as F
from open_clip.transformer import (
    CustomResidualAttentionBlock,
    QuickGELU,
    ResidualAttentionBlock,
)
from torch import Tensor, nn

from ovseg.clip.int8 import Int8Attention, in_projection

Block: TypeAlias = ResidualAttentionBlock | CustomResidualAttentionBlock
_QUICK = 1.702


def run_block(
    block: Block,
    tokens: Tensor,
    *,
    attention: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None,
    attention_only: bool = False,
) -> Tensor:
    """Run one block of a tower, with its own attention or another.

    Args:
        block: one of `visual.transformer.resblocks`.
        tokens: (B, T, C).
        attention: maps q, k, v, each (B, heads, T, d), to (B, heads, T, d); None for softmax
            attention of all tokens to all. To forbid some pairs, give
            `partial(F.scaled_dot_product_attention, attn_mask=allowed)` with True for "attends".
        attention_only: return what the attention puts out, after its output projection: no residual
            connection, no MLP, no layer scale.

    Returns:
        (B, T, C).

    Raises:
        ValueError: if another attention is asked of a block that does not have plain multi-head
            attention, or if `attention` returns another shape.
    """
    plain = attention is None and not attention_only
    if plain and not isinstance(block.attn, nn.MultiheadAttention | Int8Attention):
        return block(tokens)  # open_clip's own attention class writes out no N x N weights either
    q, k, v = query_key_value(block, tokens)  # (B, heads, T, d)
    mixed = (attention or F.scaled_dot_product_attention)(q, k, v)
    if mixed.shape != v.shape:
        raise ValueError(
            f"expected attention to return the shape of its values, {tuple(v.shape)} (batch, "
            f"heads, tokens, channels), got {tuple(mixed.shape)}"
        )
    mixed = block.attn.out_proj(mixed.transpose(1, 2).flatten(2))  # (B, T, C)
    if attention_only:
        return mixed
    tokens = tokens + block.ls_1(mixed)
    return tokens + block.ls_2(_run_mlp(block.mlp, block.ln_2(tokens)))


def run_block_for_class_token(
    block: Block, tokens: Tensor, *, bias: Tensor | None = None
) -> Tensor:
    """Run a block for what it makes of the class token alone, as the last block of a tower may.

    Args:
        block: of plain multi-head attention.
        tokens: (B, T, C), the class token first.
        bias: (B, 1, 1, T), added to the scores of attention; None for none.

    Returns:
        (B, C), equal to `run_block(block, tokens)[:, 0]`.

    Raises:
        ValueError: if the block does not have plain multi-head attention.
    """
    check_plain_attention(block)
    attn, width = block.attn, tokens.shape[-1]
    weights, biases = attn.in_proj_weight, attn.in_proj_bias
    normed = block.ln_1(tokens)
    query = F.linear(normed[:, :1], weights[:width], biases[:width])  # (B, 1, C)
    keys_values = F.linear(normed, weights[width:], biases[width:])  # (B, T, 2C)
    q, k, v = (
        part.unflatten(-1, (attn.num_heads, -1)).transpose(1, 2)
        for part in (query, *keys_values.chunk(2, -1))
    )
    if bias is not None:
        bias = bias.to(q.dtype)
    mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)  # (B, heads, 1, d)
    mixed = mixed.transpose(1, 2).flatten(2)  # (B, 1, C)
    token = tokens[:, 0] + block.ls_1(attn.out_proj(mixed))[:, 0]  # (B, C)
    return token + block.ls_2(_run_mlp(block.mlp, block.ln_2(token)))


def _run_mlp(mlp: nn.Sequential, x: Tensor) -> Tensor:
    """Run the layers; without gradients QuickGELU, x sigmoid(1.702 x), in place.

    open_clip's makes three tensors of the MLP's width. Here it is silu(1.702 x) / 1.702.
    """
    for layer in mlp:
        if isinstance(layer, QuickGELU) and not torch.is_grad_enabled():
            x = F.silu(x.mul_(_QUICK), inplace=True).mul_(1 / _QUICK)  # a layer's own output
        else:
            x = layer(x)
    return x


def query_key_value(block: Block, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the queries, keys and values of a block, normalisation before them included.

    Args:
        block: one of `visual.transformer.resblocks`.
        tokens: (B, T, C).

    Returns:
        q, k and v, each (B, heads, T, d) with heads * d = C; q is not scaled.

    Raises:
        ValueError: if the block does not have plain multi-head attention.
    """
    check_plain_attention(block)
    qkv = in_projection(block.attn, block.ln_1(tokens))  # (B, T, 3C)
    heads = block.attn.num_heads
    q, k, v = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in qkv.chunk(3, -1))
    return q, k, v


def check_plain_attention(block: Block) -> None:
    """Check that a block has plain multi-head attention; a ValueError says what it has."""
    if not isinstance(block.attn, nn.MultiheadAttention | Int8Attention):
        raise ValueError(
            "expected a block with plain multi-head attention, whose queries, keys and values can "
            f"be taken apart, got {type(block).__name__}; choose a CLIP whose image tower has "
            "block_type 'default'"
        )
