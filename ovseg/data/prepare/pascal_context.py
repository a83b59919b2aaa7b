"""Pascal Context with 59, 60 and 459 classes.

Source: Mottaghi et al., "The Role of Context for Object Detection and Semantic Segmentation in the
Wild", CVPR 2014: one MATLAB file a picture, whose `LabelMap` holds numbers of the list
`labels.txt`. The smaller sets are found by the names in that list, never by position.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ovseg.data.prepare.labels import relabel
from ovseg.data.prepare.listing import read_listing
from ovseg.data.prepare.pipeline import PreparationError, Task, require_folder
from ovseg.data.prepare.plan import Plan
from ovseg.readers.documents import read_text
from ovseg.readers.matlab import read_mat_labels
from ovseg.vocab import class_list

__all__ = ["SPLITS", "ContextLabels", "plan", "read_names"]

SPLITS = ("train", "val")
FOLDER = Path("VOCdevkit", "VOC2010")

_REMEDY = "datasets/README.md says which files Pascal Context consists of and where they come from"
_UNLABELLED = 0
# Spellings that differ between the lists in circulation; the class lists have the right ones.
_SPELLINGS = {
    "diningtable": "table",
    "bedcloth": "bedclothes",
    "clothes": "cloth",
    "people": "person",
}


def plan(root: Path, split: str) -> Plan:
    """Find the label maps of a split and hold the lists of names against the class lists.

    Args:
        root: folder of all datasets.
        split: "train" or "val".

    Returns:
        One task per picture, with a target for each of the three sets.

    Raises:
        PreparationError: files are missing, or a list has other names than expected.
    """
    base = root / FOLDER
    names = read_listing(_listing(base, split), _REMEDY)
    raw = require_folder(base / "trainval", _REMEDY)
    convert = ContextLabels.from_files(base / "labels.txt", base / "59_labels.txt")
    made = base / "annotations_detectron2"
    tasks = [
        Task(
            (raw / f"{name}.mat",),
            (
                made / f"pc59_{split}" / f"{name}.png",
                made / f"pc60_{split}" / f"{name}.png",
                made / f"pc459_{split}" / f"{name}.tif",
            ),
        )
        for name in names
    ]
    return Plan(tasks, convert, made / f"prepare_pc_{split}.json")


@dataclass(frozen=True)
class ContextLabels:
    """Turns one picture's label map into the labels of the three sets.

    Args:
        to_59: class index of PC-59 by raw value, for the 59 classes.
        to_60: class index of PC-60 by raw value, for the 459 classes.
    """

    to_59: Mapping[int, int]
    to_60: Mapping[int, int]

    @classmethod
    def from_files(cls, all_names: Path, frequent_names: Path) -> ContextLabels:
        """Read `labels.txt` and `59_labels.txt`, and check them.

        Raises:
            PreparationError: a file is missing, or its names are not those of the class list, in
                its order.
        """
        names = read_names(all_names, "pascal_context_459")
        read_names(frequent_names, "pascal_context_59")
        raw = {_key(name): number for number, name in enumerate(names, 1)}
        to_60 = dict.fromkeys(raw.values(), class_list("pascal_context_60").background or 0)
        for index, name in enumerate(class_list("pascal_context_60").names):
            if _key(name) in raw:
                to_60[raw[_key(name)]] = index
        frequent = class_list("pascal_context_59").names
        return cls({raw[_key(name)]: index for index, name in enumerate(frequent)}, to_60)

    def __call__(self, task: Task) -> Sequence[np.ndarray]:
        """Make the labels of PC-59, PC-60 and PC-459, in this order."""
        raw = read_label_map(task.sources[0])
        all_classes = self.to_60.keys()
        others = [_UNLABELLED, *sorted(all_classes - self.to_59.keys())]
        background = class_list("pascal_context_60").background or 0
        return [
            relabel(raw, self.to_59, ignored=others),
            relabel(raw, {**self.to_60, _UNLABELLED: background}),
            relabel(
                raw,
                {number: number - 1 for number in all_classes},
                ignored=(_UNLABELLED,),
                ignore_label=65535,
            ),
        ]


def read_label_map(path: Path) -> np.ndarray:
    """Read the `LabelMap` of a MATLAB file; see `read_mat_labels`."""
    return read_mat_labels(path, "LabelMap")


def read_names(path: Path, classes: str) -> list[str]:
    """Read a numbered list of class names and hold it against a class list.

    Args:
        path: text file with lines such as `12: barrel`, numbered from 1.
        classes: name of the class list that it has to equal.

    Returns:
        The names of the class list.

    Raises:
        PreparationError: the file is missing, or a name differs.
    """
    if not path.is_file():
        raise PreparationError(f"expected the list {path}, which is not there\n{_REMEDY}")
    lines = read_text(path).splitlines()
    pairs = [line.split(":", 1) for line in lines if ":" in line]
    found = {number.strip(): name.strip() for number, name in pairs}
    expected = list(class_list(classes).names)
    for number, name in enumerate(expected, 1):
        got = found.get(str(number), "nothing")
        if _key(got) != _key(name):
            raise PreparationError(
                f"{path}: expected {name!r} as number {number} of {len(expected)}, got {got!r}; "
                "with another order every label would mean another class. "
                f"Take the list of the original publication\n{_REMEDY}"
            )
    if len(pairs) != len(expected):
        raise PreparationError(
            f"{path}: expected {len(expected)} names, got {len(pairs)}\n{_REMEDY}"
        )
    return expected


def _key(name: str) -> str:
    key = name.lower().replace(" ", "")
    return _SPELLINGS.get(key, key)


def _listing(base: Path, split: str) -> Path:
    """The list of a split under the name of open-vocabulary projects, or of MMSegmentation."""
    usual = base / f"pascalcontext_{split}.txt"
    other = base / "ImageSets" / "SegmentationContext" / f"{split}.txt"
    return other if other.is_file() and not usual.is_file() else usual
