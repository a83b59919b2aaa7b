"""CLIP on open_clip: building, the mask prompt, patch features, text encoding."""

from __future__ import annotations

from ovseg.clip.build import CLIP_PIXEL_MEAN, CLIP_PIXEL_STD, OPENAI_NAMES, build_clip, clip_config
from ovseg.clip.dense import PatchAttention, PatchEncoder, PatchFeatures
from ovseg.clip.encoders import encode_texts, encode_tokens, tokenize
from ovseg.clip.load import load_clip
from ovseg.clip.mask_prompt import MaskPromptedCLIP, MaskPromptedVisionTransformer
from ovseg.clip.texts import ClipTexts

__all__ = [
    "CLIP_PIXEL_MEAN",
    "CLIP_PIXEL_STD",
    "OPENAI_NAMES",
    "ClipTexts",
    "MaskPromptedCLIP",
    "MaskPromptedVisionTransformer",
    "PatchAttention",
    "PatchEncoder",
    "PatchFeatures",
    "build_clip",
    "clip_config",
    "encode_texts",
    "encode_tokens",
    "load_clip",
    "tokenize",
]
