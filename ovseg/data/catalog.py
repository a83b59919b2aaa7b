"""The benchmarks by name: where their files lie and what their classes are called.

The names, folders and class lists are those that users of Detectron2-based open-vocabulary
projects already have on disk. Nothing is read from disk before a dataset is used.
"""

from __future__ import annotations

import importlib
import logging
import os
import threading
from collections.abc import Callable, Sequence
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

from ovseg.d2.data import DatasetCatalog, MetadataCatalog
from ovseg.d2.utils import log_first_n
from ovseg.data.benchmarks import BENCHMARKS, SemSegFolders
from ovseg.vocab import class_list
from ovseg.vocab.class_sets import ClassSets

__all__ = [
    "BENCHMARKS",
    "REGISTERING",
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
REGISTERING = threading.RLock()
"""Held while datasets of ours are looked for in the catalogues and entered."""
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

    Afterwards these names mean the files and classes that are described here, below this root,
    whoever had registered them before. Detectron2 has registered some of them when it was
    imported, with the root of that moment; its other names are left alone.

    Args:
        root: folder that holds all datasets; None takes it from the environment.
    """
    base = dataset_root(root)
    with REGISTERING:
        replaced = [folders.name for folders in BENCHMARKS if _register_benchmark(folders, base)]
    if replaced:
        _logger.info(
            "ovseg's own registration now stands for %s, which were registered elsewhere",
            ", ".join(replaced),
        )


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
    make_files: Callable[[], object] | None = None,
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
        make_files: called before the files are listed.
        **metadata: further metadata, such as `evaluation_set` or `class_groups`.

    Raises:
        AssertionError: the name is taken.
        ValueError: sets of classes cannot be scored, see `ovseg.vocab.class_sets`.
    """
    ClassSets.make(metadata.get("evaluation_set"), metadata.get("class_groups"), len(stuff_classes))

    def load() -> list[dict[str, Any]]:
        if make_files is not None:
            make_files()
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
    """Tell what a class list says beyond the names, for the metadata of a dataset.

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


def _register_benchmark(folders: SemSegFolders, base: Path) -> bool:
    """Register one of them; tells whether another registration made way for it."""
    name = folders.name
    taken, known = name in DatasetCatalog.list(), name in MetadataCatalog.list()
    ours = MetadataCatalog.get(name).get(_MARK) if known else None
    if taken and ours == str(base):
        return False
    if taken:
        DatasetCatalog.remove(name)
    if known:  # what metadata say cannot be changed, only said anew
        MetadataCatalog.remove(name)
    classes = class_list(folders.classes)
    metadata = class_metadata(folders.classes)
    if folders.classes == "coco_stuff_171" and classes.ids is not None:
        metadata["stuff_dataset_id_to_contiguous_id"] = {
            raw: index for index, raw in enumerate(classes.ids)
        }
    if folders.classes == "ade20k_847":
        metadata["thing_classes"] = list(classes.names)
    if classes.unseen and not folders.seen_only:
        metadata["evaluation_set"] = {"seen": list(classes.seen)}
        metadata["class_groups"] = {group: list(ids) for group, ids in classes.groups.items()}
    register_sem_seg(
        name,
        images=base / folders.images,
        labels=base / folders.labels,
        stuff_classes=folders.class_names,
        image_suffix=folders.image_suffix,
        label_suffix=folders.label_suffix,
        ignore_label=folders.ignore_label,
        hint=_tree_hint(folders, base),
        make_files=partial(_make_files, folders.maker, base) if folders.maker else None,
        split=folders.split,
        **metadata,
        **{_MARK: str(base)},
    )
    return taken and ours is None


def _make_files(maker: tuple[str, str, str], base: Path) -> None:
    module, function, argument = maker
    getattr(importlib.import_module(module), function)(base, argument)
