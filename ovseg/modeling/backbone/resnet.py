"""ResNet with a three-convolution stem (ResNet-c), as DeepLab uses it.

Sources: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016; Chen et al.,
"Rethinking Atrous Convolution for Semantic Image Segmentation", 2017 (multi-grid dilation of the
last stage). Parameter names follow Detectron2, so its converted weights fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from fvcore.nn import weight_init
from torch import Tensor, nn

from ovseg.d2.config import CfgNode, configurable
from ovseg.d2.layers import Conv2d, ShapeSpec, get_norm
from ovseg.d2.modeling import BACKBONE_REGISTRY, Backbone

BLOCKS_BY_DEPTH = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
STAGES = ("res2", "res3", "res4", "res5")


def _conv(
    in_channels: int,
    out_channels: int,
    *,
    kernel: int,
    norm: str,
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
) -> nn.Module:
    conv = Conv2d(
        in_channels,
        out_channels,
        kernel_size=kernel,
        stride=stride,
        padding=dilation * (kernel // 2),
        dilation=dilation,
        groups=groups,
        bias=False,
        norm=get_norm(norm, out_channels),
    )
    weight_init.c2_msra_fill(conv)
    return conv


class DeepLabStem(nn.Module):
    """Three 3x3 convolutions and a max-pool; stride 4.

    Args:
        in_channels: image channels.
        out_channels: output channels; the first two convolutions have half of them.
        norm: normalisation of the convolutions.
    """

    def __init__(self, *, in_channels: int, out_channels: int, norm: str) -> None:
        super().__init__()
        half = out_channels // 2
        self.conv1 = _conv(in_channels, half, kernel=3, stride=2, norm=norm)
        self.conv2 = _conv(half, half, kernel=3, norm=norm)
        self.conv3 = _conv(half, out_channels, kernel=3, norm=norm)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, 3, H, W) to (B, out_channels, H / 4, W / 4)."""
        for conv in (self.conv1, self.conv2, self.conv3):
            x = F.relu(conv(x))
        return F.max_pool2d(x, kernel_size=3, stride=2, padding=1)


class BasicStem(nn.Module):
    """One 7x7 convolution and a max-pool; stride 4.

    Args: as `DeepLabStem`.
    """

    def __init__(self, *, in_channels: int, out_channels: int, norm: str) -> None:
        super().__init__()
        self.conv1 = _conv(in_channels, out_channels, kernel=7, stride=2, norm=norm)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, 3, H, W) to (B, out_channels, H / 4, W / 4)."""
        return F.max_pool2d(F.relu(self.conv1(x)), kernel_size=3, stride=2, padding=1)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolution around a residual connection.

    Args:
        in_channels: input channels.
        width: channels of the 3x3 convolution.
        out_channels: output channels.
        stride: stride of the block.
        dilation: dilation of the 3x3 convolution.
        groups: groups of the 3x3 convolution.
        stride_in_1x1: whether the first 1x1 instead of the 3x3 convolution has the stride.
        norm: normalisation of the convolutions.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        width: int,
        out_channels: int,
        stride: int,
        dilation: int,
        groups: int,
        stride_in_1x1: bool,
        norm: str,
    ) -> None:
        super().__init__()
        first, second = (stride, 1) if stride_in_1x1 else (1, stride)
        self.shortcut = None
        if in_channels != out_channels:
            self.shortcut = _conv(in_channels, out_channels, kernel=1, stride=stride, norm=norm)
        self.conv1 = _conv(in_channels, width, kernel=1, stride=first, norm=norm)
        self.conv2 = _conv(
            width, width, kernel=3, stride=second, dilation=dilation, groups=groups, norm=norm
        )
        self.conv3 = _conv(width, out_channels, kernel=1, norm=norm)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, in_channels, H, W) to (B, out_channels, H / stride, W / stride)."""
        residual = x if self.shortcut is None else self.shortcut(x)
        x = F.relu(self.conv1(x))
        x = F.relu(self.conv2(x))
        return F.relu(self.conv3(x) + residual)


class ResNet(Backbone):
    """Bottleneck ResNet with features res2 to res5.

    Args:
        stem: maps images to `stem_channels` channels at stride 4.
        stem_channels: output channels of the stem.
        blocks: blocks per stage, four numbers.
        width: 3x3 channels of the first stage; doubles per stage.
        out_channels: output channels of the first stage; doubles per stage.
        dilations: dilation of every block of each stage.
        strides: stride of the first block of each stage.
        groups: groups of the 3x3 convolutions.
        stride_in_1x1: see `Bottleneck`.
        norm: normalisation of the convolutions, e.g. "FrozenBN".
        out_features: which of res2, res3, res4, res5 to return.
        freeze_at: 0 trains everything, 1 freezes the stem, 2 also res2, and so on.
    """

    def __init__(
        self,
        *,
        stem: nn.Module,
        stem_channels: int,
        blocks: Sequence[int],
        width: int,
        out_channels: int,
        dilations: Sequence[Sequence[int]],
        strides: Sequence[int],
        groups: int,
        stride_in_1x1: bool,
        norm: str,
        out_features: Sequence[str],
        freeze_at: int,
    ) -> None:
        super().__init__()
        self.stem = stem
        self._out_features = [name for name in STAGES if name in out_features]
        self._out_feature_channels: dict[str, int] = {}
        self._out_feature_strides: dict[str, int] = {}
        in_channels, total_stride = stem_channels, 4
        # Stages behind the last requested feature would be parameters without gradients.
        self._stages = STAGES[: STAGES.index(self._out_features[-1]) + 1]
        for index, name in enumerate(self._stages):
            channels = out_channels * 2**index
            layers = [
                Bottleneck(
                    in_channels=in_channels if block == 0 else channels,
                    width=width * 2**index,
                    out_channels=channels,
                    stride=strides[index] if block == 0 else 1,
                    dilation=dilations[index][block],
                    groups=groups,
                    stride_in_1x1=stride_in_1x1,
                    norm=norm,
                )
                for block in range(blocks[index])
            ]
            self.add_module(name, nn.Sequential(*layers))
            in_channels, total_stride = channels, total_stride * strides[index]
            self._out_feature_channels[name] = channels
            self._out_feature_strides[name] = total_stride
        for name in ("stem", *self._stages)[:freeze_at]:
            _freeze(getattr(self, name))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Computes the feature pyramid.

        Args:
            images: (B, 3, H, W) normalised.

        Returns:
            Name to (B, C, H / stride, W / stride).
        """
        outputs: dict[str, Tensor] = {}
        x = self.stem(images)
        for name in self._stages:
            x = getattr(self, name)(x)
            if name in self._out_features:
                outputs[name] = x
        return outputs


class ResNetDeepLab(ResNet):
    """`ResNet` built from MODEL.RESNETS."""

    @configurable
    def __init__(self, **parts: Any) -> None:
        super().__init__(**parts)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict[str, Any]:
        """Reads MODEL.RESNETS and MODEL.BACKBONE.FREEZE_AT."""
        net = cfg.MODEL.RESNETS
        _check(net)
        stem_class = {"basic": BasicStem, "deeplab": DeepLabStem}[net.STEM_TYPE]
        blocks = BLOCKS_BY_DEPTH[net.DEPTH]
        stage_dilations = (1, 1, net.RES4_DILATION, net.RES5_DILATION)
        grids = [(1,) * count for count in blocks[:3]] + [tuple(net.RES5_MULTI_GRID)]
        return {
            "stem": stem_class(
                in_channels=input_shape.channels or 3,
                out_channels=net.STEM_OUT_CHANNELS,
                norm=net.NORM,
            ),
            "stem_channels": net.STEM_OUT_CHANNELS,
            "blocks": blocks,
            "width": net.NUM_GROUPS * net.WIDTH_PER_GROUP,
            "out_channels": net.RES2_OUT_CHANNELS,
            "dilations": [
                [dilation * step for step in grid]
                for dilation, grid in zip(stage_dilations, grids, strict=True)
            ],
            "strides": [1] + [1 if dilation > 1 else 2 for dilation in stage_dilations[1:]],
            "groups": net.NUM_GROUPS,
            "stride_in_1x1": net.STRIDE_IN_1X1,
            "norm": net.NORM,
            "out_features": net.OUT_FEATURES,
            "freeze_at": cfg.MODEL.BACKBONE.FREEZE_AT,
        }


def _check(net: CfgNode) -> None:
    """Rejects MODEL.RESNETS values that this backbone does not have."""
    choices = {
        "DEPTH": tuple(BLOCKS_BY_DEPTH),
        "STEM_TYPE": ("basic", "deeplab"),
        "RES4_DILATION": (1, 2),
        "RES5_DILATION": (1, 2, 4),
    }
    for key, valid in choices.items():
        if net[key] not in valid:
            raise ValueError(f"MODEL.RESNETS.{key}: expected one of {valid}, got {net[key]!r}.")
    if any(net.DEFORM_ON_PER_STAGE):
        raise ValueError(
            "MODEL.RESNETS.DEFORM_ON_PER_STAGE: expected all False, got "
            f"{list(net.DEFORM_ON_PER_STAGE)}; deformable convolutions are not implemented."
        )


def _freeze(module: nn.Module) -> None:
    """Stops training of parameters and batch-norm statistics, in place."""
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.modules.batchnorm._BatchNorm):
                frozen = get_norm("FrozenBN", child.num_features)
                assert frozen is not None
                frozen.load_state_dict(child.state_dict(), strict=False)
                setattr(parent, name, frozen)


@BACKBONE_REGISTRY.register()
def build_ovseg_resnet_deeplab_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> ResNet:
    """Builds the backbone of MODEL.RESNETS.

    Args:
        cfg: full configuration.
        input_shape: its channels are the image channels.

    Returns:
        The backbone.
    """
    return ResNetDeepLab(cfg, input_shape)
