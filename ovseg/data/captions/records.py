"""Captioned pictures as the records of a training set: one a caption, packed.

A list of dicts takes most of a kilobyte per caption, in every process; here it is the bytes of
their texts, in arrays that processes share after a fork.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ovseg.data.captions.sources import Source, open_source
from ovseg.data.catalog import dataset_root

__all__ = [
    "CAPTION_SETS",
    "CaptionRecords",
    "CaptionSet",
    "PictureRecords",
    "caption_records",
    "open_caption_set",
]


class CaptionSet(NamedTuple):
    """A set of captioned pictures below the folder of all datasets.

    Args:
        path: file, folder or pattern, as `open_source` takes it.
        maker: module, function and further argument of a set that can make its own files, as in
            `ovseg.data.benchmarks.SemSegFolders`.
    """

    path: str
    maker: tuple[str, str, str] | None = None


CAPTION_SETS = {
    "coco_2014_train_captions": CaptionSet("coco/annotations/captions_train2014.json"),
    "coco_2017_train_captions": CaptionSet("coco/annotations/captions_train2017.json"),
    "cc3m_train_captions": CaptionSet("cc3m/*.tar"),
    **{
        f"tinyscapes_{split}_captions": CaptionSet(
            f"tinyscapes/annotations/captions_{split}2017.json",
            ("ovseg.tinyscapes", "ensure_split", split),
        )
        for split in ("train", "val")
    },
}
"""By name; any other name is a path of its own."""


def open_caption_set(
    name: str | PathLike[str], *, root: str | PathLike[str] | None = None
) -> Source:
    """Open the pictures and captions behind a name.

    Args:
        name: of `CAPTION_SETS`, or a file, folder or pattern, see `open_source`; relative ones lie
            below `root`.
        root: folder of all datasets; None takes it from the environment.

    Returns:
        The source.

    Raises:
        FileNotFoundError: nothing is there; the message has the names that are known.
        ValueError: a file is not what it should be.
    """
    base = dataset_root(root)
    known = CAPTION_SETS.get(str(name), CaptionSet(str(name)))
    if known.maker is not None:
        module, function, argument = known.maker
        getattr(importlib.import_module(module), function)(base, argument)
    try:
        return open_source(base / Path(known.path).expanduser())
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"DATASETS.TRAIN: expected captioned pictures, a path below {base} or one of "
            f"{sorted(CAPTION_SETS)}, got {str(name)!r}: {error}"
        ) from error


def caption_records(
    names: Sequence[str], *, root: str | PathLike[str] | None = None
) -> CaptionRecords:
    """List every caption of one or more sets.

    Args:
        names: see `open_caption_set`.
        root: folder of all datasets; None takes it from the environment.

    Returns:
        The records, set after set, in the order of each.

    Raises:
        FileNotFoundError: see `open_caption_set`.
        ValueError: no set is named, or none has a caption.
    """
    if not names:
        raise ValueError("expected at least one set of captioned pictures; set DATASETS.TRAIN")
    records = CaptionRecords([open_caption_set(name, root=root) for name in names])
    if not len(records):
        raise ValueError(f"expected captions in {list(names)}, got none")
    return records


class CaptionRecords(Sequence[dict[str, Any]]):
    """One record for each caption of a picture.

    A record has `file_name` (the picture's address, see `ovseg.utils.image_store`), `image_root`
    (the folder that it is relative to), `image_id` and `caption`. Captions without a letter are
    left out.

    Args:
        sources: captioned pictures.
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        self._roots = [str(source.image_root) for source in sources]
        pictures: list[tuple[str, str]] = []
        owners: list[tuple[int, int]] = []  # source and picture of every caption

        def captions() -> Iterator[str]:
            for number, source in enumerate(sources):
                for row in source:
                    usable = [text.strip() for text in row.captions if text and text.strip()]
                    if usable:
                        pictures.append((row.uri, row.image_id))
                    owners.extend([(number, len(pictures) - 1)] * len(usable))
                    yield from usable

        self._captions = _Texts(captions())
        self._owners = np.array(owners, np.int64).reshape(-1, 2)
        self._uris = _Texts(uri for uri, _ in pictures)
        self._ids = _Texts(image_id for _, image_id in pictures)

    def __len__(self) -> int:
        return len(self._owners)

    def first_of_each_picture(self) -> np.ndarray:
        """Number of the first caption of every picture, ascending int64."""
        pictures = self._owners[:, 1]
        return np.flatnonzero(np.diff(pictures, prepend=-1))

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        source, picture = self._owners[index].tolist()
        return {
            "file_name": self._uris[picture],
            "image_root": self._roots[source],
            "image_id": self._ids[picture],
            "caption": self._captions[int(index)],
        }


class PictureRecords(Sequence[dict[str, Any]]):
    """One record for each picture, with all of its captions.

    A record is that of `CaptionRecords` with `captions`, a tuple, in place of `caption`. Pictures
    without a caption are left out.

    Args:
        captions: of the pictures.
    """

    def __init__(self, captions: CaptionRecords) -> None:
        self._captions = captions
        self._starts = captions.first_of_each_picture()

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        index = range(len(self))[index]
        stop = self._starts[index + 1] if index + 1 < len(self) else len(self._captions)
        records = self._captions[int(self._starts[index]) : int(stop)]
        captions = tuple(record["caption"] for record in records)
        about = {key: value for key, value in records[0].items() if key != "caption"}
        return {**about, "captions": captions}


class _Texts:
    """Texts behind each other in one array."""

    def __init__(self, texts: Iterable[str]) -> None:
        ends, content = [0], bytearray()
        for text in texts:
            content += text.encode("utf-8", "surrogatepass")
            ends.append(len(content))
        self._content = np.frombuffer(bytes(content), np.uint8)
        self._ends = np.array(ends, np.int64)

    def __getitem__(self, index: int) -> str:
        index = range(len(self._ends) - 1)[index]
        part = self._content[self._ends[index] : self._ends[index + 1]]
        return part.tobytes().decode("utf-8", "surrogatepass")
