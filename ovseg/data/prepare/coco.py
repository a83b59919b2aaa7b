"""COCO-Stuff and COCO-Object: label maps of all pixels of COCO's pictures.

Raw layouts are those of the archives: Caesar et al., "COCO-Stuff: Thing and Stuff Classes in
Context" (2018), whose label maps cover the things and the stuff of COCO 2017, and of the earlier
edition of 10 000 pictures. COCO-Object is the same maps with all stuff as background.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from ovseg.data.prepare.labels import convert_label_file, relabel
from ovseg.data.prepare.listing import read_listing
from ovseg.data.prepare.pipeline import Task, list_files, require_folder
from ovseg.data.prepare.plan import Plan
from ovseg.readers.matlab import read_mat_labels
from ovseg.readers.pictures import read_image
from ovseg.vocab.classes import class_list

__all__ = [
    "STUFF_10K_SPLITS",
    "coco_object_labels",
    "coco_stuff_10k_labels",
    "coco_stuff_labels",
    "plan_coco_object",
    "plan_coco_stuff",
    "plan_coco_stuff_10k",
]

STUFF_10K_SPLITS = ("train", "test")

_IGNORE = 255
_IDS = range(1, 183)  # COCO's ids of things and stuff, 11 of which no picture uses
_THINGS = 80
_MAPS_REMEDY = (
    "Unpack stuffthingmaps_trainval2017.zip of COCO-Stuff (https://github.com/nightrome/cocostuff) "
    "so that the label maps lie in coco/stuffthingmaps/{train2017,val2017}, or name the folder of "
    "all datasets with --root"
)
_10K_REMEDY = (
    "Unpack cocostuff-10k-v1.1.zip (https://github.com/nightrome/cocostuff10k) into "
    "coco/coco_stuff_10k, which then holds images, annotations and imageLists, or name the folder "
    "of all datasets with --root"
)


def coco_stuff_labels(raw: np.ndarray) -> np.ndarray:
    """Turn a stuffthingmap into the 171 classes of COCO-Stuff.

    Args:
        raw: (H, W) integers: COCO id minus 1, and 255 for unlabelled.

    Returns:
        (H, W) uint8: 0-170, and 255.

    Raises:
        ValueError: a value above 181 other than 255.
    """
    ids = class_list("coco_stuff_171").ids
    assert ids is not None, "the class list has the ids of the annotation"
    mapping = {raw_id - 1: index for index, raw_id in enumerate(ids)}
    ignored = {raw_id - 1 for raw_id in _IDS} - mapping.keys() | {_IGNORE}
    return relabel(raw, mapping, ignored=ignored)


def coco_object_labels(raw: np.ndarray) -> np.ndarray:
    """Turn a stuffthingmap into the background and the 80 things of COCO-Object.

    Stuff and unlabelled pixels are background; no pixel is ignored, as in the results of others.

    Args:
        raw: (H, W) integers: COCO id minus 1, and 255 for unlabelled.

    Returns:
        (H, W) uint8: 0 for the background, 1-80 for the things.

    Raises:
        ValueError: a value above 181 other than 255.
    """
    classes = coco_stuff_labels(raw)  # (H, W)
    return np.where(classes < _THINGS, classes + 1, 0).astype(np.uint8)


def coco_stuff_10k_labels(raw: np.ndarray) -> np.ndarray:
    """Turn the label matrix of the 10k edition into the 171 classes of COCO-Stuff.

    Args:
        raw: (H, W) integers: COCO id, and 0 for unlabelled.

    Returns:
        (H, W) uint8: 0-170, and 255.

    Raises:
        ValueError: a value above 182.
    """
    ids = class_list("coco_stuff_171").ids
    assert ids is not None, "the class list has the ids of the annotation"
    mapping = {raw_id: index for index, raw_id in enumerate(ids)}
    return relabel(raw, mapping, ignored={0, *_IDS} - mapping.keys())


def plan_coco_stuff(root: Path, split: str) -> Plan:
    """Find the label maps of COCO-Stuff; maps without any labelled pixel are left out.

    Args:
        root: folder of all datasets.
        split: "train2017" or "val2017".

    Returns:
        The work.

    Raises:
        PreparationError: the maps are not there.
    """
    return _plan_maps(
        root / "coco" / "stuffthingmaps" / split,
        root / "coco" / "stuffthingmaps_detectron2" / split,
        partial(convert_label_file, labels=coco_stuff_labels, skip_label=_IGNORE),
    )


def plan_coco_object(root: Path, split: str) -> Plan:
    """Find the label maps of COCO-Stuff, to make those of COCO-Object.

    Args:
        root: folder of all datasets.
        split: "val2017".

    Returns:
        The work.

    Raises:
        PreparationError: the maps are not there.
    """
    return _plan_maps(
        root / "coco" / "stuffthingmaps" / split,
        root / "coco" / "object_detectron2" / split,
        partial(convert_label_file, labels=coco_object_labels),
    )


def _plan_maps(source: Path, target: Path, convert: partial[list[np.ndarray] | None]) -> Plan:
    tasks = [
        Task((file,), (target / f"{file.stem}.png",))
        for file in list_files(source, ".png", _MAPS_REMEDY)
    ]
    return Plan(tasks, convert, target.parent / f"prepare_{target.name}.json")


def plan_coco_stuff_10k(root: Path, split: str) -> Plan:
    """Find the pictures and label matrices of a split of COCO-Stuff 10k.

    Args:
        root: folder of all datasets.
        split: "train" or "test".

    Returns:
        The work.

    Raises:
        PreparationError: the list of the split or a folder is not there.
    """
    base = root / "coco" / "coco_stuff_10k"
    names = read_listing(base / "imageLists" / f"{split}.txt", _10K_REMEDY)
    images = require_folder(base / "images", _10K_REMEDY)
    annotations = require_folder(base / "annotations", _10K_REMEDY)
    tasks = [
        Task(
            (annotations / f"{name}.mat", images / f"{name}.jpg"),
            (
                base / "annotations_detectron2" / split / f"{name}.png",
                base / "images_detectron2" / split / f"{name}.jpg",
            ),
        )
        for name in names
    ]
    report = base / "annotations_detectron2" / f"prepare_{split}.json"
    return Plan(tasks, _convert_10k, report)


def _convert_10k(task: Task) -> list[np.ndarray | bytes] | None:
    matrix, picture = task.sources
    labels = coco_stuff_10k_labels(read_mat_labels(matrix, "S"))  # (H, W)
    shape = read_image(picture).shape[:2]
    if shape != labels.shape:
        raise ValueError(f"expected labels of the picture's size {shape}, got {labels.shape}")
    if (labels == _IGNORE).all():
        return None
    return [labels, picture.read_bytes()]
