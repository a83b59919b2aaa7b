"""A miner without models: everything it does follows from the picture's pixels and the words."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ovseg.mining.nouns import CaptionError, Noun
from ovseg.mining.parts import MiningParts
from ovseg.proposals import GridProposer

KNOWN = ("cat", "dog", "grass", "sky", "tree")


class ToyNouns:
    """Finds a handful of words."""

    name = "toy-nouns"

    def extract(self, caption: str) -> list[Noun]:
        if not caption.strip():
            raise CaptionError("the caption is empty")
        if len(caption) > 2000:
            raise CaptionError("the caption is too long")
        found = {word: caption.find(word) for word in KNOWN if word in caption}
        return [Noun(w, w, i, i + len(w)) for w, i in sorted(found.items(), key=lambda x: x[1])]


class ToyScorer:
    """Scores by the mean colour of the region and the letters of the word."""

    name = "toy-scorer"

    def __call__(self, image: np.ndarray, masks: np.ndarray, texts: Sequence[str]) -> np.ndarray:
        colours = np.stack([image[mask].mean(axis=0) for mask in masks])  # (V, 3)
        seeds = [zlib.crc32(text.encode()) for text in texts]
        words = np.stack([np.random.default_rng(seed).normal(size=3) for seed in seeds])  # (N, 3)
        return np.tanh((colours / 128 - 1) @ words.T).astype(np.float32)


def make_parts() -> MiningParts:
    return MiningParts(GridProposer(2, 2), ToyScorer(), ToyNouns())


class DyingScorer(ToyScorer):
    """Ends its process, as a kill would, when it has scored so many pictures."""

    def __init__(self, pictures: int) -> None:
        self.left = pictures

    def __call__(self, image: np.ndarray, masks: np.ndarray, texts: Sequence[str]) -> np.ndarray:
        self.left -= 1
        if self.left < 0:
            os._exit(9)
        return super().__call__(image, masks, texts)


def make_dying_parts() -> MiningParts:
    return MiningParts(GridProposer(2, 2), DyingScorer(3), ToyNouns())


def write_world(folder: Path, count: int = 12) -> Path:
    """Write small pictures with COCO captions; returns the captions' file."""
    rng = np.random.default_rng(0)
    images, annotations = [], []
    (folder / "train").mkdir(parents=True, exist_ok=True)
    for index in range(count):
        name = f"{index:04d}.png"
        blocks = rng.integers(0, 256, (2, 2, 3), dtype=np.uint8)
        Image.fromarray(blocks.repeat(8, 0).repeat(8, 1)).save(folder / "train" / name)
        images.append({"id": index, "file_name": name, "height": 16, "width": 16})
        words = rng.permutation(KNOWN)
        captions = (f"a {words[0]} by a {words[1]}", f"the {words[2]}, and a {words[0]}")
        annotations += [{"image_id": index, "caption": caption} for caption in captions]
    path = folder / "annotations" / "captions_train.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"images": images, "annotations": annotations}))
    return path
