"""Pictures with label maps as a source of named regions: what is labelled where, and its words."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ovseg.d2.data import DatasetCatalog, MetadataCatalog
from ovseg.data.dataset_yaml import resolve_dataset
from ovseg.readers.arrays import read_npz
from ovseg.readers.pictures import read_image, read_label
from ovseg.utils.files import atomic_path

__all__ = ["LabelledPictures", "class_words", "find_regions"]

Picture = tuple[NDArray[np.uint8], NDArray[np.integer]]

_COLLECTIVE = ("-other", "-stuff")  # COCO-Stuff's marks on classes that are otherwise plain words


class LabelledPictures(Sequence[Picture]):
    """The pictures of a training set with their label maps, read when they are asked for.

    `pictures[i]` is an image (H, W, 3) uint8 RGB and its labels (H, W) uint16.

    Args:
        dataset: a registered name such as "coco_2017_train_stuff_sem_seg", or a dataset YAML.
        limit: number of pictures, from the first one on; None takes all.

    Attributes:
        name: of the dataset.
        ids: names of the pictures, without folder and ending.
        words: per labelled class the nouns that mean it, its own first. Ignored pixels and the
            class "none of the others" are no class here.

    Raises:
        DatasetFilesError: its files are missing.
        ValueError: there is no such dataset, or it is there to measure on and not to train on.
    """

    def __init__(self, dataset: str, *, limit: int | None = None) -> None:
        self.name = resolve_dataset(dataset)
        if self.name not in DatasetCatalog.list():
            raise ValueError(
                f"expected a registered dataset with label maps, such as "
                f"coco_2017_train_stuff_sem_seg, or a dataset YAML, got {dataset!r}"
            )
        metadata = MetadataCatalog.get(self.name)
        split = metadata.get("split")
        if split in ("validation", "test"):
            raise ValueError(
                f"{self.name} is a {split} split, which results are measured on; take labels from "
                "a training split"
            )
        names, synonyms = metadata.stuff_classes, metadata.get("class_synonyms")
        left_out = (metadata.get("ignore_label"), metadata.get("background_class"))
        self.words: Mapping[int, tuple[str, ...]] = {
            number: class_words(synonyms[number] if synonyms else [name])
            for number, name in enumerate(names)
            if number not in left_out
        }
        records = DatasetCatalog.get(self.name)[:limit]
        self.ids = [str(record["image_id"]) for record in records]
        self._files = [(record["file_name"], record["sem_seg_file_name"]) for record in records]
        self._read_label = partial(read_label, classes=len(names))

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Picture:  # type: ignore[override]  # no slices
        return read_image(self._files[index][0]), self.labels(index)

    def labels(self, index: int) -> NDArray[np.uint16]:
        """The label map of a picture, (H, W)."""
        return self._read_label(self._files[index][1]).astype(np.uint16)

    def regions(
        self, *, min_pixels: int = 32, workers: int = 1, index_file: Path | None = None
    ) -> NDArray[np.int32]:
        """Find the regions of all pictures; every label map is read once.

        Args:
            min_pixels: smaller regions are left out.
            workers: threads that read.
            index_file: where the result is kept; one that was made of the same files with the
                same settings is used instead of reading them again.

        Returns:
            See `find_regions`.
        """
        key = self._fingerprint(min_pixels) if index_file is not None else ""
        if index_file is not None and (found := _read_index(index_file, key)) is not None:
            return found
        with ThreadPoolExecutor(max(workers, 1)) as pool:
            label_maps = pool.map(self.labels, range(len(self)))
            regions = find_regions(label_maps, list(self.words), min_pixels=min_pixels)
        if index_file is not None:
            with atomic_path(index_file) as partial_file:
                np.savez_compressed(partial_file, key=np.array(key), regions=regions)
        return regions

    def _fingerprint(self, min_pixels: int) -> str:
        files = [Path(label) for _, label in self._files]
        sizes = [(file.name, file.stat().st_size) for file in files]
        facts = json.dumps([self.name, list(self.words), min_pixels, sizes])
        return hashlib.sha256(facts.encode()).hexdigest()


def find_regions(
    label_maps: Iterable[NDArray[np.integer]], classes: Sequence[int], *, min_pixels: int = 32
) -> NDArray[np.int32]:
    """List the regions of label maps, one per class and picture.

    Args:
        label_maps: (H, W) class ids.
        classes: ids that count; all others are passed over.
        min_pixels: smaller regions are left out.

    Returns:
        (N, 2) number of the label map and class id, in their order.
    """
    wanted = np.asarray(classes, dtype=np.int64)

    def rows() -> Iterator[tuple[int, int]]:
        for number, labels in enumerate(label_maps):
            pixels = np.bincount(labels.ravel(), minlength=int(wanted.max(initial=-1)) + 1)
            for class_id in wanted[pixels[wanted] >= min_pixels].tolist():
                yield number, class_id

    return np.array(list(rows()), dtype=np.int32).reshape(-1, 2)


def class_words(synonyms: Sequence[str]) -> tuple[str, ...]:
    """Give the nouns that mean a class.

    Args:
        synonyms: the strings that stand for the class, its name first; each may hold several,
            separated by commas as ADE20K has them.

    Returns:
        The nouns, without COCO-Stuff's "-other" and "-stuff".
    """
    words = [part.strip() for text in synonyms for part in text.split(",") if part.strip()]
    for ending in _COLLECTIVE:
        words = [word.removesuffix(ending) for word in words]
    return tuple(dict.fromkeys(words))


def _read_index(file: Path, key: str) -> NDArray[np.int32] | None:
    """The regions that a file holds, if it was made with this key."""
    try:
        arrays = read_npz(file, ["regions", "key"])
        return arrays["regions"] if str(arrays["key"]) == key else None
    except (OSError, ValueError):
        return None
