"""CLIP with a mask-prompted image tower.

Liang et al., "Open-Vocabulary Semantic Segmentation with Mask-adapted CLIP" (CVPR 2023), section
3.3. Built on open_clip's public classes; the parameter names are OpenAI CLIP's, plus
`visual.mask_embedding`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from functools import partial

import torch
import torch.nn.functional as F
from open_clip import CLIP, CLIPTextCfg, CLIPVisionCfg
from open_clip.transformer import LayerNorm, QuickGELU, VisionTransformer
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ovseg.clip.blocks import Block, run_block, run_block_for_class_token
from ovseg.clip.encoders import encode_tokens
from ovseg.clip.merging import merge_outside

# What the mask prompt assumes: one class token in front of a full grid of patch tokens.
_REQUIRED = {
    "attentional_pool": False,
    "block_type": None,
    "no_ln_pre": False,
    "patch_dropout": 0.0,
    "pool_type": "tok",
    "pos_embed_type": "learnable",
    "timm_model_name": None,
}
_PASSED_ON = ("image_size", "patch_size", "width", "layers", "mlp_ratio", "ls_init_value")


class MaskPromptedVisionTransformer(VisionTransformer):
    """CLIP's image tower, with learned tokens in place of the patches outside a mask.

    `mask_embedding[0]` replaces the patch embeddings before the class token and the positional
    embedding are added; `mask_embedding[k]` replaces the patch tokens that block k puts out.

    Args:
        vision_cfg: the tower, in open_clip's form.
        embed_dim: D, the width of the output.
        quick_gelu: use the activation of the OpenAI models.
        mask_prompt_depth: number of prompted layers, 0 (no prompt) up to the number of blocks.

    Raises:
        ValueError: if the depth is out of range or the tower is of a kind that has no patch grid.
    """

    def __init__(
        self,
        vision_cfg: CLIPVisionCfg,
        *,
        embed_dim: int,
        quick_gelu: bool,
        mask_prompt_depth: int = 0,
    ) -> None:
        _check_vision_cfg(vision_cfg, mask_prompt_depth)
        super().__init__(
            **{name: getattr(vision_cfg, name) for name in _PASSED_ON},
            heads=vision_cfg.width // vision_cfg.head_width,
            output_dim=embed_dim,
            final_ln_after_pool=vision_cfg.final_ln_after_pool,
            act_layer=QuickGELU if quick_gelu else nn.GELU,
            norm_layer=partial(LayerNorm, **(vision_cfg.norm_kwargs or {})),
        )
        patches = self.grid_size[0] * self.grid_size[1]
        self.mask_embedding = nn.Parameter(
            torch.zeros(mask_prompt_depth, patches, vision_cfg.width)
        )

    @property
    def mask_prompt_depth(self) -> int:
        """The number of prompted layers."""
        return self.mask_embedding.shape[0]

    def forward(
        self,
        images: Tensor,
        masks: Tensor | None = None,
        *,
        regions: Tensor | None = None,
        merge_after: int = 0,
    ) -> Tensor:
        """Encode images, or the regions of them that masks select.

        Args:
            images: (N, 3, S, S) float, normalised with CLIP's statistics.
            masks: (N, 1, S, S), in [0, 1], or None for the plain tower. A patch belongs to the
                region if any of its pixels is above 0. With depth 0 masks have no effect.
            regions: (N, 1, S, S), in [0, 1]: outside of them patches are merged, see
                `ovseg.clip.merging`; None merges none.
            merge_after: how many blocks come before; at least the depth of the mask prompt.

        Returns:
            (N, D) features, not normalised.

        Raises:
            ValueError: if images or masks are not of the tower's size.
        """
        self._check_inputs(images, masks)
        if regions is not None:
            return self._forward_merged(images, masks, regions, merge_after)
        if self.output_tokens and masks is None:
            return super().forward(images)
        tokens, inside = self._first_tokens(images, masks)
        *blocks, last_block = self.transformer.resblocks
        tokens = self._run_prompted(blocks, tokens, inside)
        if self.training:
            pooled = self._run(last_block, tokens)[:, 0]
        else:
            pooled = run_block_for_class_token(last_block, tokens)
        return self.ln_post(pooled) @ self.proj  # (N, D)

    def _forward_merged(
        self, images: Tensor, masks: Tensor | None, regions: Tensor, merge_after: int
    ) -> Tensor:
        *blocks, last_block = self.transformer.resblocks
        first = 1 if masks is None else max(self.mask_prompt_depth, 1)
        if not first <= merge_after <= len(blocks):
            raise ValueError(
                f"expected to merge patches after {first} to {len(blocks)} blocks, those of the "
                f"mask prompt among them, got {merge_after}"
            )
        tokens, inside = self._first_tokens(images, masks)
        tokens = self._run_prompted(blocks[:merge_after], tokens, inside)
        pack = merge_outside(tokens, self._patches_inside(regions)[..., 0], self.grid_size)
        tokens = pack.tokens
        for block in blocks[merge_after:]:
            tokens = run_block(block, tokens, attention=pack.attend)
        pooled = run_block_for_class_token(last_block, pack.padded(tokens), bias=pack.bias)
        return self.ln_post(pooled) @ self.proj  # (N, D)

    def _first_tokens(self, images: Tensor, masks: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """What enters the first block, (N, 1 + P, C), and the patches inside, (N, P, 1) or None."""
        inside = None
        if masks is not None and self.mask_prompt_depth > 0:
            inside = self._patches_inside(masks)
        tokens = self.conv1(images).flatten(2).transpose(1, 2)  # (N, P, C)
        tokens = self._prompt(tokens, inside, 0)
        class_token = self.class_embedding.to(tokens.dtype).expand(len(tokens), 1, -1)
        tokens = torch.cat([class_token, tokens], dim=1)  # (N, 1 + P, C)
        return self.ln_pre(tokens + self.positional_embedding.to(tokens.dtype)), inside

    def _run_prompted(
        self, blocks: Sequence[Block], tokens: Tensor, inside: Tensor | None
    ) -> Tensor:
        for index, block in enumerate(blocks, start=1):
            tokens = self._run(block, tokens)
            if index < self.mask_prompt_depth:
                patches = self._prompt(tokens[:, 1:], inside, index)
                tokens = torch.cat([tokens[:, :1], patches], dim=1)
        return tokens

    def _run(self, block: Block, tokens: Tensor) -> Tensor:
        if not self.training:
            return run_block(block, tokens)
        if self.transformer.grad_checkpointing:
            return checkpoint(block, tokens, use_reentrant=False)
        return block(tokens)

    def _patches_inside(self, masks: Tensor) -> Tensor:
        covered = F.max_pool2d(masks.float(), self.patch_size) > 0  # (N, 1, h, w)
        return covered.flatten(2).transpose(1, 2)  # (N, P, 1)

    def _prompt(self, tokens: Tensor, inside: Tensor | None, layer: int) -> Tensor:
        if inside is None:
            return tokens
        return torch.where(inside, tokens, self.mask_embedding[layer].to(tokens.dtype))

    def _check_inputs(self, images: Tensor, masks: Tensor | None) -> None:
        expected = (3, *self.image_size)
        if images.ndim != 4 or tuple(images.shape[1:]) != expected:
            raise ValueError(
                f"expected images of shape (N, {', '.join(map(str, expected))}), "
                f"got {tuple(images.shape)}; resize them to this CLIP's image size"
            )
        if masks is not None and masks.shape != (len(images), 1, *self.image_size):
            raise ValueError(
                f"expected masks of shape {(len(images), 1, *self.image_size)}, "
                f"got {tuple(masks.shape)}"
            )


class MaskPromptedCLIP(CLIP):
    """open_clip's CLIP with a `MaskPromptedVisionTransformer` and a text tower that skips padding.

    Args:
        embed_dim: D, the width of the shared space.
        vision_cfg: the image tower, in open_clip's form.
        text_cfg: the text tower, in open_clip's form.
        quick_gelu: use the activation of the OpenAI models in both towers.
        mask_prompt_depth: number of prompted layers of the image tower.

    Raises:
        ValueError: if a tower is of a kind that is not supported.
    """

    visual: MaskPromptedVisionTransformer

    def __init__(
        self,
        *,
        embed_dim: int,
        vision_cfg: CLIPVisionCfg,
        text_cfg: CLIPTextCfg,
        quick_gelu: bool,
        mask_prompt_depth: int = 0,
    ) -> None:
        _check_vision_cfg(vision_cfg, mask_prompt_depth)
        _check_text_cfg(text_cfg)
        # open_clip builds its own image tower: without blocks, because it is replaced at once.
        super().__init__(embed_dim, replace(vision_cfg, layers=0), text_cfg, quick_gelu)
        self.visual = MaskPromptedVisionTransformer(
            vision_cfg,
            embed_dim=embed_dim,
            quick_gelu=quick_gelu,
            mask_prompt_depth=mask_prompt_depth,
        )

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) of the images that the tower takes."""
        height, width = self.visual.image_size
        return height, width

    @property
    def embed_dim(self) -> int:
        """D, the width of the features of both towers."""
        return self.visual.output_dim

    def encode_text(self, text: Tensor, normalize: bool = False) -> Tensor:
        """Encode tokens (N, L) into (N, D); see `encode_tokens`."""
        features = encode_tokens(self, text)
        return F.normalize(features, dim=-1) if normalize else features


def _check_vision_cfg(vision_cfg: CLIPVisionCfg, depth: int) -> None:
    if not isinstance(vision_cfg.layers, int):
        raise ValueError(
            f"expected a Vision Transformer (an integer number of layers), got layers = "
            f"{vision_cfg.layers}; the mask prompt does not exist for the ResNet CLIPs"
        )
    defaults = {field.name: field.default for field in fields(CLIPVisionCfg)}
    flags = ("qk_norm", "scaled_cosine_attn", "scale_heads", "scale_attn_inner", "scale_attn")
    required = _REQUIRED | {name: defaults[name] for name in (*flags, "scale_fc", "act_kwargs")}
    for name, value in required.items():
        if getattr(vision_cfg, name) != value:
            raise ValueError(
                f"expected an image tower with {name} = {value!r}, "
                f"got {getattr(vision_cfg, name)!r}; choose a CLIP whose image tower is a plain ViT"
            )
    if not 0 <= depth <= vision_cfg.layers:
        raise ValueError(
            f"expected a mask prompt depth in 0..{vision_cfg.layers} (the blocks of the image "
            f"tower), got {depth}"
        )


def _check_text_cfg(text_cfg: CLIPTextCfg) -> None:
    kind = (text_cfg.hf_model_name, text_cfg.no_causal_mask, text_cfg.pool_type)
    if kind != (None, False, "argmax"):
        raise ValueError(
            "expected CLIP's causal text tower, pooled at the end of text, got hf_model_name, "
            f"no_causal_mask, pool_type = {kind}; choose another CLIP"
        )
