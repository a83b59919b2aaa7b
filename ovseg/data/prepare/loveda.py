"""LoveDA: land cover in aerial pictures of 0.3 m, urban and rural.

Source: Wang et al., "LoveDA: A Remote Sensing Land-Cover Dataset for Domain Adaptive Semantic
Segmentation", NeurIPS 2021. In its masks 0 is no data, 1-7 are the classes.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from ovseg.data.prepare.labels import convert_label_file, relabel
from ovseg.data.prepare.pipeline import Task, list_files
from ovseg.data.prepare.plan import Plan
from ovseg.vocab import class_list

__all__ = ["SPLITS", "loveda_labels", "plan"]

SPLITS = ("train", "val")
FOLDER = Path("LoveDA")

_SCENES = ("Rural", "Urban")
_REMEDY = "unpack Train.zip and Val.zip of LoveDA into the folder LoveDA; see datasets/README.md"
_NO_DATA, _IGNORED = 0, 255


def plan(root: Path, split: str) -> Plan:
    """Find the masks of a split, rural and urban.

    Args:
        root: folder of all datasets.
        split: "train" or "val".

    Returns:
        One task per picture.

    Raises:
        PreparationError: the folders are missing or empty.
    """
    base = root / FOLDER
    made = base / "annotations_detectron2"
    masks = [
        path
        for scene in _SCENES
        for path in list_files(base / split.capitalize() / scene / "masks_png", ".png", _REMEDY)
    ]
    tasks = [Task((path,), (made / split / path.name,)) for path in masks]
    return Plan(
        tasks,
        partial(convert_label_file, labels=loveda_labels, skip_label=_IGNORED),
        made / f"prepare_{split}.json",
    )


def loveda_labels(raw: np.ndarray) -> np.ndarray:
    """Shift the classes down by one and ignore what has no data.

    Args:
        raw: (H, W) integers: 0-7.

    Returns:
        (H, W) uint8: 0-6 and 255.

    Raises:
        ValueError: another value.
    """
    ids = class_list("loveda").ids or ()
    return relabel(
        raw, {raw_id: index for index, raw_id in enumerate(ids)}, ignored=(_NO_DATA, _IGNORED)
    )
