"""Text to features, without encoding padding, and without encoding anything twice.

The text tower is causal. Its feature is read at the end-of-text token, so nothing after that token
can change the result: CLIP pads every text to 77 tokens, class names with a template have about 10.
And what a token becomes depends on those before it alone, so texts that begin alike, as all names
do in one template, share their beginning. Both savings are exact: of the 161,700 tokens of 150
names in 14 templates 11,103 are computed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from open_clip import CLIP
from open_clip import tokenize as open_clip_tokenize
from torch import Tensor, nn

from ovseg.clip.blocks import run_block

CONTEXT_LENGTH = 77


def tokenize(texts: Sequence[str], context_length: int = CONTEXT_LENGTH) -> Tensor:
    """Tokenize texts with CLIP's byte pair encoding.

    Args:
        texts: N strings; what does not fit is cut off.
        context_length: L.

    Returns:
        (N, L) int64, zero-padded behind the end-of-text token.
    """
    if isinstance(texts, str):
        raise TypeError(f"expected a list of texts, got the single string {texts!r}")
    if not texts:
        return torch.zeros(0, context_length, dtype=torch.int64)
    return open_clip_tokenize(list(texts), context_length)


def encode_tokens(clip: CLIP, tokens: Tensor) -> Tensor:
    """Encode tokens up to the longest end of text of the batch.

    Equal to `open_clip.CLIP.encode_text`, which encodes the padding too.

    Args:
        clip: any CLIP with a causal text tower that pools at the end of text.
        tokens: (N, L) integers; the end-of-text token is the largest id of its row.

    Returns:
        (N, D) features, not normalised.
    """
    ends = tokens.argmax(dim=-1)  # (N,)
    length = int(ends.max()) + 1 if len(tokens) else 1
    dtype = clip.transformer.get_cast_dtype()
    x = clip.token_embedding(tokens[:, :length]).to(dtype)  # (N, length, C)
    x = x + clip.positional_embedding[:length].to(dtype)
    x = clip.transformer(x, attn_mask=clip.attn_mask[:length, :length])
    return _project(clip, x[torch.arange(len(x), device=x.device), ends])


def encode_beginnings(clip: CLIP, tokens: Tensor) -> Tensor:
    """Encode texts, each beginning that some of them share once.

    Equal to `encode_tokens`, at a cost that grows with the distinct beginnings.

    Args:
        clip: as for `encode_tokens`, of plain multi-head attention.
        tokens: (N, L), see `encode_tokens`; equal beginnings in neighbouring rows.

    Returns:
        (N, D) features, not normalised.
    """
    ends = tokens.argmax(dim=-1)  # (N,)
    tokens = tokens[:, : int(ends.max()) + 1]  # (N, l)
    positions = torch.arange(tokens.shape[1], device=tokens.device)  # (l,)
    # Whether a token differs from that in the row above, there or before.
    new = torch.ones_like(tokens, dtype=torch.bool)  # (N, l)
    new[1:] = (tokens[1:] != tokens[:-1]).cumsum(1) > 0
    new &= positions <= ends[:, None]
    # The node of every token: its own number where it is new, else that of the row above.
    numbers = new.flatten().cumsum(0).view_as(tokens) - 1  # (N, l)
    node = torch.where(new, numbers, -1).cummax(0).values.clamp(min=0)  # (N, l)
    places = new.flatten().nonzero()[:, 0]  # (M,), where each node stands

    def attend(*parts: Tensor) -> Tensor:
        """Each row's tokens to those before them; nodes (1, heads, M, d) in and out."""
        q, k, v = (part[0][:, node] for part in parts)  # (heads, N, l, d)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return mixed.flatten(1, 2)[None, :, places]

    dtype = clip.transformer.get_cast_dtype()
    x = clip.token_embedding(tokens[new]).to(dtype)  # (M, C)
    x = x + clip.positional_embedding[positions.expand_as(tokens)[new]].to(dtype)
    x = x[None]
    for block in clip.transformer.resblocks:
        x = run_block(block, x, attention=attend)
    return _project(clip, x[0, node.gather(1, ends[:, None])[:, 0]])


def _project(clip: CLIP, x: Tensor) -> Tensor:
    x = clip.ln_final(x)  # (N, C)
    if isinstance(clip.text_projection, nn.Linear):
        return clip.text_projection(x)
    return x @ clip.text_projection


def encode_texts(clip: CLIP, texts: Sequence[str], *, chunk_size: int = 256) -> Tensor:
    """Tokenize and encode texts, those that begin alike together.

    Args:
        clip: as for `encode_tokens`.
        texts: N strings.
        chunk_size: texts per forward pass; bounds the memory.

    Returns:
        (N, D) features in the order of `texts`, not normalised, on the CLIP's device.
    """
    if chunk_size < 1:
        raise ValueError(f"expected a chunk size of at least 1, got {chunk_size}")
    device = clip.positional_embedding.device
    tokens = tokenize(texts, clip.context_length)
    if not len(tokens):
        return encode_tokens(clip, tokens.to(device))
    attentions = [block.attn for block in clip.transformer.resblocks]
    plain = all(isinstance(attention, nn.MultiheadAttention) for attention in attentions)
    encode = encode_beginnings if plain else encode_tokens
    order = torch.from_numpy(np.lexsort(tokens.T.flip(0).numpy()))
    chunks = [encode(clip, chunk) for chunk in tokens[order].to(device).split(chunk_size)]
    return torch.cat(chunks)[order.argsort().to(device)]
