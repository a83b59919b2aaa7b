"""Pairs of coloured shapes and nouns, and a CLIP small enough to be trained on them in a test.

Run as a script, this is one of several processes that take one step together.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ovseg.clip import MaskPromptedCLIP
from ovseg.clip_training.config import ClipTrainConfig
from ovseg.clip_training.train import train_clip
from ovseg.d2.arguments import default_argument_parser
from ovseg.d2.utils import comm
from ovseg.data.pairs import ArrayPairDataset
from ovseg.training.distributed import run_distributed
from tests.clip.tiny import make_clip

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (30, 40, 210), "grey": (60,) * 3}
CONFIG = ClipTrainConfig(
    batch_size=8,
    epochs=2,
    lr=2e-3,
    warmup=2,
    precision="fp32",
    workers=0,
    log_period=1,
    checkpoint_period=3,
)

# What processes that step together are compared in: mode and duplicates.
STEPS = (("both", "negative"), ("full", "positive"), ("mask_prompt", "ignored"))


def tiny_clip(depth: int = 2, *, prompt: bool = False) -> MaskPromptedCLIP:
    """A CLIP whose mask prompt, if not asked for otherwise, was never trained."""
    torch.manual_seed(7)
    clip = make_clip(depth)
    if not prompt:
        torch.nn.init.zeros_(clip.visual.mask_embedding)
    return clip


def tiny_pairs(count: int = 24, *, min_scale: float = 0.9) -> ArrayPairDataset:
    """Regions of four colours and many sizes; what surrounds them has a colour, too."""
    rng = np.random.default_rng(3)
    regions, nouns = [], []
    for index in range(count):
        noun = list(COLOURS)[index % len(COLOURS)]
        height, width = rng.integers(6, 14, 2)
        image = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
        mask = np.ones((height, width), dtype=bool)
        mask[height // 2 :, width // 2 :] = False
        image[mask] = COLOURS[noun]
        regions.append((image, mask))
        nouns.append(noun)
    texts = [f"a photo of a {noun}." for noun in nouns]
    return ArrayPairDataset(
        regions, texts=texts, nouns=nouns, image_size=(32, 32), min_scale=min_scale
    )


def main(_: argparse.Namespace) -> None:
    for mode, duplicates in STEPS:
        output = Path(os.environ["TINY_OUTPUT"]) / mode
        clip = tiny_clip(prompt=True)
        config = replace(CONFIG, mode=mode, duplicates=duplicates, steps=1)
        train_clip(config, clip, tiny_pairs(), output_dir=output)
        if comm.is_main_process():
            gradients = {n: p.grad for n, p in clip.named_parameters() if p.requires_grad}
            torch.save(gradients, output / "gradients.pth")


if __name__ == "__main__":
    run_distributed(main, default_argument_parser().parse_args(sys.argv[1:]))
