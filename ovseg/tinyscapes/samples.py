"""The scenes that the demo and README show: drawn by lot before anybody looked, never picked."""

from __future__ import annotations

import random
import re
from pathlib import Path

import cv2

from .captions import plural
from .scenes import render_scene
from .world import CLASSES
from .writer import DEFAULT_COUNTS, JPEG_QUALITY, write_image

SAMPLE_SPLIT = "test"
SAMPLE_COUNT = 6
SAMPLE_SEED = 0


def sample_scenes(count: int = SAMPLE_COUNT, seed: int = SAMPLE_SEED) -> list[int]:
    """Draw scenes of the test split by lot.

    Args:
        count: how many.
        seed: of the lot; that of the demo by default.

    Returns:
        Their numbers, ascending.
    """
    return sorted(random.Random(seed).sample(range(DEFAULT_COUNTS[SAMPLE_SPLIT]), count))


def mentioned_classes(captions: list[str]) -> list[str]:
    """List the classes that captions mention, by whatever noun, in the order of their mention.

    Args:
        captions: sentences about a scene.

    Returns:
        Class names, each once.
    """
    meaning = {
        word: kind.name for kind in CLASSES for noun in kind.nouns for word in (noun, plural(noun))
    }
    words = re.findall("[a-z]+", " ".join(captions).lower())
    return list(dict.fromkeys(meaning[word] for word in words if word in meaning))


def write_samples(folder: Path, numbers: list[int]) -> list[Path]:
    """Write scenes of the test split as the dataset does; other scenes there are removed.

    Args:
        folder: target, made if missing.
        numbers: of the scenes.

    Returns:
        The files, named `scene_<number>.jpg`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"scene_{number:04d}.jpg" for number in numbers]
    for other in set(folder.glob("scene_*.jpg")) - set(files):
        other.unlink()
    for file, number in zip(files, numbers, strict=True):
        image = render_scene(SAMPLE_SPLIT, number).image
        write_image(file, image[..., ::-1], (cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY))
    return files
