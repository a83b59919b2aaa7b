"""ISPRS Vaihingen: land cover in aerial tiles of 9 cm, whose labels are colours.

Source: ISPRS 2D Semantic Labeling Contest. Tiles are cut into squares of 512 pixels that overlap
by half, as in the numbers that MMSegmentation-based projects publish, and named as there; a class
near the middle of a tile therefore counts up to four times.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ovseg.data.prepare.pipeline import PreparationError, Task, require_folder
from ovseg.data.prepare.plan import Plan
from ovseg.readers.pictures import image_size, read_image
from ovseg.vocab import class_list

__all__ = ["AREAS", "SPLITS", "convert", "plan", "squares", "vaihingen_labels"]

AREAS = {
    "train": (1, 3, 5, 7, 11, 13, 15, 17, 21, 23, 26, 28, 30, 32, 34, 37),
    "val": (2, 4, 6, 8, 10, 12, 14, 16, 20, 22, 24, 27, 29, 31, 33, 35, 38),
}
"""Tiles of the contest whose truth was given out with the pictures, and those whose was kept."""

SPLITS = tuple(AREAS)
FOLDER = Path("Vaihingen")
SIDE, STRIDE = 512, 256

_PICTURES = Path("ISPRS_semantic_labeling_Vaihingen", "top")
_TRUTH = Path("ISPRS_semantic_labeling_Vaihingen_ground_truth_eroded_COMPLETE")
_REMEDY = "unpack each archive of the contest into a folder of its own name; see datasets/README.md"
_COLORS = {
    "impervious surface": (255, 255, 255),
    "building": (0, 0, 255),
    "low vegetation": (0, 255, 255),
    "tree": (0, 255, 0),
    "car": (255, 255, 0),
    "clutter": (255, 0, 0),
}
_OUTLINE = (0, 0, 0)  # eroded away: three pixels along every border
_UNKNOWN, _IGNORED = 254, 255


def plan(root: Path, split: str) -> Plan:
    """Find the tiles of a split.

    Args:
        root: folder of all datasets.
        split: "train" or "val".

    Returns:
        One task per tile, with a picture and a label map per square.

    Raises:
        PreparationError: the folders are missing or hold no tile of the split.
    """
    base = root / FOLDER
    pictures = require_folder(base / _PICTURES, _REMEDY)
    truth = require_folder(base / _TRUTH, _REMEDY)
    tasks = [
        _task(pictures / f"top_mosaic_09cm_area{area}.tif", truth, base, split, area)
        for area in AREAS[split]
        if (pictures / f"top_mosaic_09cm_area{area}.tif").is_file()
    ]
    if not tasks:
        raise PreparationError(f"expected tiles of {split} in {pictures}, got none\n{_REMEDY}")
    return Plan(tasks, convert, base / f"prepare_{split}.json")


def convert(task: Task) -> Sequence[np.ndarray]:
    """Cut one tile: all its pictures, then all its label maps."""
    labels = vaihingen_labels(read_image(task.sources[0]))
    picture = read_image(task.sources[1])
    if picture.shape[:2] != labels.shape:
        raise ValueError(
            f"{task.sources[0]}: expected labels of the picture's size {picture.shape[:2]}, "
            f"got {labels.shape}"
        )
    boxes = squares(*labels.shape)
    return [
        array[top:bottom, left:right]
        for array in (picture, labels)
        for left, top, right, bottom in boxes
    ]


def vaihingen_labels(colors: np.ndarray) -> np.ndarray:
    """Replace colours by class indices.

    Args:
        colors: (H, W, 3) uint8 RGB, of the six classes' colours and black.

    Returns:
        (H, W) uint8: 0-5, and 255 for black.

    Raises:
        ValueError: another colour.
    """
    packed = colors.astype(np.int32) @ (1 << 16, 1 << 8, 1)  # (H, W)
    labels = np.full(packed.shape, _UNKNOWN, np.uint8)
    for index, name in enumerate(class_list("vaihingen").names):
        labels[packed == _pack(_COLORS[name])] = index
    labels[packed == _pack(_OUTLINE)] = _IGNORED
    unknown = labels == _UNKNOWN
    if unknown.any():
        value = int(packed[unknown][0])
        raise ValueError(
            f"expected the colours of {', '.join(_COLORS)} or black, got "
            f"{(value >> 16, value >> 8 & 255, value & 255)} in {int(unknown.sum())} pixels; "
            "the file was saved with loss or is of another dataset"
        )
    return labels


def squares(height: int, width: int) -> list[tuple[int, int, int, int]]:
    """Cut a tile into squares; the last of a row or column ends at the tile's edge.

    Args:
        height, width: of the tile in pixels.

    Returns:
        Boxes (left, top, right, bottom), row by row.
    """
    return [
        (left, top, min(left + SIDE, width), min(top + SIDE, height))
        for top in _starts(height)
        for left in _starts(width)
    ]


def _starts(length: int) -> list[int]:
    last = max(0, length - SIDE)
    return [*range(0, last, STRIDE), last]


def _task(picture: Path, truth: Path, base: Path, split: str, area: int) -> Task:
    names = [
        f"area{area}_{left}_{top}_{right}_{bottom}.png"
        for left, top, right, bottom in squares(*image_size(picture))
    ]
    folders = (base / "images_detectron2" / split, base / "annotations_detectron2" / split)
    return Task(
        (truth / f"top_mosaic_09cm_area{area}_noBoundary.tif", picture),
        tuple(folder / name for folder in folders for name in names),
    )


def _pack(color: tuple[int, int, int]) -> int:
    red, green, blue = color
    return red << 16 | green << 8 | blue
