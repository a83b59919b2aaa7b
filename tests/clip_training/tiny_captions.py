"""Captioned pictures of one colour, and towers small enough to be trained on them in a test."""

from __future__ import annotations

import numpy as np
import torch

from ovseg.clip import MaskPromptedCLIP, build_clip
from ovseg.clip_training.captions import CaptionPairs
from ovseg.clip_training.config import ClipTrainConfig

CONFIG = ClipTrainConfig(
    mode="towers",
    optimizer="muon",
    steps=12,
    batch_size=4,
    lr=3e-3,
    weight_decay=0.05,
    warmup=2,
    precision="fp32",
    workers=0,
    checkpoint_period=4,
    log_period=1,
)
COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (30, 40, 210), "grey": (128,) * 3}


def render(index: int) -> tuple[np.ndarray, str]:
    name = list(COLOURS)[index % len(COLOURS)]
    noise = np.random.default_rng(index).integers(-20, 20, (16, 16, 3))
    return np.clip(COLOURS[name] + noise, 0, 255).astype(np.uint8), f"a {name} picture"


def colour_clip() -> MaskPromptedCLIP:
    torch.manual_seed(0)
    return build_clip(
        {
            "embed_dim": 8,
            "vision_cfg": {
                "image_size": 16,
                "layers": 1,
                "width": 16,
                "head_width": 8,
                "patch_size": 8,
            },
            "text_cfg": {
                "context_length": 77,
                "vocab_size": 49408,
                "width": 8,
                "heads": 1,
                "layers": 1,
            },
        }
    )


def captions(*, steps: int = 12, first: int = 0, draw=render) -> CaptionPairs:
    """Pairs for so many steps of four."""
    return CaptionPairs(draw, count=4 * steps, image_size=(16, 16), first=first)
