"""A small dataset as somebody's own: pictures in a folder, label maps in another, a few classes.

It stands in for a user's data in docs/your_data.md and its test. The pictures are scenes of
tinyscapes; of the five classes three had no masks when the bundled model was trained, and two have
names of their own.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from ovseg.utils.files import require_writable

from .scenes import render_scene
from .world import CLASS_ID, IGNORE_LABEL
from .writer import JPEG_QUALITY, write_image

# Name in the garden -> class of tinyscapes.
GARDEN: dict[str, str] = {
    "sky": "sky",
    "lawn": "grass",
    "vegetable patch": "field",
    "gravel path": "gravel",
    "fence": "fence",
}
_SPLITS = {"train": "train", "val": "test"}  # of the garden -> the stream its scenes come from


def write_garden(folder: str | Path, *, train: int = 160, val: int = 40) -> Path:
    """Draws the pictures and label maps and writes a dataset file for each part.

    Args:
        folder: for `pictures/` and `labels/` with a folder per part, and `train.yaml`, `val.yaml`.
        train: number of pictures to train on.
        val: number of pictures to measure on.

    Returns:
        The folder.
    """
    folder = Path(folder)
    require_writable(folder)
    for part, count in (("train", train), ("val", val)):
        scenes = itertools.islice(_scenes(_SPLITS[part]), count)
        for number, (image, labels) in enumerate(scenes):
            jpeg = folder / "pictures" / part / f"garden_{number:04d}.jpg"
            write_image(jpeg, image[..., ::-1], (cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY))
            write_image(folder / "labels" / part / f"garden_{number:04d}.png", labels, ())
        (folder / f"{part}.yaml").write_text(
            f"name: garden_{part}\n"
            f"images: pictures/{part}\n"
            f"labels: labels/{part}\n"
            f"classes: [{', '.join(GARDEN)}]\n"
            f"split: {part}\n",
            encoding="utf-8",
        )
    return folder


def _scenes(stream: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Picture and labels of the scenes that show two of the classes or more."""
    table = np.full(256, IGNORE_LABEL, np.uint8)
    for label, name in enumerate(GARDEN.values()):
        table[CLASS_ID[name]] = label
    for index in itertools.count():
        scene = render_scene(stream, index)
        labels = table[scene.labels]  # (H, W)
        if len(np.unique(labels[labels != IGNORE_LABEL])) > 1:
            yield scene.image, labels
