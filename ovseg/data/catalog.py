"""The benchmarks by name: where their files lie and what their classes are called.

The names, folders and class lists are those that users of Detectron2-based open-vocabulary
projects already have on disk. Nothing is read from disk before a dataset is used.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from ovseg.d2.data import DatasetCatalog, MetadataCatalog
from ovseg.d2.utils import log_first_n
from ovseg.data.benchmarks import BENCHMARKS, SemSegFolders
from ovseg.tinyscapes import (
    ALL_NAMES,
    IGNORE_LABEL,
    SEEN_NAMES,
    ensure_split,
    scene_groups,
)
from ovseg.vocab import class_list

__all__ = [
    "BENCHMARKS",
    "ROOT_VARIABLE",
    "DatasetFilesError",
    "SemSegFolders",
    "class_metadata",
    "dataset_root",
    "expand_folder",
    "files_by_stem",
    "load_sem_seg",
    "register_builtin",
    "register_sem_seg",
]

ROOT_VARIABLE = "DETECTRON2_DATASETS"
"""Environment variable with the folder that holds all datasets; without it, `datasets`."""

_MARK = "registered_by_ovseg"
_PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".bmp")
_logger = logging.getLogger(__name__)


class DatasetFilesError(FileNotFoundError):
    """The files of a dataset are not where they are expected."""


def dataset_root(root: str | PathLike[str] | None = None) -> Path:
    """Find the folder that holds all datasets.

    Args:
        root: the folder; None takes it from the environment.

    Returns:
        The folder, which need not exist.
    """
    if root is None:
        root = os.environ.get(ROOT_VARIABLE) or "datasets"
    return Path(root).expanduser()


def register_builtin(root: str | PathLike[str] | None = None) -> None:
    """Register the benchmarks and the tinyscapes sets; calling it again does no harm.

    A name that Detectron2 has registered keeps its loader and gains what is missing in its
    metadata. With another root than before, the sets registered here move to the new one.

    Args:
        root: folder that holds all datasets; None takes it from the environment.
    """
    base = dataset_root(root)
    for folders in BENCHMARKS:
        _register_benchmark(folders, base)
    for split in ("train", "val", "test"):
        _register_tinyscapes(split, base)


def register_sem_seg(
    name: str,
    *,
    images: str | PathLike[str],
    labels: str | PathLike[str],
    stuff_classes: Sequence[str],
    image_suffix: str | None = "jpg",
    label_suffix: str | None = "png",
    ignore_label: int = 255,
    hint: str = "",
    **metadata: Any,
) -> None:
    """Register a dataset of pictures and label maps of the same names.

    Args:
        name: name in the catalogue.
        images: folder of the pictures.
        labels: folder of the label maps, whose values index `stuff_classes`.
        stuff_classes: class names in the order of the labels.
        image_suffix: ending of the pictures; None takes the only one in the folder.
        label_suffix: ending of the label maps; likewise.
        ignore_label: label of pixels without a class.
        hint: what to do when the files are missing, for the error message.
        **metadata: further metadata, such as `evaluation_set` or `class_groups`.

    Raises:
        AssertionError: the name is taken.
    """

    def load() -> list[dict[str, Any]]:
        return load_sem_seg(
            labels,
            images,
            label_suffix=label_suffix,
            image_suffix=image_suffix,
            hint=hint,
            name=name,
        )

    DatasetCatalog.register(name, load)
    MetadataCatalog.get(name).set(
        stuff_classes=list(stuff_classes),
        image_root=str(images),
        sem_seg_root=str(labels),
        evaluator_type="sem_seg",
        ignore_label=ignore_label,
        **metadata,
    )


def class_metadata(name: str) -> dict[str, Any]:
    """Tell what a class list says beyond the names, for the metadata of a data set.

    Args:
        name: a shipped class list.

    Returns:
        `background_class` and `class_synonyms`, as far as the list has them.
    """
    classes = class_list(name)
    metadata: dict[str, Any] = {}
    if classes.background is not None:
        metadata["background_class"] = classes.background
    if any(given != (own,) for own, given in zip(classes.names, classes.synonyms, strict=True)):
        metadata["class_synonyms"] = [list(given) for given in classes.synonyms]
    return metadata


def load_sem_seg(
    label_root: str | PathLike[str],
    image_root: str | PathLike[str],
    *,
    label_suffix: str | None = "png",
    image_suffix: str | None = "jpg",
    name: str = "",
    hint: str = "",
) -> list[dict[str, Any]]:
    """Pair the pictures of a folder with the label maps of another by their names.

    Files without a partner are left out, with a warning that says how many.

    Args:
        label_root: folder of the label maps; see `expand_folder` for `*` in it.
        image_root: folder of the pictures; likewise.
        label_suffix: ending of the label maps; one with a dot in it (`_labels.png`) is cut off
            the name in full. None takes the only ending of pictures in the folder.
        image_suffix: ending of the pictures; likewise.
        name: dataset name, for messages and `meta`.
        hint: what to do when the files are missing, for the error message.

    Returns:
        One record per pair, sorted by name: `file_name`, `sem_seg_file_name`, `image_id`, `meta`.

    Raises:
        DatasetFilesError: a folder is missing or has no such files, or no names match.
    """
    images = files_by_stem(image_root, image_suffix, name, hint)
    labels = files_by_stem(label_root, label_suffix, name, hint)
    stems = sorted(images.keys() & labels.keys())
    if not stems:
        raise DatasetFilesError(
            f"dataset {name!r}: expected pictures and label maps of the same names, but none of "
            f"the {len(images)} files in {image_root} matches one of the {len(labels)} in "
            f"{label_root}"
        )
    if len(stems) < max(len(images), len(labels)):
        # An evaluation asks for its records several times.
        log_first_n(
            logging.WARNING,
            f"{image_root} has {len(images)} {image_suffix} files and {label_root} has "
            f"{len(labels)} {label_suffix} files; using the {len(stems)} that are in both",
            name=__name__,
            key="message",
        )
    return [
        {
            "file_name": str(images[stem]),
            "sem_seg_file_name": str(labels[stem]),
            "image_id": stem,
            "meta": {"dataset_name": name},
        }
        for stem in stems
    ]


def expand_folder(pattern: str | PathLike[str]) -> list[Path]:
    """List the folders that a path stands for.

    Args:
        pattern: a folder; a part that is just `*` stands for every folder there.

    Returns:
        The folders, sorted; without a `*` the path itself, whether it is there or not.

    Raises:
        FileNotFoundError, NotADirectoryError: what lies above a `*` is no folder.
    """
    path = Path(pattern)
    if "*" not in path.parts:
        return [path]
    index = path.parts.index("*")
    above, below = Path(*path.parts[:index]), Path(*path.parts[index + 1 :])
    children = sorted(child for child in above.iterdir() if child.is_dir())
    found = [part for child in children for part in expand_folder(child / below)]
    return [part for part in found if part.is_dir()]


def files_by_stem(
    folder: str | PathLike[str], suffix: str | None, name: str = "", hint: str = ""
) -> dict[str, Path]:
    """List the files of a folder by their names without the ending.

    Args:
        folder: see `expand_folder`.
        suffix: ending of the files, as in `load_sem_seg`; hidden files are left out.
        name: dataset name, for messages.
        hint: what to do when the files are missing, for the error message.

    Returns:
        Path by name, in no order.

    Raises:
        DatasetFilesError: the folder is missing or has no such files.
    """
    try:
        paths = [path for part in expand_folder(folder) for path in part.iterdir()]
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DatasetFilesError(_missing(f"no folder {folder}", name, hint)) from error
    if suffix is None:
        suffix = _only_suffix(paths, folder, name)
    ending = (suffix if "." in suffix else f".{suffix}").lower()
    files = {
        path.name[: -len(ending)]: path
        for path in paths
        if path.name.lower().endswith(ending) and not path.name.startswith(".")
    }
    if not files:
        raise DatasetFilesError(_missing(f"no *{ending} files in {folder}", name, hint))
    return files


def _only_suffix(paths: Sequence[Path], folder: str | PathLike[str], name: str) -> str:
    found = sorted({p.suffix.lower() for p in paths if p.suffix.lower() in _PICTURE_SUFFIXES})
    if len(found) != 1:
        raise DatasetFilesError(
            f"dataset {name!r}: expected files of one kind in {folder}, got "
            f"{', '.join(found) or 'no pictures'}; name the ending that counts"
        )
    return found[0]


def _missing(what: str, name: str, hint: str) -> str:
    return f"dataset {name!r}: {what}" + (f"\n{hint}" if hint else "")


def _tree_hint(folders: SemSegFolders, base: Path) -> str:
    return (
        f"expected:\n  {base}/\n    {folders.images}/{_star(folders.image_suffix)}\n"
        f"    {folders.labels}/{_star(folders.label_suffix)}\n"
        + (f"{folders.script} makes the label maps from the raw data\n" if folders.script else "")
        + f"set the environment variable {ROOT_VARIABLE} to the folder that holds your datasets "
        f"(now {os.environ.get(ROOT_VARIABLE) or 'not set'})"
    )


def _star(suffix: str) -> str:
    return f"*{suffix}" if "." in suffix else f"*.{suffix}"


def _register_benchmark(folders: SemSegFolders, base: Path) -> None:
    classes = class_list(folders.classes)
    metadata: dict[str, Any] = {}
    if folders.classes == "coco_stuff_171" and classes.ids is not None:
        metadata["stuff_dataset_id_to_contiguous_id"] = {
            raw: index for index, raw in enumerate(classes.ids)
        }
    if folders.classes == "ade20k_847":
        metadata["thing_classes"] = list(classes.names)
    metadata |= class_metadata(folders.classes)
    if not _claim(folders.name, base):
        _complete_metadata(folders, base, classes.names, metadata)
        return
    register_sem_seg(
        folders.name,
        images=base / folders.images,
        labels=base / folders.labels,
        stuff_classes=classes.names,
        image_suffix=folders.image_suffix,
        label_suffix=folders.label_suffix,
        ignore_label=folders.ignore_label,
        hint=_tree_hint(folders, base),
        **metadata,
        **{_MARK: str(base)},
    )


def _claim(name: str, base: Path) -> bool:
    """Tell whether to register a name: it is free, or ours and of another root."""
    if name not in DatasetCatalog.list():
        return True
    if MetadataCatalog.get(name).get(_MARK) in (None, str(base)):
        return False
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)
    return True


def _complete_metadata(
    folders: SemSegFolders, base: Path, names: Sequence[str], extra: Mapping[str, Any]
) -> None:
    """Add what another registration of a benchmark left out; check what it has."""
    metadata = MetadataCatalog.get(folders.name)
    if metadata.get(_MARK) is not None:
        return
    wanted = {
        "stuff_classes": list(names),
        "evaluator_type": "sem_seg",
        "ignore_label": folders.ignore_label,
        "image_root": str(base / folders.images),
        "sem_seg_root": str(base / folders.labels),
        **extra,
    }
    differing = []
    for key, value in wanted.items():
        present = metadata.get(key)
        if present is None:
            metadata.set(**{key: value})
        elif not _same(present, value):
            differing.append(key)
    if differing:
        _logger.warning(
            "dataset %s was registered elsewhere with another %s than here; that one is used",
            *(folders.name, " and ".join(differing)),
        )


def _same(present: Any, wanted: Any) -> bool:
    if isinstance(wanted, list):
        return list(present) == wanted
    if isinstance(wanted, str):
        return Path(present) == Path(wanted)  # "./datasets" is "datasets"
    return bool(present == wanted)


def _register_tinyscapes(split: str, base: Path) -> None:
    name = f"tinyscapes_{split}_sem_seg"
    if not _claim(name, base):
        return
    folder = base / "tinyscapes"
    images, labels = folder / f"{split}2017", folder / "stuffthingmaps" / f"{split}2017"

    def load() -> list[dict[str, Any]]:
        ensure_split(base, split)
        return load_sem_seg(labels, images, name=name)

    metadata: dict[str, Any] = {"stuff_classes": list(SEEN_NAMES)}
    if split != "train":
        metadata = {
            "stuff_classes": list(ALL_NAMES),
            "evaluation_set": {"seen": list(range(len(SEEN_NAMES)))},
            "class_groups": scene_groups(),
        }
    DatasetCatalog.register(name, load)
    MetadataCatalog.get(name).set(
        image_root=str(images),
        sem_seg_root=str(labels),
        evaluator_type="sem_seg",
        ignore_label=IGNORE_LABEL,
        **metadata,
        **{_MARK: str(base)},
    )
