"""A dataset of one's own from a few lines of YAML.

    name: garden
    images: pictures            # folder, relative to this file
    labels: labels              # folder of label maps of the same names
    classes: [lawn, flower bed, path]
    ignore_label: 255

or, instead of `labels`, a COCO JSON with instances:

    coco_json: instances.json

`DATASETS.TRAIN` and `DATASETS.TEST` take the path of such a file in place of a name.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from ovseg.d2.data import DatasetCatalog, MetadataCatalog
from ovseg.data.catalog import REGISTERING, class_metadata, load_sem_seg
from ovseg.data.coco_labels import CocoFile, coco_records
from ovseg.readers.documents import read_yaml
from ovseg.vocab import class_list, class_list_names, plain_name
from ovseg.vocab.class_sets import ClassSets

__all__ = ["DatasetYaml", "register_yaml", "resolve_dataset"]

_MARK = "registered_from_yaml"
_REQUIRED = ("name", "images")
_OPTIONAL = (
    "labels",
    "coco_json",
    "classes",
    "ignore_label",
    "evaluation_set",
    "image_suffix",
    "label_suffix",
    "split",
)
_SPLITS = {"train": "train", "validation": "validation", "val": "validation", "test": "test"}


@dataclass(frozen=True)
class DatasetYaml:
    """What such a file says.

    Args:
        name: name in the catalogue, and of the folder of results.
        images: folder of the pictures.
        labels: folder of the label maps; with `coco_json` they are drawn into it.
        classes: K names in the order of the labels.
        ignore_label: label of pixels without a class.
        coco_json: a COCO JSON with instances; None with label maps.
        evaluation_set: class indices by group name, which get scores of their own.
        image_suffix: ending of the pictures; None where the folder has one kind only.
        label_suffix: ending of the label maps; likewise.
        split: "train", "validation" (in the file also "val") or "test": what the pictures are for.
            Settings are tuned on the first two only; None leaves it to the name.
        class_list: the shipped list that the classes are; None for names of one's own.
    """

    name: str
    images: Path
    labels: Path
    classes: tuple[str, ...]
    ignore_label: int
    coco_json: Path | None = None
    evaluation_set: Mapping[str, Sequence[int]] | None = None
    image_suffix: str | None = None
    label_suffix: str | None = None
    split: str | None = None
    class_list: str | None = None

    @classmethod
    def read(cls, path: str | PathLike[str]) -> DatasetYaml:
        """Read and check a file; the folders it names are not looked at.

        Args:
            path: the YAML file; paths in it are relative to its folder and may hold `~` and
                environment variables.

        Returns:
            Its content.

        Raises:
            FileNotFoundError: the file, or a COCO JSON whose categories are the classes, is not
                there.
            ValueError: it is no valid YAML, a key is unknown or missing, or a value is unusable.
        """
        file = Path(path)
        values = _read_values(file)
        coco_json = _path(file, values, "coco_json")
        labels = _path(file, values, "labels")
        if labels is None and coco_json is None:
            raise ValueError(f"{file}: expected the key labels or coco_json, got neither")
        if labels is None:
            assert coco_json is not None
            labels = coco_json.with_name(f"{coco_json.stem}_labels")
        images = _path(file, values, "images")
        assert images is not None
        classes = _classes(file, values.get("classes"), coco_json)
        return cls(
            name=_name(file, values["name"]),
            images=images,
            labels=labels,
            classes=classes,
            ignore_label=_ignore_label(file, values.get("ignore_label"), len(classes)),
            coco_json=coco_json,
            evaluation_set=_groups(file, values.get("evaluation_set"), classes),
            image_suffix=_text(file, values, "image_suffix"),
            label_suffix=_text(file, values, "label_suffix"),
            split=_split(file, values.get("split")),
            class_list=listed if isinstance(listed := values.get("classes"), str) else None,
        )

    def load(self) -> list[dict[str, Any]]:
        """List the records; of a COCO JSON the label maps are drawn first.

        Raises:
            DatasetFilesError: files are missing.
            ValueError: the COCO JSON is unusable.
        """
        if self.coco_json is not None:
            return coco_records(
                self.coco_json,
                name=self.name,
                images=self.images,
                labels=self.labels,
                classes=self.classes,
                ignore_label=self.ignore_label,
            )
        return load_sem_seg(
            self.labels,
            self.images,
            label_suffix=self.label_suffix,
            image_suffix=self.image_suffix,
            name=self.name,
        )


def resolve_dataset(entry: str) -> str:
    """Give the name of a dataset; a path ending in .yaml is registered first.

    Args:
        entry: a registered name, or the path of a YAML file.

    Returns:
        The name.

    Raises:
        FileNotFoundError, ValueError: as `register_yaml`.
    """
    return register_yaml(entry) if entry.lower().endswith((".yaml", ".yml")) else entry


def register_yaml(path: str | PathLike[str]) -> str:
    """Register the dataset of a YAML file; doing it again does no harm.

    Args:
        path: the file, see `DatasetYaml`.

    Returns:
        The name under which it is registered.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be used, or its name is taken by another dataset.
    """
    with REGISTERING:
        return _register(DatasetYaml.read(path), path)


def _register(dataset: DatasetYaml, path: str | PathLike[str]) -> str:
    mark = f"{Path(path).resolve()} {hashlib.sha256(repr(dataset).encode()).hexdigest()}"
    if dataset.name in DatasetCatalog.list():
        found = MetadataCatalog.get(dataset.name).get(_MARK)
        if found == mark:
            return dataset.name
        if found is None or found.split(" ")[:-1] != mark.split(" ")[:-1]:
            raise ValueError(
                f"{path}: expected a name that is free, but {dataset.name!r} is taken by another "
                "dataset; change `name`"
            )
        DatasetCatalog.remove(dataset.name)
        MetadataCatalog.remove(dataset.name)
    DatasetCatalog.register(dataset.name, dataset.load)
    stated = {"evaluation_set": dataset.evaluation_set, "split": dataset.split}
    MetadataCatalog.get(dataset.name).set(
        stuff_classes=list(dataset.classes),
        image_root=str(dataset.images),
        sem_seg_root=str(dataset.labels),
        evaluator_type="sem_seg",
        ignore_label=dataset.ignore_label,
        **{key: value for key, value in stated.items() if value},
        **(class_metadata(dataset.class_list) if dataset.class_list else {}),
        **{_MARK: mark},
    )
    return dataset.name


def _read_values(file: Path) -> dict[str, Any]:
    try:
        values = read_yaml(file)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"no dataset file {file}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{file}: expected KEY: VALUE lines, got {type(values).__name__}")
    valid = (*_REQUIRED, *_OPTIONAL)
    for key in values:
        if key not in valid:
            close = difflib.get_close_matches(str(key), valid, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise ValueError(f"{file}: unknown key {key!r}; valid: {', '.join(valid)}{hint}")
    for key in _REQUIRED:
        if values.get(key) is None:
            raise ValueError(f"{file}: expected a value for the key {key!r}, got none")
    return values


def _text(file: Path, values: Mapping[str, Any], key: str) -> str | None:
    value = values.get(key)
    if value is not None and (not isinstance(value, str) or not value.strip()):
        raise ValueError(f"{file}: {key}: expected text, got {value!r}")
    return value


def _path(file: Path, values: Mapping[str, Any], key: str) -> Path | None:
    text = _text(file, values, key)
    return None if text is None else file.parent / Path(os.path.expandvars(text)).expanduser()


def _name(file: Path, value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"\w[\w.-]*", value):
        raise ValueError(
            f"{file}: name: expected letters, digits, '_', '-' and '.', got {value!r}; results "
            "are kept in a folder of that name"
        )
    return value


def _classes(file: Path, value: Any, coco_json: Path | None) -> tuple[str, ...]:
    if value is None and coco_json is not None:
        return tuple(CocoFile.read(coco_json).categories.values())
    if isinstance(value, str):
        if value not in class_list_names():
            raise ValueError(
                f"{file}: classes: expected a list of names, or one of "
                f"{', '.join(class_list_names())}; got {value!r}"
            )
        return tuple(plain_name(name) for name in class_list(value).names)
    if not isinstance(value, list) or not value:
        raise ValueError(f"{file}: classes: expected a list of names, got {value!r}")
    for name in value:
        if not isinstance(name, str) or not name.strip():
            raise ValueError(
                f"{file}: classes: expected names, got {name!r}; put quotes around words that "
                "YAML reads as something else, such as 'no', 'on' and numbers"
            )
    names = tuple(plain_name(name) for name in value)
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise ValueError(f"{file}: classes: expected each name once, got twice: {doubled}")
    return names


def _ignore_label(file: Path, value: Any, num_classes: int) -> int:
    if value is None:
        return 255 if num_classes <= 255 else 65535
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 65535:
        raise ValueError(f"{file}: ignore_label: expected a number in 0-65535, got {value!r}")
    if value < num_classes:
        raise ValueError(
            f"{file}: ignore_label: expected a number that is no class, got {value}, which is the "
            f"label of a class (0-{num_classes - 1})"
        )
    return value


def _split(file: Path, value: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or value not in _SPLITS:
        raise ValueError(f"{file}: split: expected one of {', '.join(_SPLITS)}, got {value!r}")
    return _SPLITS[value]


def _groups(file: Path, value: Any, classes: Sequence[str]) -> dict[str, list[int]] | None:
    if value is None:
        return None
    if not isinstance(value, dict) or not all(isinstance(part, list) for part in value.values()):
        raise ValueError(
            f"{file}: evaluation_set: expected lists of class names, such as seen: [lawn], got "
            f"{value!r}"
        )
    value = {
        key: [plain_name(name) if isinstance(name, str) else name for name in names]
        for key, names in value.items()
    }
    unknown = sorted({str(n) for names in value.values() for n in names if n not in classes})
    if unknown:
        raise ValueError(f"{file}: evaluation_set: expected names of classes, got {unknown}")
    groups = {str(key): [classes.index(name) for name in names] for key, names in value.items()}
    try:
        ClassSets.make(groups, None, len(classes))
    except ValueError as error:
        raise ValueError(f"{file}: evaluation_set: {error}") from error
    return groups
