"""Label maps from the instances of a COCO JSON, so that it can serve as a semantic dataset."""

from __future__ import annotations

import hashlib
import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from iopath.common.file_io import file_lock

from ovseg.data.catalog import DatasetFilesError
from ovseg.data.prepare.pipeline import PreparationError, Task, prepare
from ovseg.readers.documents import read_json
from ovseg.readers.limits import require_within
from ovseg.readers.segmentations import decode_segmentation
from ovseg.utils.files import sha256_of, write_json
from ovseg.vocab import plain_name

__all__ = ["CocoFile", "coco_records", "draw_labels"]

_STAMP = ".made_from.json"
_logger = logging.getLogger(__name__)

Annotation = Mapping[str, Any]
_LONGEST_NAME, _LONGEST_PATH = 255, 2048  # bytes, as file systems have them or less


@dataclass(frozen=True)
class CocoFile:
    """A COCO JSON with instances.

    Args:
        path: the JSON.
        images: its `images`: `id`, `file_name`, `height`, `width`.
        annotations: its `annotations` by image id: `category_id`, `segmentation`.
        categories: name by category id, in the order of the ids.
    """

    path: Path
    images: Sequence[Mapping[str, Any]]
    annotations: Mapping[int, Sequence[Annotation]]
    categories: Mapping[int, str]

    @classmethod
    def read(cls, path: Path) -> CocoFile:
        """Read and check the JSON.

        Raises:
            DatasetFilesError: there is no such file.
            ValueError: it is no COCO JSON with instances.
        """
        try:
            content = read_json(path)
            annotations: dict[int, list[Annotation]] = defaultdict(list)
            for annotation in content["annotations"]:
                annotations[annotation["image_id"]].append(
                    {key: annotation[key] for key in ("id", "category_id", "segmentation")}
                )
            categories = {c["id"]: plain_name(str(c["name"])) for c in content["categories"]}
            images = [
                {key: image[key] for key in ("id", "file_name", "height", "width")}
                for image in content["images"]
            ]
            for image in images:
                _check_image(image)
            parts = list(chain.from_iterable(annotations.values()))
            _check_ids("images", [image["id"] for image in images])
            _check_ids("annotations", [part["id"] for part in parts])
            _check_ids("categories", [*categories, *(part["category_id"] for part in parts)])
            categories = dict(sorted(categories.items()))
        except FileNotFoundError as error:
            raise DatasetFilesError(f"coco_json: no such file {path}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path}: expected a COCO JSON with images (id, file_name, height, width), "
                "annotations (id, image_id, category_id, segmentation) and categories (id, name), "
                f"got {type(error).__name__}: {error}"
            ) from error
        return cls(path, images, annotations, categories)


def _check_ids(of: str, ids: Sequence[Any]) -> None:
    if not any(all(isinstance(one, kind) for one in ids) for kind in (int | float, str)):
        odd = next(one for one in ids if not isinstance(one, int))
        raise ValueError(
            f"ids of {of} that are neither all numbers nor all text, such as {odd!r:.80}"
        )


def _check_image(image: Mapping[str, Any]) -> None:
    size = (image["height"], image["width"])
    if not isinstance(image["file_name"], str) or "\0" in image["file_name"]:
        raise ValueError(f"the file name {image['file_name']!r:.80}")
    name = image["file_name"].encode("utf-8", "surrogatepass")
    if len(name) > _LONGEST_PATH or max(map(len, name.split(b"/"))) > _LONGEST_NAME:
        raise ValueError(f"a file name of more than {_LONGEST_NAME} bytes, or so long a path")
    if not all(type(side) is int and side > 0 for side in size):
        raise ValueError(f"the size {size!r:.80} of {image['file_name']!r:.80}")
    require_within("picture_pixels", size[0] * size[1], of=image["file_name"])


def coco_records(
    path: Path,
    *,
    name: str,
    images: Path,
    labels: Path,
    classes: Sequence[str],
    ignore_label: int,
) -> list[dict[str, Any]]:
    """List the records of a COCO JSON; its label maps are drawn when they are not there yet.

    Args:
        path: the JSON.
        name: of the dataset, for `meta` and messages.
        images: folder of the pictures.
        labels: folder for the label maps; those of another JSON or class list are replaced.
        classes: K names in the order of the labels, among them categories of the JSON. If
            "background" is one and no category has that name, it is the label of pixels outside
            every instance; else they are ignored.
        ignore_label: label of pixels without a class.

    Returns:
        One record per picture that is there, in the order of the JSON.

    Raises:
        DatasetFilesError: the JSON or all its pictures are missing.
        ValueError: the JSON is unusable, a class is no category of it, or the label maps would lie
            among the pictures.
        PreparationError: files would be written over that were not made here.
    """
    if labels.resolve() == images.resolve():
        raise ValueError(
            f"dataset {name!r}: labels: expected a folder of its own for the label maps, got that "
            f"of the pictures, {labels}; leave `labels` out, or name another folder"
        )
    content = CocoFile.read(path)
    indices = _class_indices(content, classes, ignore_label)
    outside = ignore_label
    if "background" in classes and "background" not in content.categories.values():
        outside = list(classes).index("background")
    present = [image for image in content.images if (images / image["file_name"]).is_file()]
    if not present:
        raise DatasetFilesError(
            f"dataset {name!r}: none of the {len(content.images)} pictures that {path} names is "
            f"in {images}; correct `images`"
        )
    if len(present) < len(content.images):
        _logger.warning(
            "%s names %d pictures, %d of them are in %s",
            *(path, len(content.images), len(present), images),
        )
    targets = [labels / _label_name(path, image["file_name"], ignore_label) for image in present]
    drawing = _Drawing(
        by_target=dict(zip(targets, present, strict=True)),
        annotations=content.annotations,
        indices=indices,
        outside=outside,
        dtype=np.uint8 if ignore_label < 256 else np.uint16,
    )
    tasks = [
        Task((images / image["file_name"],), (target,))
        for image, target in zip(present, targets, strict=True)
    ]
    _draw_all(content, tasks, drawing, labels)
    return [
        {
            "file_name": str(images / image["file_name"]),
            "sem_seg_file_name": str(target),
            "image_id": image["id"],
            "height": image["height"],
            "width": image["width"],
            "meta": {"dataset_name": name},
        }
        for image, target in zip(present, targets, strict=True)
    ]


def draw_labels(
    annotations: Sequence[Annotation],
    size: tuple[int, int],
    indices: Mapping[int, int],
    *,
    outside: int,
    dtype: type[np.unsignedinteger[Any]] = np.uint8,
) -> np.ndarray:
    """Draw instances over each other, large ones first.

    Args:
        annotations: of one picture: `id`, `category_id` and `segmentation` (polygons or run
            lengths).
        size: (height, width).
        indices: label by category id.
        outside: label of pixels outside every instance.
        dtype: uint8 or uint16.

    Returns:
        (H, W) of `dtype`.

    Raises:
        ValueError: a segmentation is unusable or of another size, or a category is not known.
    """
    unknown = [a["id"] for a in annotations if a["category_id"] not in indices]
    if unknown:
        raise ValueError(f"annotations {unknown[:5]}: expected a category of the JSON")
    drawn = [(_mask(a, size), indices[a["category_id"]], a["id"]) for a in annotations]
    labels = np.full(size, outside, dtype)
    for mask, label, _ in sorted(drawn, key=lambda part: (-int(part[0].sum()), part[2])):
        labels[mask] = label
    return labels


def _mask(annotation: Annotation, size: tuple[int, int]) -> np.ndarray:
    if not annotation["segmentation"]:
        return np.zeros(size, bool)
    try:
        return decode_segmentation(annotation["segmentation"], size)
    except ValueError as error:
        raise ValueError(f"annotation {annotation['id']}: {error}") from error


def _class_indices(content: CocoFile, classes: Sequence[str], ignore_label: int) -> dict[int, int]:
    """Label by category id; categories that are no class are ignored."""
    index = {name: i for i, name in enumerate(classes)}
    known = set(content.categories.values())
    missing = [name for name in classes if name not in known and name != "background"]
    if missing:
        raise ValueError(
            f"expected classes among the categories of {content.path}, got {missing[:5]}; its "
            f"categories: {', '.join(content.categories.values())}"
        )
    return {
        category: index.get(name, ignore_label) for category, name in content.categories.items()
    }


def _label_name(json: Path, file_name: str, ignore_label: int) -> str:
    path = PurePosixPath(file_name)
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(
            f"{json}: expected file names below the folder of the pictures, got {file_name!r}; "
            "make them relative to `images`"
        )
    return str(path.with_suffix(".png" if ignore_label < 256 else ".tif"))


@dataclass(frozen=True)
class _Drawing:
    """Draws the pictures of a JSON, one per task."""

    by_target: Mapping[Path, Mapping[str, Any]]
    annotations: Mapping[int, Sequence[Annotation]]
    indices: Mapping[int, int]
    outside: int
    dtype: type[np.unsignedinteger[Any]]

    def __call__(self, task: Task) -> Sequence[np.ndarray]:
        image = self.by_target[task.targets[0]]
        return [
            draw_labels(
                self.annotations.get(image["id"], ()),
                (image["height"], image["width"]),
                self.indices,
                outside=self.outside,
                dtype=self.dtype,
            )
        ]


def _draw_all(content: CocoFile, tasks: Sequence[Task], drawing: _Drawing, folder: Path) -> None:
    """Draw what is missing; everything, if it was made of another JSON or for other classes."""
    settings = repr((sorted(drawing.indices.items()), drawing.outside, drawing.dtype.__name__))
    stamp = {
        "json": sha256_of(content.path),
        "settings": hashlib.sha256(settings.encode()).hexdigest(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    with file_lock(str(folder / ".drawing")):
        found = _read_stamp(folder / _STAMP)
        if found == stamp and all(task.targets[0].is_file() for task in tasks):
            return
        _logger.info("Drawing %d label maps of %s into %s", len(tasks), content.path, folder)
        # Folders with a stamp were drawn here, also before files were noted one by one.
        try:
            report = prepare(tasks, drawing, force=found != stamp, ours=found is not None)
        except ValueError as error:
            raise ValueError(f"{content.path}: {error}") from error
        if report.failed:
            file, reason = report.failed[0]
            raise PreparationError(
                f"{content.path}: {len(report.failed)} label maps cannot be drawn, the first for "
                f"{file}: {reason}; correct the annotations"
            )
        write_json(folder / _STAMP, stamp)


def _read_stamp(path: Path) -> Any:
    try:
        return read_json(path)
    except (FileNotFoundError, ValueError):
        return None
