"""Telling the files that this package leaves as results of pictures from everybody else's.

Pictures carry a comment in their header, records are told by their keys. So results can be written
again into the same folder, and no file of another origin is replaced or segmented by mistake.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from ovseg.readers.documents import read_json
from ovseg.readers.pictures import picture_comment
from ovseg.utils.files import atomic_path
from ovseg.utils.images import write_png

__all__ = ["RESULT_COMMENT", "is_result", "refuse_to_replace", "write_picture"]

RESULT_COMMENT = "a result of ovseg"
_RECORD_KEYS = {"format_version", "blank_value", "unlabelled_pixels", "classes", "provenance"}


def is_result(path: str | os.PathLike[str]) -> bool:
    """Whether a file is a label map, a picture or a record that this package wrote as a result.

    Args:
        path: the file; what cannot be read is none.

    Returns:
        True for a PNG, JPEG or TIFF file with the comment, and for a JSON record of a segmentation.
    """
    file = Path(path)
    try:
        if file.suffix == ".json":
            content = read_json(file)
            return isinstance(content, dict) and content.keys() >= _RECORD_KEYS
        if file.suffix not in (".png", ".jpg", ".tif"):
            return False
        comment = picture_comment(file)
    except (OSError, ValueError):
        return False
    return comment in (RESULT_COMMENT, RESULT_COMMENT.encode())


def refuse_to_replace(paths: Iterable[Path]) -> None:
    """Check that files to be written replace nothing but earlier results.

    Args:
        paths: the files.

    Raises:
        FileExistsError: one of them is there and no result of this package.
    """
    for path in paths:
        if path.exists() and not is_result(path):
            raise FileExistsError(
                f"{path}: expected no file or an earlier result here, got a file that this package "
                "did not write; choose another folder or another name"
            )


def write_picture(path: Path, picture: np.ndarray, *, quality: int = 90) -> None:
    """Write a picture for people, whole or not at all; its header says that it is a result.

    Args:
        path: a PNG file, or else JPEG is written.
        picture: (H, W, 3) uint8 RGB.
        quality: of JPEG, 1 to 95.
    """
    if path.suffix == ".png":
        write_png(path, picture, comment=RESULT_COMMENT)
        return
    with atomic_path(path) as partial:
        # Full colour resolution, or lines and letters on saturated tints would blur.
        Image.fromarray(picture).save(
            partial, format="JPEG", quality=quality, subsampling=0, comment=RESULT_COMMENT
        )
