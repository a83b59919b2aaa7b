"""ADE20K in its two editions: the 150 classes of the challenge and the 847 of the full dataset.

Zhou et al., "Scene Parsing through ADE20K Dataset" (2017). The 847 classes are those that occur in
both the training and the validation part; MaskFormer introduced them as a benchmark.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ovseg.data.prepare.labels import convert_label_file, relabel
from ovseg.data.prepare.pipeline import PreparationError, Task, list_files, require_folder
from ovseg.data.prepare.plan import Plan
from ovseg.readers.pickled_arrays import read_plain_pickle
from ovseg.readers.pictures import picture_mode, read_image
from ovseg.utils.files import reason_of
from ovseg.vocab.classes import class_list

__all__ = [
    "FULL_SPLITS",
    "SPLITS",
    "ade20k_full_ids",
    "ade20k_full_labels",
    "ade20k_labels",
    "plan_ade20k",
    "plan_ade20k_full",
    "read_index",
]

SPLITS = {"train": "training", "val": "validation"}
FULL_SPLITS = {"val": "validation"}

_IGNORE = 255
_IGNORE_FULL = 65535
_SHORT_SIDE = 512
_REMEDY = (
    "Unpack ADEChallengeData2016.zip (http://sceneparsing.csail.mit.edu) into the folder of all "
    "datasets, or name that folder with --root"
)
_FULL_REMEDY = (
    "Unpack the full dataset (https://ade20k.csail.mit.edu, after registering) so that "
    "ADE20K_2021_17_01/index_ade20k.pkl lies in the folder of all datasets, or name that folder "
    "with --root"
)


def ade20k_labels(raw: np.ndarray) -> np.ndarray:
    """Turn the challenge's annotation into class indices.

    Args:
        raw: (H, W) integers: 1-150, and 0 for other objects.

    Returns:
        (H, W) uint8: 0-149, and 255.

    Raises:
        ValueError: a value above 150.
    """
    classes = class_list("ade20k_150").train_ids
    return relabel(raw, {index + 1: index for index in classes}, ignored=(0,))


def plan_ade20k(root: Path, split: str) -> Plan:
    """Find the annotation of the challenge.

    Args:
        root: folder of all datasets.
        split: "train" or "val".

    Returns:
        The work.

    Raises:
        PreparationError: the annotation is not there.
    """
    base = root / "ADEChallengeData2016"
    target = base / "annotations_detectron2" / SPLITS[split]
    tasks = [
        Task((file,), (target / f"{file.stem}.png",))
        for file in list_files(base / "annotations" / SPLITS[split], ".png", _REMEDY)
    ]
    convert = partial(convert_label_file, labels=ade20k_labels)
    return Plan(tasks, convert, target.parent / f"prepare_{SPLITS[split]}.json")


def ade20k_full_ids(colours: np.ndarray) -> np.ndarray:
    """Decode the object ids of a `*_seg.png`.

    Args:
        colours: (H, W, 3) uint8 RGB; red and green hold the object's id, blue its instance.

    Returns:
        (H, W) int32, 0 where there is no object.
    """
    wide = colours.astype(np.int32)  # (H, W, 3)
    return wide[..., 0] // 10 * 256 + wide[..., 1]  # (H, W)


def ade20k_full_labels(ids: np.ndarray, *, objects: int) -> np.ndarray:
    """Turn object ids into the 847 classes.

    Args:
        ids: (H, W) integers from 0 to the number of objects.
        objects: how many objects the dataset's index names.

    Returns:
        (H, W) uint16: 0-846, and 65535 for objects outside the classes.

    Raises:
        ValueError: an id above the number of objects.
    """
    raw_ids = class_list("ade20k_847").ids
    assert raw_ids is not None, "the class list has the ids of the annotation"
    mapping = {raw: index for index, raw in enumerate(raw_ids)}
    ignored = set(range(objects + 1)) - mapping.keys()
    return relabel(ids, mapping, ignored=ignored, ignore_label=_IGNORE_FULL)


def plan_ade20k_full(root: Path, split: str) -> Plan:
    """Find the pictures and annotation of the full dataset by its index.

    Pictures are written anew as JPEG, with the shorter side at most 512, as in published results.

    Args:
        root: folder of all datasets.
        split: "val".

    Returns:
        The work.

    Raises:
        PreparationError: the index is missing, damaged or not to be trusted, or names no picture of
            the split.
    """
    base = require_folder(root / "ADE20K_2021_17_01", _FULL_REMEDY)
    index = read_index(base / "index_ade20k.pkl")
    folder = FULL_SPLITS[split]
    pictures = [
        root / place / name
        for place, name in zip(index["folder"], index["filename"], strict=True)
        if name.split("_")[1:2] == [split]
    ]
    if not pictures:
        raise PreparationError(f"{base / 'index_ade20k.pkl'} names no picture of {split!r}")
    tasks = [
        Task(
            (picture.with_name(f"{picture.stem}_seg.png"), picture),
            (
                base / "annotations_detectron2" / folder / f"{picture.stem}.tif",
                base / "images_detectron2" / folder / f"{picture.stem}.jpg",
            ),
        )
        for picture in pictures
    ]
    convert = partial(_convert_full, objects=len(index["objectnames"]))
    return Plan(tasks, convert, base / "annotations_detectron2" / f"prepare_{folder}.json")


def read_index(path: Path) -> Mapping[str, Sequence[str]]:
    """Read the names of pictures and objects from the index of the full dataset.

    The index is a pickle. Only plain containers, strings, numbers and arrays are admitted.

    Args:
        path: `index_ade20k.pkl`.

    Returns:
        `folder` and `filename` of each picture, and `objectnames`.

    Raises:
        PreparationError: the file is missing, damaged, or asks for any other type.
    """
    try:
        index = read_plain_pickle(path)
    except (OSError, pickle.UnpicklingError) as error:
        raise PreparationError(f"cannot read {path}: {reason_of(error)}\n{_FULL_REMEDY}") from error
    columns = {key: _strings(index, key, path) for key in ("folder", "filename", "objectnames")}
    if len(columns["folder"]) != len(columns["filename"]):
        raise PreparationError(
            f"{path}: expected as many folders as file names, got {len(columns['folder'])} and "
            f"{len(columns['filename'])}\n{_FULL_REMEDY}"
        )
    outside = [
        name
        for place, name in zip(columns["folder"], columns["filename"], strict=True)
        if Path(name).name != name or ".." in Path(place).parts or Path(place).is_absolute()
    ]
    if outside:
        raise PreparationError(
            f"{path}: expected pictures inside the folder of all datasets, got "
            f"{', '.join(outside[:5])}\n{_FULL_REMEDY}"
        )
    return columns


def _strings(index: Any, key: str, path: Path) -> list[str]:
    found: Any = index.get(key) if isinstance(index, dict) else None
    listed = isinstance(found, (list, tuple, np.ndarray)) and len(found) > 0
    if not listed or not all(isinstance(text, str) for text in found):
        raise PreparationError(
            f"{path}: expected a dictionary with a list of names under {key!r}, as in the release "
            f"of 17 January 2021\n{_FULL_REMEDY}"
        )
    return [str(text) for text in found]


def _convert_full(task: Task, *, objects: int) -> list[np.ndarray]:
    annotation, picture = task.sources
    colours = read_image(annotation)  # (H, W, 3)
    if (mode := picture_mode(annotation)) != "RGB":
        raise ValueError(f"{annotation}: expected 8-bit RGB, got mode {mode}")
    labels = ade20k_full_labels(ade20k_full_ids(colours), objects=objects)  # (H, W)
    image = read_image(picture)  # (H, W, 3)
    if image.shape[:2] != labels.shape:
        raise ValueError(
            f"expected an annotation of the picture's size {image.shape[:2]}, got {labels.shape}"
        )
    short = min(labels.shape)
    if short > _SHORT_SIDE:
        height, width = (round(side * _SHORT_SIDE / short) for side in labels.shape)
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
        labels = cv2.resize(labels, (width, height), interpolation=cv2.INTER_NEAREST)
    return [labels, image]
