"""Swin Transformer backbone.

Source: Liu et al., "Swin Transformer: Hierarchical Vision Transformer using Shifted Windows",
ICCV 2021 (sections 3.1-3.3), with one LayerNorm per output as used for dense prediction.
Written from the paper; parameter names follow the released checkpoints.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from ovseg.d2.config import CfgNode, configurable
from ovseg.d2.layers import ShapeSpec
from ovseg.d2.modeling import BACKBONE_REGISTRY, Backbone

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


class Mlp(nn.Module):
    """Two linear layers with an exact GELU between them."""

    def __init__(self, *, dim: int, hidden: int, drop: float = 0.0) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)
        self.drop = nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (..., C) to (..., C)."""
        return self.drop(self.fc2(self.drop(F.gelu(self.fc1(x)))))


class SwinBlock(nn.Module):
    """Window attention and an MLP, each with a pre-norm and a residual connection.

    Args:
        dim: token width C.
        heads: attention heads.
        window: side of a window in tokens.
        shift: cyclic shift in tokens, 0 for none.
        mlp_ratio: hidden width of the MLP divided by `dim`.
        drop: dropout of projection and MLP.
        drop_path: probability of dropping a residual branch of a sample.
        attention: further arguments of `WindowAttention`.
    """

    def __init__(
        self,
        *,
        dim: int,
        heads: int,
        window: int,
        shift: int,
        mlp_ratio: float,
        drop: float,
        drop_path: float,
        attention: Mapping[str, Any],
    ) -> None:
        super().__init__()
        self.window = window
        self.shift = shift
        self.norm1 = nn.LayerNorm(dim)
        self.attn = WindowAttention(
            dim=dim, heads=heads, window=window, proj_drop=drop, **attention
        )
        self.drop_path = StochasticDepth(drop_path, mode="row")
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim=dim, hidden=int(dim * mlp_ratio), drop=drop)

    def attend(self, x: Tensor, mask: Tensor) -> Tensor:
        """Window attention over a map.

        Args:
            x: (B, H, W, C).
            mask: (nW, N, N) shift mask of the padded map; used by shifted blocks.

        Returns:
            (B, H, W, C).
        """
        height, width = x.shape[1:3]
        # Padding follows the norm, so padded tokens are zeros that take part in the attention.
        x = pad_to_multiple(x, self.window)
        padded = x.shape[1:3]
        if self.shift:
            x = x.roll((-self.shift, -self.shift), dims=(1, 2))
        windows = window_partition(x, self.window)  # (B * nW, N, C)
        windows = self.attn(windows, mask if self.shift else None)
        x = window_reverse(windows, self.window, *padded)
        if self.shift:
            x = x.roll((self.shift, self.shift), dims=(1, 2))
        return x[:, :height, :width]

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Applies the block to (B, H, W, C); see `attend` for `mask`."""
        x = x + self.drop_path(self.attend(self.norm1(x), mask))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class PatchMerging(nn.Module):
    """Halves the resolution and doubles the width."""

    def __init__(self, *, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim)
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, H, W, C) to (B, ceil(H / 2), ceil(W / 2), 2C)."""
        x = pad_to_multiple(x, 2)
        corners = (x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2])
        return self.reduction(self.norm(torch.cat(corners, dim=-1)))


class SwinStage(nn.Module):
    """Blocks of one resolution, alternately unshifted and shifted, then an optional merging.

    Args:
        dim: token width C.
        drop_paths: one probability per block; its length is the depth.
        window: side of a window in tokens.
        downsample: whether a `PatchMerging` follows.
        block: further arguments of `SwinBlock`.
    """

    def __init__(
        self,
        *,
        dim: int,
        drop_paths: Sequence[float],
        window: int,
        downsample: bool,
        block: Mapping[str, Any],
    ) -> None:
        super().__init__()
        self.window = window
        self.blocks = nn.ModuleList(
            SwinBlock(
                dim=dim,
                window=window,
                shift=window // 2 if index % 2 else 0,
                drop_path=probability,
                **block,
            )
            for index, probability in enumerate(drop_paths)
        )
        self.downsample = PatchMerging(dim=dim) if downsample else None

    def forward(self, x: Tensor) -> Tensor:
        """Applies the blocks, without the merging, to (B, H, W, C)."""
        height, width = (-(-side // self.window) * self.window for side in x.shape[1:3])
        mask = shift_mask(height, width, self.window, self.window // 2, x.device)
        for block in self.blocks:
            x = block(x, mask)
        return x


class PatchEmbed(nn.Module):
    """Non-overlapping patches to tokens."""

    def __init__(self, *, patch: int, in_channels: int, dim: int, norm: bool) -> None:
        super().__init__()
        self.patch = patch
        self.proj = nn.Conv2d(in_channels, dim, kernel_size=patch, stride=patch)
        self.norm = nn.LayerNorm(dim) if norm else nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        """Maps (B, 3, H, W) to (B, ceil(H / patch), ceil(W / patch), C)."""
        height, width = images.shape[-2:]
        images = F.pad(images, (0, -width % self.patch, 0, -height % self.patch))
        return self.norm(self.proj(images).permute(0, 2, 3, 1))


@BACKBONE_REGISTRY.register()
class D2SwinTransformer(Backbone):
    """Swin Transformer with features of strides 4, 8, 16 and 32.

    Args:
        pretrain_image_size: input side of the pre-training; sizes the absolute embedding.
        patch_size: side of a patch in pixels.
        in_channels: image channels.
        embed_dim: width of the first stage; doubles per stage.
        depths: blocks per stage.
        num_heads: attention heads per stage.
        window_size: side of a window in tokens.
        mlp_ratio: hidden width of an MLP divided by its width.
        qkv_bias: whether query, key and value projections have a bias.
        qk_scale: factor on the attention scores; None means head_dim ** -0.5.
        drop_rate: dropout of projections and MLPs.
        attn_drop_rate: dropout on attention weights.
        drop_path_rate: stochastic depth of the last block, rising linearly from 0.
        absolute_embedding: whether to add a learned absolute position embedding.
        patch_norm: whether a LayerNorm follows the patch embedding.
        out_features: which of res2, res3, res4, res5 to return.
    """

    @configurable
    def __init__(
        self,
        *,
        pretrain_image_size: int,
        patch_size: int,
        in_channels: int,
        embed_dim: int,
        depths: Sequence[int],
        num_heads: Sequence[int],
        window_size: int,
        mlp_ratio: float,
        qkv_bias: bool,
        qk_scale: float | None,
        drop_rate: float,
        attn_drop_rate: float,
        drop_path_rate: float,
        absolute_embedding: bool,
        patch_norm: bool,
        out_features: Sequence[str],
    ) -> None:
        super().__init__()
        if len(depths) != 4 or len(num_heads) != 4:
            raise ValueError(
                f"Expected four stages, got depths {list(depths)} and heads {list(num_heads)}; "
                "set MODEL.SWIN.DEPTHS and MODEL.SWIN.NUM_HEADS to four numbers each."
            )
        self.patch_embed = PatchEmbed(
            patch=patch_size, in_channels=in_channels, dim=embed_dim, norm=patch_norm
        )
        self.absolute_pos_embed = None
        if absolute_embedding:
            side = pretrain_image_size // patch_size
            self.absolute_pos_embed = nn.Parameter(torch.zeros(1, embed_dim, side, side))
            nn.init.trunc_normal_(self.absolute_pos_embed, std=0.02)
        self.pos_drop = nn.Dropout(drop_rate)
        widths = [embed_dim * 2**stage for stage in range(4)]
        drop_paths = torch.linspace(0, drop_path_rate, sum(depths), device="cpu").split(
            list(depths)
        )
        attention = {"qkv_bias": qkv_bias, "qk_scale": qk_scale, "attn_drop": attn_drop_rate}
        self.layers = nn.ModuleList(
            SwinStage(
                dim=widths[stage],
                drop_paths=drop_paths[stage].tolist(),
                window=window_size,
                downsample=stage < 3,
                block={
                    "heads": num_heads[stage],
                    "mlp_ratio": mlp_ratio,
                    "drop": drop_rate,
                    "attention": attention,
                },
            )
            for stage in range(4)
        )
        names = [f"res{stage + 2}" for stage in range(4)]
        self._out_features = [name for name in names if name in out_features]
        self._out_feature_strides = {
            name: patch_size * 2**stage for stage, name in enumerate(names)
        }
        self._out_feature_channels = dict(zip(names, widths, strict=True))
        for stage, name in enumerate(names):
            if name in self._out_features:
                self.add_module(f"norm{stage}", nn.LayerNorm(widths[stage]))
        self.apply(_init_linear)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict[str, Any]:
        """Reads MODEL.SWIN."""
        swin = cfg.MODEL.SWIN
        if swin.NORM_INDICES is not None or swin.PROJECTION:
            raise ValueError(
                "Expected MODEL.SWIN.NORM_INDICES None and MODEL.SWIN.PROJECTION False, got "
                f"{swin.NORM_INDICES} and {swin.PROJECTION}; this backbone has one LayerNorm per "
                "output and no projection, as in every released model."
            )
        return {
            "pretrain_image_size": swin.PRETRAIN_IMG_SIZE,
            "patch_size": swin.PATCH_SIZE,
            "in_channels": input_shape.channels,
            "embed_dim": swin.EMBED_DIM,
            "depths": swin.DEPTHS,
            "num_heads": swin.NUM_HEADS,
            "window_size": swin.WINDOW_SIZE,
            "mlp_ratio": swin.MLP_RATIO,
            "qkv_bias": swin.QKV_BIAS,
            "qk_scale": swin.QK_SCALE,
            "drop_rate": swin.DROP_RATE,
            "attn_drop_rate": swin.ATTN_DROP_RATE,
            "drop_path_rate": swin.DROP_PATH_RATE,
            "absolute_embedding": swin.APE,
            "patch_norm": swin.PATCH_NORM,
            "out_features": swin.OUT_FEATURES,
        }

    @property
    def size_divisibility(self) -> int:
        """Divisor of the input size that keeps all strides exact."""
        return 32

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Computes the feature pyramid.

        Args:
            images: (B, 3, H, W) normalised; any size.

        Returns:
            Name to (B, C, H / stride, W / stride), sides rounded up.
        """
        x = self.patch_embed(images)  # (B, H / 4, W / 4, C)
        if self.absolute_pos_embed is not None:
            embedding = F.interpolate(
                self.absolute_pos_embed, size=x.shape[1:3], mode="bicubic", align_corners=False
            )
            x = x + embedding.permute(0, 2, 3, 1)
        x = self.pos_drop(x)
        outputs: dict[str, Tensor] = {}
        for stage, layer in enumerate(self.layers):
            x = layer(x)
            name = f"res{stage + 2}"
            if name in self._out_features:
                normed = getattr(self, f"norm{stage}")(x)
                outputs[name] = normed.permute(0, 3, 1, 2).contiguous()  # (B, C, h, w)
            if layer.downsample is not None:
                x = layer.downsample(x)
        return outputs


def _init_linear(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
