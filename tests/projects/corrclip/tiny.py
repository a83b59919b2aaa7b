"""A CorrCLIP small enough for unit tests, made of parts."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ovseg.clip import CLIP_PIXEL_MEAN, CLIP_PIXEL_STD, MaskPromptedCLIP, build_clip
from ovseg.projects.corrclip.dense import DenseFeatures, RandomFeatures
from ovseg.projects.corrclip.model import CorrCLIP, Decision, WindowSettings
from ovseg.projects.corrclip.tower import CorrelationSettings

TEXT = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}


def tiny_clip(*, layers: int = 6, patch: int = 8, image_size: int = 32) -> MaskPromptedCLIP:
    torch.manual_seed(0)
    vision = {"image_size": image_size, "layers": layers, "width": 32, "head_width": 16}
    vision["patch_size"] = patch
    clip = build_clip({"embed_dim": 24, "vision_cfg": vision, "text_cfg": TEXT}).eval()
    nn.init.normal_(clip.visual.class_embedding)
    return clip


class Halves:
    """Left and right half of a picture as regions 1 and 2, below a strip in no region."""

    name = "halves"
    needs_pixels = True

    def __init__(self) -> None:
        self.seen: list[tuple[int, ...]] = []

    def __call__(self, image: np.ndarray, image_id: str) -> np.ndarray:
        self.seen.append(image.shape)
        height, width = image.shape[:2]
        ids = np.ones((height, width), np.int32)
        ids[:, width // 2 :] = 2
        ids[: height // 8] = 0
        return ids


def tiny_model(
    *,
    dense: DenseFeatures | None = None,
    regions: Any = None,
    windows: WindowSettings | None = None,
    correlation: CorrelationSettings | None = None,
    decision: Decision | None = None,
    **options: Any,
) -> CorrCLIP:
    return CorrCLIP(
        clip=options.pop("clip", None) or tiny_clip(),
        clip_name="tiny",
        dense=dense or RandomFeatures(cell=4, channels=12),
        regions=regions or Halves(),
        correlation=correlation or CorrelationSettings(),
        windows=windows or WindowSettings(crop=32, stride=16, pad_multiple=8),
        decision=decision or Decision(),
        pixel_mean=CLIP_PIXEL_MEAN,
        pixel_std=CLIP_PIXEL_STD,
        templates="predefined",
        **options,
    ).eval()


def picture(height: int = 40, width: int = 56, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 5, 7, generator=generator) * 255
    return nn.functional.interpolate(coarse, size=(height, width), mode="bicubic")[0].clamp(0, 255)
