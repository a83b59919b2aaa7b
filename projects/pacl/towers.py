"""Frozen encoders: the tokens of a picture's patches, at any stride."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ovseg.clip import CLIP_PIXEL_MEAN, CLIP_PIXEL_STD, MaskPromptedCLIP, PatchEncoder
from ovseg.weights.find import RANDOM, find_weights
from ovseg.weights.load import load_strict, read_state_dict

__all__ = ["CLIPTower", "ImageTower", "TimmTower"]


class ImageTower(nn.Module, ABC):
    """A frozen image encoder; it stays in evaluation mode.

    Attributes:
        width: channels of a token.
        patch_size: side of a patch, pixels.
        pixel_mean: RGB, 0-255, of the pictures that it takes.
        pixel_std: likewise.
    """

    width: int
    patch_size: int
    pixel_mean: Sequence[float]
    pixel_std: Sequence[float]

    def train(self, mode: bool = True) -> ImageTower:
        """Stays in evaluation mode."""
        return super().train(False)

    @abstractmethod
    def tokens(self, images: Tensor, stride: int | None) -> Tensor:
        """Computes the tokens of the patches, see `forward`."""

    @torch.no_grad()
    def forward(self, images: Tensor, *, stride: int | None = None) -> Tensor:
        """Encodes pictures.

        Args:
            images: (B, 3, H, W), normalised.
            stride: step between patches in pixels; None for the encoder's own. The grid has
                (H - patch size) // stride + 1 rows.

        Returns:
            (B, width, h, w), after the encoder's last normalisation, without the class token.
        """
        return self.tokens(images, stride)


class CLIPTower(ImageTower):
    """The image tower of a CLIP, before its projection.

    Args:
        clip: its image tower is shared, not copied.
    """

    def __init__(self, clip: MaskPromptedCLIP) -> None:
        super().__init__()
        self.visual = clip.visual
        self.width = clip.visual.conv1.out_channels
        self.patch_size = clip.visual.patch_size[0]
        self.pixel_mean, self.pixel_std = CLIP_PIXEL_MEAN, CLIP_PIXEL_STD

    def tokens(self, images: Tensor, stride: int | None) -> Tensor:
        """Computes the tokens after `ln_post`."""
        return PatchEncoder(self.visual, output="ln_post", stride=stride)(images).features


class _StridedPatches(nn.Module):
    """The patch embedding of a ViT of timm at a stride that can be set; gives (B, h, w, C)."""

    proj: nn.Conv2d
    norm: nn.Module

    def __init__(self, embed: Any) -> None:
        super().__init__()
        self.proj, self.norm = embed.proj, embed.norm
        self.stride: tuple[int, int] = embed.proj.stride
        self.grid_size = embed.grid_size  # of the position embedding, which timm interpolates

    def forward(self, images: Tensor) -> Tensor:
        patches = F.conv2d(images, self.proj.weight, self.proj.bias, stride=self.stride)
        return self.norm(patches.permute(0, 2, 3, 1))


class TimmTower(ImageTower):
    """A Vision Transformer of timm, such as DINO's.

    Args:
        name: as `timm.create_model` takes it.
        weights: "pretrained" lets timm download them, "random", or a file in timm's naming.

    Raises:
        ValueError: the model is no plain Vision Transformer.
        WeightsError: the file does not fit.
    """

    def __init__(self, name: str, weights: str = "pretrained") -> None:
        super().__init__()
        try:  # positions are interpolated to the grid of each call
            vit: Any = timm.create_model(
                name, pretrained=weights == "pretrained", num_classes=0, dynamic_img_size=True
            )
        except TypeError:  # of a network that knows no such option
            vit = None
        if not isinstance(vit, timm.models.VisionTransformer):
            raise ValueError(
                "MODEL.PACL.DINO_MODEL: expected a Vision Transformer of timm, such as "
                f"vit_base_patch16_224.dino, got {name!r}, which is none"
            )
        if weights not in ("pretrained", RANDOM):
            load_strict(vit, read_state_dict(find_weights(weights)))
        vit.patch_embed = _StridedPatches(vit.patch_embed)
        self.vit = vit
        self.width = vit.embed_dim
        self.patch_size = vit.patch_embed.proj.kernel_size[0]
        data = timm.data.resolve_model_data_config(vit)
        self.pixel_mean = tuple(255 * value for value in data["mean"])
        self.pixel_std = tuple(255 * value for value in data["std"])

    def tokens(self, images: Tensor, stride: int | None) -> Tensor:
        """Computes the tokens after the last normalisation."""
        embed = self.vit.patch_embed
        embed.stride = embed.proj.stride if stride is None else (stride, stride)
        size = [
            (pixels - self.patch_size) // step + 1
            for pixels, step in zip(images.shape[2:], embed.stride, strict=True)
        ]
        tokens = self.vit.forward_features(images)[:, self.vit.num_prefix_tokens :]  # (B, h * w, C)
        return tokens.transpose(1, 2).unflatten(2, size)
