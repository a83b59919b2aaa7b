"""Text to features, without encoding padding.

The text tower is causal and its feature is read at the end-of-text token, so nothing after that
token can change the result. CLIP pads every text to 77 tokens; class names with a template have
about 10. Leaving out what lies behind the longest text of a batch is therefore exact and most of
the cost is gone.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from open_clip import CLIP
from open_clip import tokenize as open_clip_tokenize
from torch import Tensor

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
    x = clip.ln_final(x[torch.arange(len(x), device=x.device), ends])  # (N, C)
    if isinstance(clip.text_projection, torch.nn.Linear):
        return clip.text_projection(x)
    return x @ clip.text_projection


def encode_texts(clip: CLIP, texts: Sequence[str], *, chunk_size: int = 256) -> Tensor:
    """Tokenize and encode texts, those of similar length together.

    Args:
        clip: as for `encode_tokens`.
        texts: N strings.
        chunk_size: texts per forward pass; bounds the memory.

    Returns:
        (N, D) features in the order of `texts`, not normalised, on the CLIP's device.
    """
    if chunk_size < 1:
        raise ValueError(f"expected a chunk size of at least 1, got {chunk_size}")
    tokens = tokenize(texts, clip.context_length)
    order = tokens.argmax(dim=-1).argsort(stable=True)
    sorted_tokens = tokens[order].to(clip.positional_embedding.device)
    chunks = [encode_tokens(clip, chunk) for chunk in sorted_tokens.split(chunk_size)]
    return torch.cat(chunks)[order.argsort().to(sorted_tokens.device)]
