"""Patch features of open_clip's Vision Transformers: one vector per patch instead of one per image.

An image of any size goes in: the position embedding is interpolated to its grid, and a smaller
stride gives overlapping patches. What the last block's attention does can be replaced, which is
what most training-free methods of dense CLIP change. The model itself is not touched.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn

from ovseg.clip.blocks import check_plain_attention, run_block

Output = Literal["block", "ln_post", "proj"]
_OUTPUTS = ("block", "ln_post", "proj")


class PatchAttention(Protocol):
    """Another attention for the last block."""

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, *, grid: tuple[int, int]) -> Tensor:
        """Mix the values.

        Args:
            q: (B, heads, 1 + h * w, d), the class token first, then the patches row by row; not
                scaled.
            k: the same shape.
            v: the same shape.
            grid: (h, w).

        Returns:
            The same shape.
        """


@dataclass(frozen=True)
class PatchFeatures:
    """What a tower says of the patches of a batch of images.

    Args:
        features: (B, D, h, w), not normalised.
        pooled: (B, D), what the tower makes of the whole image, not normalised: the class token's
            feature, or the mean over the patches where the tower was trained that way.
    """

    features: Tensor
    pooled: Tensor

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w), the number of patches in either direction."""
        return self.features.shape[-2], self.features.shape[-1]


@dataclass(frozen=True)
class PatchEncoder:
    """Images to patch features, by any Vision Transformer of open_clip.

    With the defaults and images of the tower's size, `pooled` is what the tower returns. Patch
    dropout is not applied: a grid has no holes.

    Args:
        visual: the image tower, such as `clip.visual`. It is held, not copied and not registered as
            a submodule: gradients and devices stay the business of the model that owns it.
        output: "proj" for features in the space of the texts (D = embed_dim); "ln_post" for those
            after the final normalisation, before the projection (D = width); "block" for what the
            last block puts out (D = width).
        attention: what the last block does with its queries, keys and values; None for attention
            as the tower was trained.
        attention_only: leave out the last block's residual connections and MLP, so that its output
            is that of its attention alone.
        stride: step between patches in pixels, None for the patch size. Below it patches overlap.
        antialias: see `interpolate_positions`.
        scale_offset: see `interpolate_positions`.

    Raises:
        ValueError: if the tower is not a Vision Transformer of open_clip, pools by attention or not
            at all, or has a last block whose attention cannot be replaced; or if `output` or
            `stride` is not valid.
    """

    visual: VisionTransformer
    _: KW_ONLY
    output: Output = "proj"
    attention: PatchAttention | None = None
    attention_only: bool = False
    stride: int | None = None
    antialias: bool = False
    scale_offset: float = 0.0

    def __post_init__(self) -> None:
        check_patch_tower(self.visual)
        if self.output not in _OUTPUTS:
            raise ValueError(f"expected an output out of {', '.join(_OUTPUTS)}, got {self.output}")
        if self.attention is not None or self.attention_only:
            check_plain_attention(self.visual.transformer.resblocks[-1])

    def __call__(self, images: Tensor) -> PatchFeatures:
        """Encode images.

        Args:
            images: (B, 3, H, W) float, normalised with the tower's statistics.

        Returns:
            The features of the grid that `embed_patches` describes.

        Raises:
            ValueError: if the images have another shape or are smaller than a patch.
        """
        tokens, grid = embed_patches(
            self.visual,
            images,
            stride=self.stride,
            antialias=self.antialias,
            scale_offset=self.scale_offset,
        )  # (B, 1 + h * w, C)
        *blocks, last_block = self.visual.transformer.resblocks
        for block in blocks:
            tokens = run_block(block, tokens)
        attention = None if self.attention is None else partial(self.attention, grid=grid)
        tokens = run_block(
            last_block, tokens, attention=attention, attention_only=self.attention_only
        )
        pooled, patches = self._normalise_and_pool(tokens)
        if self.output == "proj" and self.visual.proj is not None:
            pooled, patches = pooled @ self.visual.proj, patches @ self.visual.proj
        return PatchFeatures(patches.transpose(1, 2).unflatten(-1, grid), pooled)

    def _normalise_and_pool(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        norm = nn.Identity() if self.output == "block" else self.visual.ln_post
        normalised = norm(tokens)  # (B, 1 + h * w, C)
        if self.visual.pool_type == "tok":
            pooled = normalised[:, 0]
        elif self.visual.final_ln_after_pool:
            pooled = norm(tokens[:, 1:].mean(dim=1))
        else:
            pooled = normalised[:, 1:].mean(dim=1)
        return pooled, normalised[:, 1:]


def check_patch_tower(visual: nn.Module) -> None:
    """Check that a tower has patch features.

    Args:
        visual: an image tower of open_clip.

    Raises:
        ValueError: if it is not open_clip's `VisionTransformer`, or one that pools by attention or
            not at all.
    """
    if not isinstance(visual, VisionTransformer):
        raise ValueError(
            "expected open_clip's VisionTransformer (the .visual of a CLIP such as ViT-B-16), got "
            f"{type(visual).__name__}; patch features do not exist for ResNet, ConvNeXt and timm "
            "towers"
        )
    if visual.attn_pool is not None or visual.pool_type == "none":
        kind = "attention" if visual.attn_pool is not None else "nothing at all"
        raise ValueError(
            "expected a tower that pools by its class token or by the mean over its patches, got "
            f"one that pools by {kind}; its patches are not in the space of the texts. Choose a "
            "CLIP without attentional pooling, such as ViT-B-16"
        )


def embed_patches(
    visual: VisionTransformer,
    images: Tensor,
    *,
    stride: int | None = None,
    antialias: bool = False,
    scale_offset: float = 0.0,
) -> tuple[Tensor, tuple[int, int]]:
    """Turn images into the tokens that enter the first block.

    With patch size P and stride s the grid of an image of H pixels has h = (H - P) // s + 1 rows,
    and columns likewise. Pixels beyond the last whole patch are not seen: pad the images to a
    multiple of P beforehand where they matter.

    Args:
        visual: the image tower.
        images: (B, 3, H, W) float, normalised with the tower's statistics.
        stride: step between patches in pixels, None for the patch size.
        antialias: see `interpolate_positions`.
        scale_offset: see `interpolate_positions`.

    Returns:
        tokens: (B, 1 + h * w, C), the class token first, then the patches row by row.
        grid: (h, w).

    Raises:
        ValueError: if the images have another shape or are smaller than a patch, or if the stride
            is below 1.
    """
    _check_images(images, visual.patch_size)
    if stride is not None and stride < 1:
        raise ValueError(f"expected a stride of at least 1 pixel, got {stride}")
    patches = F.conv2d(
        images.to(visual.conv1.weight.dtype),
        visual.conv1.weight,
        stride=visual.patch_size if stride is None else stride,
    )  # (B, C, h, w)
    grid = (patches.shape[2], patches.shape[3])
    tokens = patches.flatten(2).transpose(1, 2)  # (B, h * w, C)
    class_token = visual.class_embedding.to(tokens.dtype).expand(len(tokens), 1, -1)
    positions = interpolate_positions(
        visual.positional_embedding,
        visual.grid_size,
        grid,
        antialias=antialias,
        scale_offset=scale_offset,
    )
    tokens = torch.cat([class_token, tokens], dim=1) + positions.to(tokens.dtype)
    return visual.ln_pre(tokens), grid


def _check_images(images: Tensor, patch_size: tuple[int, int]) -> None:
    height, width = patch_size
    if images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f"expected images of shape (B, 3, H, W), got {tuple(images.shape)}")
    if images.shape[2] < height or images.shape[3] < width:
        raise ValueError(
            f"expected images of at least one patch ({height} x {width} pixels), got "
            f"{images.shape[2]} x {images.shape[3]}"
        )


def interpolate_positions(
    embedding: Tensor,
    native_grid: tuple[int, int],
    grid: tuple[int, int],
    *,
    antialias: bool = False,
    scale_offset: float = 0.0,
) -> Tensor:
    """Interpolate a position embedding to another grid, bicubically; the class token's row stays.

    Args:
        embedding: (1 + h0 * w0, C), the class token first.
        native_grid: (h0, w0).
        grid: (h, w). On the native grid the embedding is returned as it is.
        antialias: low-pass before shrinking.
        scale_offset: sample with the scale (h + scale_offset) / h0 instead of h / h0. DINO's code
            adds 0.1 against rounding, and methods that took it over (CorrCLIP) need the same.

    Returns:
        (1 + h * w, C), of the embedding's dtype.

    Raises:
        ValueError: if the embedding has not the rows of its grid.
    """
    height, width = native_grid
    if len(embedding) != 1 + height * width:
        raise ValueError(
            f"expected 1 + {height} x {width} rows of a position embedding, got {len(embedding)}"
        )
    if tuple(grid) == tuple(native_grid):
        return embedding
    dtype = torch.promote_types(embedding.dtype, torch.float32)
    patches = embedding[1:].to(dtype).T.reshape(1, -1, height, width)  # (1, C, h0, w0)
    if scale_offset:
        scale = ((grid[0] + scale_offset) / height, (grid[1] + scale_offset) / width)
        patches = F.interpolate(patches, scale_factor=scale, mode="bicubic", antialias=antialias)
    else:
        patches = F.interpolate(patches, size=grid, mode="bicubic", antialias=antialias)
    assert tuple(patches.shape[2:]) == tuple(grid)
    rows = patches.flatten(2)[0].T.to(embedding.dtype)  # (h * w, C)
    return torch.cat([embedding[:1], rows])
