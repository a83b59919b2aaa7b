"""Self-attention inside windows of a feature map, plain and cyclically shifted.

Source: Liu et al., "Swin Transformer: Hierarchical Vision Transformer using Shifted Windows",
ICCV 2021, section 3.2.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Added to the attention between tokens of different regions of a shifted window. A finite value:
# the released weights were trained with it, and minus infinity gives other numbers on
# feature maps smaller than a window.
SHIFT_MASK_VALUE = -100.0


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Zero-pads a channels-last map at the bottom and right.

    Args:
        x: (B, H, W, C) feature map.
        multiple: height and width of the result are multiples of this.

    Returns:
        (B, H', W', C).
    """
    height, width = x.shape[1:3]
    bottom, right = -height % multiple, -width % multiple
    return F.pad(x, (0, 0, 0, right, 0, bottom)) if bottom or right else x


def window_partition(x: Tensor, window: int) -> Tensor:
    """Cuts a map into square windows, row by row.

    Args:
        x: (B, H, W, C), H and W multiples of `window`.
        window: side of a window in tokens.

    Returns:
        (B * H/window * W/window, window * window, C).
    """
    batch, height, width, channels = x.shape
    x = x.view(batch, height // window, window, width // window, window, channels)
    return x.transpose(2, 3).reshape(-1, window * window, channels)


def window_reverse(windows: Tensor, window: int, height: int, width: int) -> Tensor:
    """Inverts `window_partition`.

    Args:
        windows: (B * H/window * W/window, window * window, C).
        window: side of a window in tokens.
        height: H of the map.
        width: W of the map.

    Returns:
        (B, H, W, C).
    """
    channels = windows.shape[-1]
    x = windows.view(-1, height // window, width // window, window, window, channels)
    return x.transpose(2, 3).reshape(-1, height, width, channels)


def shift_mask(height: int, width: int, window: int, shift: int, device: torch.device) -> Tensor:
    """Additive mask that keeps tokens which the cyclic shift brought together apart.

    Args:
        height: padded map height, a multiple of `window`.
        width: padded map width, a multiple of `window`.
        window: side of a window in tokens.
        shift: cyclic shift in tokens, 0 < shift < window.
        device: where the mask is made.

    Returns:
        (windows, window * window, window * window) float32, 0 or `SHIFT_MASK_VALUE`.

    Source: section 3.2, "Efficient batch computation for shifted configuration".
    """

    def bands(size: int) -> Tensor:
        index = torch.arange(size, device=device)
        return (index >= size - window).long() + (index >= size - shift).long()

    labels = 3 * bands(height)[:, None] + bands(width)[None, :]  # (H, W)
    labels = window_partition(labels[None, :, :, None], window).squeeze(-1)  # (nW, N)
    apart = labels[:, None, :] != labels[:, :, None]  # (nW, N, N)
    return apart.float() * SHIFT_MASK_VALUE


def relative_position_index(window: int) -> Tensor:
    """Row of the bias table for every pair of tokens of one window.

    Args:
        window: side of a window in tokens.

    Returns:
        (window**2, window**2) int64 in [0, (2 * window - 1)**2).
    """
    axis = torch.arange(window)
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="ij")).flatten(1)  # (2, N)
    offset = grid[:, :, None] - grid[:, None, :] + window - 1  # (2, N, N)
    return offset[0] * (2 * window - 1) + offset[1]


class WindowAttention(nn.Module):
    """Self-attention inside windows, with a learned bias per relative position.

    Args:
        dim: token width C.
        heads: attention heads, a divisor of `dim`.
        window: side of a window in tokens.
        qkv_bias: whether the joint projection has a bias.
        qk_scale: factor on the scores; None means head_dim ** -0.5.
        attn_drop: dropout on the attention weights.
        proj_drop: dropout after the output projection.
    """

    relative_position_index: Tensor

    def __init__(
        self,
        *,
        dim: int,
        heads: int,
        window: int,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
    ) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(
                f"Expected a width that {heads} heads divide, got {dim}; "
                "change MODEL.SWIN.EMBED_DIM or MODEL.SWIN.NUM_HEADS."
            )
        self.heads = heads
        self.scale = qk_scale
        self.attn_drop = attn_drop
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        self.register_buffer("relative_position_index", relative_position_index(window))
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)

    def position_bias(self) -> Tensor:
        """Returns the bias of every pair of tokens, (heads, N, N)."""
        index = self.relative_position_index
        bias = self.relative_position_bias_table[index.flatten()]  # (N * N, heads)
        return bias.view(*index.shape, -1).permute(2, 0, 1)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Attends inside each window.

        Args:
            x: (B * nW, N, C) windows.
            mask: (nW, N, N) additive mask, or None.

        Returns:
            (B * nW, N, C).
        """
        count, tokens, channels = x.shape
        qkv = self.qkv(x).view(count, tokens, 3, self.heads, channels // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)  # each (B * nW, heads, N, C / heads)
        bias = self.position_bias()[None]  # (1, heads, N, N)
        if mask is not None:
            bias = bias + mask[:, None]  # (nW, heads, N, N)
            if count > len(mask):
                bias = bias.repeat(count // len(mask), 1, 1, 1)  # (B * nW, heads, N, N)
        x = F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=bias.to(query.dtype).expand(count, -1, -1, -1),
            dropout_p=self.attn_drop if self.training else 0.0,
            scale=self.scale,
        )
        x = x.transpose(1, 2).reshape(count, tokens, channels)  # (B * nW, N, C)
        return self.proj_drop(self.proj(x))
