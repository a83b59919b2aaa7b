"""Cityscapes: the benchmark's ids to the 19 classes that it evaluates.

Source: Cordts et al., "The Cityscapes Dataset for Semantic Urban Scene Understanding", CVPR 2016.
The labels lie beside the raw ones, under the names of the benchmark's own scripts, so that files
that those have made are used as they are.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from ovseg.data.prepare.labels import convert_label_file, relabel
from ovseg.data.prepare.pipeline import PreparationError, Task, require_folder
from ovseg.data.prepare.plan import Plan
from ovseg.vocab import class_list

__all__ = ["SPLITS", "cityscapes_labels", "plan"]

SPLITS = ("train", "val")
FOLDER = Path("cityscapes")

_RAW, _MADE = "_gtFine_labelIds.png", "_gtFine_labelTrainIds.png"
_REMEDY = (
    "unpack gtFine_trainvaltest.zip of the Cityscapes web site into it; see datasets/README.md"
)
_RAW_IDS = range(34)


def plan(root: Path, split: str) -> Plan:
    """Find the label maps of a split in the folders of its cities.

    Args:
        root: folder of all datasets.
        split: "train" or "val".

    Returns:
        One task per picture.

    Raises:
        PreparationError: there are no such files.
    """
    base = require_folder(root / FOLDER / "gtFine" / split, _REMEDY)
    sources = sorted(base.glob(f"*/*{_RAW}"))
    if not sources:
        raise PreparationError(f"expected */*{_RAW} in {base}, got none\n{_REMEDY}")
    tasks = [Task((path,), (path.with_name(path.name.replace(_RAW, _MADE)),)) for path in sources]
    return Plan(
        tasks,
        partial(convert_label_file, labels=cityscapes_labels),
        root / FOLDER / "gtFine" / f"prepare_{split}.json",
    )


def cityscapes_labels(raw: np.ndarray) -> np.ndarray:
    """Replace the benchmark's ids by class indices.

    Args:
        raw: (H, W) integers: 0-33, and 255 for the number plate (-1 in 8 bits).

    Returns:
        (H, W) uint8: 0-18, and 255 for ids that are not evaluated.

    Raises:
        ValueError: another value.
    """
    ids = class_list("cityscapes_19").ids or ()
    mapping = {raw_id: index for index, raw_id in enumerate(ids)}
    return relabel(raw, mapping, ignored=[255, *sorted(set(_RAW_IDS) - set(ids))])
