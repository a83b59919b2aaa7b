"""Pascal VOC 2012 with (VOC-21) and without (VOC-20) its background class.

Source: the challenge's `SegmentationClass` or its extension `SegmentationClassAug` (Hariharan et
al., 2011), which agree on the validation pictures. 0 is background, 1-20 are the classes in
alphabetical order, 255 marks outlines and what is hard to tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ovseg.data.prepare.labels import convert_label_file, relabel
from ovseg.data.prepare.listing import read_listing
from ovseg.data.prepare.pipeline import PreparationError, Task
from ovseg.data.prepare.plan import Plan
from ovseg.vocab import class_list

__all__ = ["SPLITS", "convert", "plan", "voc20_labels", "voc21_labels"]

SPLITS = ("train", "val")
FOLDER = Path("VOCdevkit", "VOC2012")

_REMEDY = (
    "unpack VOCtrainval_11-May-2012.tar into the folder of all datasets; see datasets/README.md"
)
_WITH_BACKGROUND = "voc21_"  # first letters of the folder of its labels
_IGNORED = 255


def plan(root: Path, split: str) -> Plan:
    """Find the label maps of a split.

    Args:
        root: folder of all datasets.
        split: "train" or "val".

    Returns:
        Two tasks per picture: VOC-20 leaves out pictures of nothing but background.

    Raises:
        PreparationError: the list of the split or the label maps are missing.
    """
    base = root / FOLDER
    names = read_listing(base / "ImageSets" / "Segmentation" / f"{split}.txt", _REMEDY)
    raw = _raw_folder(base)
    made = base / "annotations_detectron2"
    folders = (made / split, made / f"{_WITH_BACKGROUND}{split}")
    tasks = [
        Task((raw / f"{name}.png",), (folder / f"{name}.png",))
        for folder in folders
        for name in names
    ]
    return Plan(tasks, convert, made / f"prepare_voc_{split}.json")


def convert(task: Task) -> Sequence[np.ndarray] | None:
    """Make the labels of VOC-20 or VOC-21, as the folder of the target says."""
    if task.targets[0].parent.name.startswith(_WITH_BACKGROUND):
        return convert_label_file(task, labels=voc21_labels)
    return convert_label_file(task, labels=voc20_labels, skip_label=_IGNORED)


def voc20_labels(raw: np.ndarray) -> np.ndarray:
    """Shift the classes down by one and ignore the background.

    Args:
        raw: (H, W) integers: 0-20 and 255.

    Returns:
        (H, W) uint8: 0-19 and 255.

    Raises:
        ValueError: another value.
    """
    classes = len(class_list("pascal_voc_20"))
    return relabel(raw, {i + 1: i for i in range(classes)}, ignored=(0, _IGNORED))


def voc21_labels(raw: np.ndarray) -> np.ndarray:
    """Check the values; they are the labels.

    Args:
        raw: (H, W) integers: 0-20 and 255.

    Returns:
        (H, W) uint8, the same values.

    Raises:
        ValueError: another value.
    """
    classes = len(class_list("pascal_voc_21"))
    return relabel(raw, {i: i for i in range(classes)}, ignored=(_IGNORED,))


def _raw_folder(base: Path) -> Path:
    """The extension has labels for more pictures; the challenge's own are enough for its lists."""
    for folder in (base / "SegmentationClassAug", base / "SegmentationClass"):
        if folder.is_dir():
            return folder
    raise PreparationError(
        f"expected the folder SegmentationClassAug or SegmentationClass in {base}, got neither\n"
        f"{_REMEDY}"
    )
