"""COCO Captions needs no conversion; what can be wrong with it is told here.

Chen et al., "Microsoft COCO Captions" (2015): five captions or so for each picture of COCO.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ovseg.data.prepare.pipeline import PreparationError, require_folder
from ovseg.readers.documents import read_json
from ovseg.utils.files import reason_of

__all__ = ["CaptionCheck", "check_coco_captions"]

_REMEDY = (
    "Unpack annotations_trainval2017.zip, train2017.zip and val2017.zip "
    "(https://cocodataset.org/#download) into the folder `coco` of the folder of all datasets, or "
    "name that folder with --root"
)


@dataclass(frozen=True)
class CaptionCheck:
    """What was found.

    Args:
        images: pictures of the annotation.
        captions: their captions.
        complaints: what is wrong, and how to mend it.
    """

    images: int
    captions: int
    complaints: tuple[str, ...]


def check_coco_captions(root: Path, split: str) -> CaptionCheck:
    """Hold the captions of COCO against its pictures.

    Args:
        root: folder of all datasets.
        split: "train2017" or "val2017".

    Returns:
        The figures and the complaints.

    Raises:
        PreparationError: the annotation or the pictures are missing, or it is no captions file.
    """
    file = root / "coco" / "annotations" / f"captions_{split}.json"
    images, annotations = _read(file)
    folder = require_folder(root / "coco" / split, _REMEDY)
    present = {path.name for path in folder.iterdir()}
    ids = [image.get("id") for image in images]
    known = set(ids)
    captioned = {entry.get("image_id") for entry in annotations}
    found = {
        "pictures of the annotation are not in the folder; unpack the archive of the pictures "
        "again": [name for name in map(_name, images) if name not in present],
        "pictures have no caption; get the annotation again": [
            _name(image) for image in images if image.get("id") not in captioned
        ],
        "ids of pictures occur twice; get the annotation again": [
            str(key) for key, count in Counter(ids).items() if count > 1
        ],
        "captions belong to no picture of the annotation; get it again": [
            str(entry.get("id")) for entry in annotations if entry.get("image_id") not in known
        ],
        "captions are empty or no text; get the annotation again": [
            str(entry.get("id")) for entry in annotations if not _is_text(entry.get("caption"))
        ],
    }
    complaints = tuple(_complaint(what, which) for what, which in found.items() if which)
    return CaptionCheck(len(images), len(annotations), complaints)


def _read(file: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    try:
        content = read_json(file)
    except (OSError, ValueError) as error:
        raise PreparationError(f"cannot read {file}: {reason_of(error)}\n{_REMEDY}") from error
    return _objects(content, "images", file), _objects(content, "annotations", file)


def _objects(content: Any, key: str, file: Path) -> list[dict[str, Any]]:
    part = content.get(key) if isinstance(content, dict) else None
    if not part or not isinstance(part, list) or not all(isinstance(one, dict) for one in part):
        raise PreparationError(f"{file}: expected a list of objects under {key!r}\n{_REMEDY}")
    return part


def _name(image: dict[str, Any]) -> str:
    return str(image.get("file_name"))


def _is_text(caption: object) -> bool:
    return isinstance(caption, str) and bool(caption.strip())


def _complaint(what: str, which: Sequence[str]) -> str:
    more = ", ..." if len(which) > 5 else ""
    return f"{len(which)} {what} ({', '.join(which[:5])}{more})"
