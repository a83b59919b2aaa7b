"""Pictures with captions, from the forms in which they are kept.

`open_source` reads COCO captions, tables (TSV, CSV), folders with `.txt` beside the pictures,
WebDataset tars and parquet. A source is cut into shards whose content depends on the source and
the shard size alone. Whatever is wrong with a row, the row is delivered; reading its picture
raises `ImageError`, so that a reader can quarantine it with a reason.
"""

from __future__ import annotations

import glob
from collections.abc import Callable, Sequence
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from ovseg.data.captions.rows import ImageRow, LazyRows, Piece, RowList, Shard, Source, relative_to
from ovseg.data.captions.tables import ParquetPiece, read_table
from ovseg.data.captions.tars import (
    IMAGE_EXTENSIONS,
    TarPiece,
    captions_of_json,
    captions_of_text,
)
from ovseg.readers.documents import read_json
from ovseg.readers.files import read_bytes
from ovseg.readers.limits import LimitError
from ovseg.readers.pictures import ImageError
from ovseg.utils.image_store import ImageStore

__all__ = ["KINDS", "ImageReader", "ImageRow", "LazyRows", "Shard", "Source", "open_source"]

KINDS = ("auto", "coco", "tsv", "folder", "webdataset", "parquet")

_KIND_OF_SUFFIX = {
    ".json": "coco",
    ".tsv": "tsv",
    ".csv": "tsv",
    ".tar": "webdataset",
    ".parquet": "parquet",
}
_SUFFIXES = {"webdataset": ".tar", "parquet": ".parquet"}
StrPath = str | PathLike[str]


class ImageReader:
    """Reads the pictures of rows; it can be sent to other processes.

    Args:
        image_root: folder that relative addresses lie in, as the source's `image_root`.
        max_pixels: larger pictures are refused before they are decoded; None for the usual limit.
    """

    def __init__(self, image_root: StrPath = ".", *, max_pixels: int | None = None) -> None:
        self._store = ImageStore(Path(image_root), max_pixels=max_pixels)

    def __call__(self, row: ImageRow) -> np.ndarray:
        """Read a row's picture.

        Args:
            row: its `uri` and `image_id` are used.

        Returns:
            (H, W, 3) uint8 RGB.

        Raises:
            ImageError: missing or damaged; the text names the row.
        """
        return self.with_hash(row)[0]

    def with_hash(self, row: ImageRow) -> tuple[np.ndarray, str]:
        """Read a row's picture and the sha256 of its file's bytes, in hexadecimal.

        Args:
            row: its `uri` and `image_id` are used.

        Returns:
            (H, W, 3) uint8 RGB, and the hash.

        Raises:
            ImageError: missing or damaged; the text names the row.
        """
        try:
            return self._store.read_hashed(row.uri)
        except ImageError as error:
            raise ImageError(f"image {row.image_id}: {error}") from error


def open_source(
    path: StrPath | Sequence[StrPath], kind: str = "auto", image_root: StrPath | None = None
) -> Source:
    """Open pictures with captions.

    - coco: a `captions_*.json`; its pictures lie in the folder that its name tells
      (`annotations/captions_train2017.json` -> `train2017/`), else beside it.
    - tsv: a TSV or CSV with a header, for instance `filepath` and `title` as open_clip has it.
    - folder: pictures with `.txt` files of the same name (a caption a line), at any depth.
    - webdataset: tars; parquet: tables of bytes or paths.

    Args:
        path: a file, a folder, or a pattern with `*`; or several of them.
        kind: one of `KINDS`; "auto" goes by the ending, or by what is in the folder.
        image_root: folder that relative addresses lie in; None takes the usual place of the kind.

    Returns:
        The source; nothing of it is read that grows with the pictures' size.

    Raises:
        FileNotFoundError: nothing at the path.
        ValueError: an unknown kind, or a file that is not what it should be.
    """
    paths = _existing([path] if isinstance(path, str | PathLike) else path)
    if kind not in KINDS:
        raise ValueError(f"expected a kind of {KINDS}, got {kind!r}")
    kind = _guess_kind(paths[0]) if kind == "auto" else kind
    if kind in _SUFFIXES:
        paths = _files_in_folders(paths, _SUFFIXES[kind])
    elif (kind == "folder") != paths[0].is_dir():
        raise ValueError(f"{paths[0]}: a source of kind {kind!r} cannot be read from this")
    root = Path(image_root) if image_root is not None else _default_image_root(kind, paths)
    if not root.is_dir():
        raise ValueError(f"{root}: no such folder; give the folder of the pictures as image_root")
    make: dict[str, Callable[[Path, Path], Piece]] = {
        "coco": _read_coco,
        "tsv": read_table,
        "folder": _Folder,
        "webdataset": TarPiece,
        "parquet": ParquetPiece,
    }
    return Source(kind=kind, image_root=root, pieces=[make[kind](path, root) for path in paths])


def _existing(patterns: Sequence[StrPath]) -> list[Path]:
    paths: list[Path] = []
    for pattern in patterns:
        if Path(pattern).exists():
            paths.append(Path(pattern))
            continue
        found = sorted(glob.glob(str(pattern), recursive=True))
        if not found:
            raise FileNotFoundError(f"{pattern}: no such file or folder to take captions from")
        paths += [Path(name) for name in found]
    if not paths:
        raise ValueError("expected at least one file or folder to take captions from, got none")
    return paths


def _guess_kind(path: Path) -> str:
    if path.is_dir():
        for kind, ending in _SUFFIXES.items():
            if next(path.rglob(f"*{ending}"), None) is not None:
                return kind
        return "folder"
    if path.suffix.lower() not in _KIND_OF_SUFFIX:
        raise ValueError(
            f"{path}: cannot tell the kind from the ending {path.suffix!r}, known are "
            f"{list(_KIND_OF_SUFFIX)}; give one of {KINDS[1:]}"
        )
    return _KIND_OF_SUFFIX[path.suffix.lower()]


def _files_in_folders(paths: Sequence[Path], ending: str) -> list[Path]:
    """Replace folders by the files in them."""
    found: list[Path] = []
    for path in paths:
        found += sorted(path.rglob(f"*{ending}")) if path.is_dir() else [path]
    wrong = [str(path) for path in found if path.suffix != ending]
    if wrong or not found:
        raise ValueError(
            f"expected files ending in {ending}, got {wrong or 'none'}; compressed tars "
            "cannot be read from the middle, unpack them first"
        )
    return found


def _default_image_root(kind: str, paths: Sequence[Path]) -> Path:
    first = paths[0]
    if kind == "folder":
        return first
    if kind == "coco":
        split = first.stem.split("_", 1)[-1]
        for folder in (first.parent.parent / split, first.parent / split):
            if folder.is_dir():
                return folder
    return first.parent


def _read_coco(path: Path, image_root: Path) -> RowList:
    """Read COCO captions; a caption of an image that is not listed makes a row without one."""
    try:
        content = read_json(path)
        images, annotations = content["images"], content["annotations"]
        captions: dict[Any, list[str | None]] = {image["id"]: [] for image in images}
        for annotation in annotations:
            text = annotation.get("caption")
            known = captions.setdefault(annotation["image_id"], [])
            known.append(text if isinstance(text, str) else None)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path}: expected COCO captions, an object with the lists images (id, file_name) and "
            f"annotations (image_id, caption): {type(error).__name__} {error}"
        ) from error
    rows = [
        ImageRow(str(image["id"]), str(image.get("file_name") or ""), tuple(captions[image["id"]]))
        for image in images
    ]
    listed = {image["id"] for image in images}
    rows += [ImageRow(str(key), "", tuple(t)) for key, t in captions.items() if key not in listed]
    return RowList(tuple(rows))


class _Folder:
    """A folder of pictures with texts of the same name; the order is that of the names."""

    def __init__(self, path: Path, image_root: Path) -> None:
        self._root = image_root
        files: dict[str, dict[str, str]] = {}
        for file in sorted(path.rglob("*")):
            hidden = any(part.startswith(".") for part in file.relative_to(path).parts)
            if not file.is_dir() and not hidden:
                uri = relative_to(file.parent, image_root)
                name = f"{uri}/{file.name}" if uri != "." else file.name
                stem = name.removesuffix(file.suffix)
                files.setdefault(stem, {}).setdefault(file.suffix.lower()[1:], name)
        self._entries = [
            (stem, found)
            for stem, found in files.items()
            if "txt" in found or any(ending in found for ending in IMAGE_EXTENSIONS)
        ]

    def __len__(self) -> int:
        return len(self._entries)

    def rows(self, start: int, stop: int) -> Sequence[ImageRow]:
        """Give the rows from `start` up to `stop`, read on first use."""
        return LazyRows(partial(_load_folder, self._root, self._entries[start:stop]), stop - start)


def _load_folder(root: Path, entries: list[tuple[str, dict[str, str]]]) -> list[ImageRow]:
    rows = []
    for stem, files in entries:
        # A picture with an ending that is not known is still the picture of its text.
        endings = [*IMAGE_EXTENSIONS, *sorted(files.keys() - {"txt", "json"})]
        uri = next((files[ending] for ending in endings if ending in files), "")
        captions: tuple[str | None, ...] = ()
        try:
            if "txt" in files:
                captions = captions_of_text(read_bytes(root / files["txt"]))
            elif "json" in files:
                captions = captions_of_json(read_bytes(root / files["json"]))
        except (OSError, LimitError):
            captions = (None,)
        rows.append(ImageRow(stem, uri, captions))
    return rows
