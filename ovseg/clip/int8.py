"""Image towers whose matrix products are of 8-bit integers.

Weights are rounded to 8 bits per output channel, the tokens that come in to 7 bits per token, each
by its own largest value; sums are exact, and biases, normalisation and attention stay as they are.
Seven bits, because without special instructions (VNNI) a CPU adds pairs of products in 16 bits,
which two products of 8 bits can exceed: 2 * 127 * 127 fits.
"""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
import torch.nn.functional as F
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn

_HALF = 63  # tokens are in -63..63, kept as 1..127
_ZERO = 64

Tower = TypeVar("Tower", bound=VisionTransformer)


def has_int8(device: torch.device) -> bool:
    """Tell whether integers are multiplied here: torch has oneDNN's operator for CPUs alone."""
    known = torch.backends.mkldnn.is_available() and hasattr(torch.ops.onednn, "qlinear_pointwise")
    return device.type == "cpu" and known


class Int8Linear(nn.Module):
    """A linear layer of 8-bit weights.

    Args:
        weight: (out, in) float32.
        bias: (out,) float32.
    """

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        weight = weight.detach().float()
        self._scales = weight.abs().amax(1).clamp(min=1e-12) / 127
        rounded = (weight / self._scales[:, None]).round().to(torch.int8)
        self._packed = torch.ops.onednn.qlinear_prepack(rounded, None)
        self._zeros = torch.zeros(len(weight), dtype=torch.int64)
        self._bias = bias.detach().float()

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., in) to (..., out), float32."""
        flat = x.flatten(0, -2)
        largest = torch.linalg.vector_norm(flat, torch.inf, dim=-1, keepdim=True).clamp_(min=1e-12)
        tokens = torch.mul(flat, _HALF / largest).add_(_ZERO + 0.5).to(torch.uint8)
        product = torch.ops.onednn.qlinear_pointwise(
            *(tokens, 1 / _HALF, _ZERO, self._packed, self._scales, self._zeros, None, 1.0, 0),
            *(torch.float32, "none", [], ""),
        )
        return product.mul_(largest).add_(self._bias).unflatten(0, x.shape[:-1])


class Int8Attention(nn.Module):
    """The projections of a block's attention.

    Args:
        attention: of the block.
    """

    def __init__(self, attention: nn.MultiheadAttention) -> None:
        super().__init__()
        self.num_heads = attention.num_heads
        self.in_projection = Int8Linear(attention.in_proj_weight, attention.in_proj_bias)
        self.out_proj = Int8Linear(attention.out_proj.weight, attention.out_proj.bias)


def int8_copy(visual: Tower) -> Tower:
    """Copy an image tower, with the products of all blocks but the last in integers.

    Args:
        visual: of open_clip's plain blocks, in evaluation mode. All that is not rounded is shared
            with it.

    Returns:
        The copy.
    """
    twin = copy.deepcopy(visual, {id(p): p for p in visual.parameters()})
    for block in twin.transformer.resblocks[:-1]:
        block.attn = Int8Attention(block.attn)
        for name in ("c_fc", "c_proj"):
            layer = getattr(block.mlp, name)
            setattr(block.mlp, name, Int8Linear(layer.weight, layer.bias))
    return twin


def in_projection(attention: nn.MultiheadAttention | Int8Attention, x: Tensor) -> Tensor:
    """Project tokens (B, T, C) to queries, keys and values, (B, T, 3C)."""
    if isinstance(attention, Int8Attention):
        return attention.in_projection(x)
    return F.linear(x, attention.in_proj_weight, attention.in_proj_bias)
