"""What a dataset should look like on disk, from the catalogue or a YAML file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ovseg.d2.data import DatasetCatalog, MetadataCatalog
from ovseg.data.benchmarks import BENCHMARKS, SemSegFolders
from ovseg.data.catalog import dataset_root
from ovseg.data.dataset_yaml import DatasetYaml
from ovseg.readers.documents import read_json

__all__ = ["Subject", "find_subject", "prepared_names"]


@dataclass(frozen=True)
class Subject:
    """A dataset that is to be verified.

    Args:
        name: name in the catalogue.
        images: folder of the pictures, see `ovseg.data.catalog.expand_folder`.
        labels: folder of the label maps.
        classes: K names in the order of the labels.
        ignore_label: label of pixels without a class.
        again: what makes its label maps again, for remedies.
        image_suffix: ending of the pictures; None where there is one kind only.
        label_suffix: ending of the label maps; likewise.
        count: published number of pictures.
        listing: file with the names of the split.
        partial: label maps of nothing but ignored pixels are left out.
        name_files: files of the dataset with class names, and the class list each has to equal.
        records: pictures with their label maps, where folders do not say.
    """

    name: str
    images: Path
    labels: Path
    classes: Sequence[str]
    ignore_label: int
    again: str
    image_suffix: str | None = None
    label_suffix: str | None = None
    count: int | None = None
    listing: Path | None = None
    partial: bool = False
    name_files: Sequence[tuple[Path, str]] = ()
    records: Sequence[Mapping[str, Any]] | None = None


def find_subject(name: str, root: Path | None = None) -> Subject:
    """Find out what a dataset should look like.

    Args:
        name: a dataset of the catalogue, or the path of a YAML file.
        root: folder of all datasets; None takes it from the environment.

    Returns:
        What is to be verified.

    Raises:
        ValueError: there is no such dataset, or its YAML file is unusable.
        FileNotFoundError: there is no such YAML file.
    """
    base = dataset_root(root)
    if name.lower().endswith((".yaml", ".yml")):
        return _from_yaml(name)
    for folders in BENCHMARKS:
        if folders.name == name:
            return _from_benchmark(folders, base)
    if name in DatasetCatalog.list():
        return _from_records(name)
    raise ValueError(
        f"expected the name of a dataset or the path of a .yaml file, got {name!r}; valid: "
        f"{', '.join(folders.name for folders in BENCHMARKS)}"
    )


def prepared_names(root: Path | None = None) -> list[str]:
    """List the datasets whose label maps are there.

    Args:
        root: folder of all datasets; None takes it from the environment.
    """
    base = dataset_root(root)
    return [f.name for f in BENCHMARKS if (base / f.labels.split("*")[0]).is_dir()]


def _from_benchmark(folders: SemSegFolders, base: Path) -> Subject:
    listings = [base / listing for listing in folders.listings]
    voc2010 = base / "VOCdevkit" / "VOC2010"
    context = (
        (voc2010 / "labels.txt", "pascal_context_459"),
        (voc2010 / "59_labels.txt", "pascal_context_59"),
    )
    return Subject(
        name=folders.name,
        images=base / folders.images,
        labels=base / folders.labels,
        classes=folders.class_names,
        ignore_label=folders.ignore_label,
        again=(
            f"remove {(base / folders.images).parent} and run python {folders.script} --root {base}"
            if folders.maker
            else f"run python {folders.script} --root {base} --force (datasets/README.md says "
            "which raw data it takes)"
        ),
        image_suffix=folders.image_suffix,
        label_suffix=folders.label_suffix,
        count=_images_in(base / folders.counted_in) if folders.counted_in else folders.count,
        listing=next((f for f in listings if f.is_file()), listings[0] if listings else None),
        partial=folders.partial,
        name_files=context if folders.classes.startswith("pascal_context") else (),
    )


def _from_yaml(path: str) -> Subject:
    dataset = DatasetYaml.read(path)
    drawn = dataset.coco_json is not None
    return Subject(
        name=dataset.name,
        images=dataset.images,
        labels=dataset.labels,
        classes=dataset.classes,
        ignore_label=dataset.ignore_label,
        again=(
            f"remove {dataset.labels}: it is drawn again from {dataset.coco_json}"
            if drawn
            else f"correct the label maps, or `classes` and `ignore_label` in {path}"
        ),
        image_suffix=dataset.image_suffix,
        label_suffix=dataset.label_suffix,
        records=dataset.load() if drawn else None,
    )


def _images_in(file: Path) -> int | None:
    """Number of pictures that were made; None where that is not known."""
    try:
        found = read_json(file)
    except (FileNotFoundError, ValueError):
        return None
    count = found.get("images") if isinstance(found, dict) else None
    return count if isinstance(count, int) else None


def _from_records(name: str) -> Subject:
    metadata = MetadataCatalog.get(name)
    return Subject(
        name=name,
        images=Path(metadata.get("image_root", "")),
        labels=Path(metadata.get("sem_seg_root", "")),
        classes=metadata.stuff_classes,
        ignore_label=metadata.get("ignore_label", 255),
        again="correct the label maps",
        records=DatasetCatalog.get(name),
    )
