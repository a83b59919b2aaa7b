"""A CLIP small enough for tests, and images for it."""

from __future__ import annotations

import torch

from ovseg.clip import MaskPromptedCLIP, build_clip

CONFIG = {
    "embed_dim": 8,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 16, "layers": 3, "head_width": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
}


def make_clip(depth: int = 0) -> MaskPromptedCLIP:
    """Build a tiny CLIP in evaluation mode whose mask prompts, if any, are not zero."""
    clip = build_clip(CONFIG, mask_prompt_depth=depth).eval()
    torch.nn.init.normal_(clip.visual.mask_embedding)
    # open_clip leaves these uninitialised.
    for parameter in (clip.positional_embedding, clip.text_projection, clip.token_embedding.weight):
        torch.nn.init.normal_(parameter, std=0.3)
    return clip


def make_images(count: int = 2) -> torch.Tensor:
    """Draw `count` normalised images of the tiny CLIP's size."""
    return torch.randn(count, 3, 32, 32)
