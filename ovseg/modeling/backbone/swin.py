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
from ovseg.modeling.backbone.window_attention import (
    WindowAttention,
    pad_to_multiple,
    shift_mask,
    window_partition,
    window_reverse,
)


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

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Applies the blocks, then the merging.

        Args:
            x: (B, H, W, C).

        Returns:
            The blocks' output (B, H, W, C), and the next stage's input: the same without, or
            (B, ceil(H / 2), ceil(W / 2), 2C) with a merging.
        """
        height, width = (-(-side // self.window) * self.window for side in x.shape[1:3])
        mask = shift_mask(height, width, self.window, self.window // 2, x.device)
        for block in self.blocks:
            x = block(x, mask)
        return x, x if self.downsample is None else self.downsample(x)


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
        self.absolute_pos_embed: nn.Parameter | None = None
        if absolute_embedding:
            side = pretrain_image_size // patch_size
            self.absolute_pos_embed = nn.Parameter(torch.zeros(1, embed_dim, side, side))
            nn.init.trunc_normal_(self.absolute_pos_embed, std=0.02)
        self.pos_drop = nn.Dropout(drop_rate)
        attention = {"qkv_bias": qkv_bias, "qk_scale": qk_scale, "attn_drop": attn_drop_rate}
        block = {"mlp_ratio": mlp_ratio, "drop": drop_rate, "attention": attention}
        widths = [embed_dim * 2**stage for stage in range(4)]
        self.layers = nn.ModuleList(
            SwinStage(
                dim=widths[stage],
                drop_paths=drop_paths,
                window=window_size,
                downsample=stage < 3,
                block=block | {"heads": num_heads[stage]},
            )
            for stage, drop_paths in enumerate(_drop_paths(drop_path_rate, depths))
        )
        self._set_outputs(widths, patch_size, out_features)
        self.apply(_init_linear)

    def _set_outputs(self, widths: Sequence[int], stride: int, wanted: Sequence[str]) -> None:
        """Describes the features and gives each of those that are returned its norm."""
        names = [f"res{stage + 2}" for stage in range(4)]
        self._out_features = [name for name in names if name in wanted]
        self._out_feature_strides = {name: stride * 2**i for i, name in enumerate(names)}
        self._out_feature_channels = dict(zip(names, widths, strict=True))
        for stage, name in enumerate(names):
            if name in self._out_features:
                self.add_module(f"norm{stage}", nn.LayerNorm(widths[stage]))

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
            features, x = layer(x)
            name = f"res{stage + 2}"
            if name in self._out_features:
                features = getattr(self, f"norm{stage}")(features)
                outputs[name] = features.permute(0, 3, 1, 2).contiguous()  # (B, C, h, w)
        return outputs


def _drop_paths(last: float, depths: Sequence[int]) -> list[list[float]]:
    """Probabilities of stochastic depth per block and stage, rising linearly from 0 to `last`."""
    steps = torch.linspace(0, last, sum(depths), device="cpu").split(list(depths))
    return [stage.tolist() for stage in steps]


def _init_linear(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
