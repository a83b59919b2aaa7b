"""WebDataset tars: `KEY.jpg`, `KEY.txt`, `KEY.json` one after the other.

The headers are gone through once, when the source is opened, to know where each sample begins;
after that a shard is read from its own part of the tar. A damaged tar gives the samples before
the damage and one row more, whose picture cannot be read, so that the loss is counted.
"""

from __future__ import annotations

import tarfile
from array import array
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from ovseg.data.captions.rows import ImageRow, LazyRows, relative_to
from ovseg.readers.archives import ArchiveError, is_plain_file, tar_members
from ovseg.readers.documents import DocumentError, parse_json
from ovseg.readers.files import open_regular
from ovseg.readers.pictures import IMAGE_SUFFIXES

__all__ = ["IMAGE_EXTENSIONS", "TarPiece", "captions_of_json", "captions_of_text"]

IMAGE_EXTENSIONS = tuple(suffix.removeprefix(".") for suffix in IMAGE_SUFFIXES)

_CAPTION_KEYS = ("captions", "caption", "text", "title")
_MAX_TEXT_BYTES = 1_000_000
_BLOCK_SIZE = 512


class TarPiece:
    """One tar.

    Args:
        path: an uncompressed tar.
        image_root: folder that addresses are relative to.
    """

    def __init__(self, path: Path, image_root: Path) -> None:
        self._path = path
        self._uri = relative_to(path, image_root)
        # Where each sample's first header is, and at last where the readable part ends.
        self._starts = array("Q")
        self._damaged = False
        self._scan()

    def __len__(self) -> int:
        return len(self._starts) - 1 + self._damaged

    def rows(self, start: int, stop: int) -> Sequence[ImageRow]:
        """Give the rows from `start` up to `stop`, read on first use."""
        sound = len(self._starts) - 1
        first, last = self._starts[min(start, sound)], self._starts[min(stop, sound)]
        load = partial(_load, self._path, self._uri, first, last, stop > sound)
        return LazyRows(load, stop - start)

    def _scan(self) -> None:
        end = 0
        key = None
        with open_regular(self._path) as stream:
            try:
                for member, end in tar_members(stream, self._uri):  # noqa: B007
                    if is_plain_file(member) and (sample := _split_name(member.name)[0]) != key:
                        key = sample
                        self._starts.append(member.offset)
            except ArchiveError:
                self._damaged = True
            self._starts.append(end)
            stream.seek(end)
            # An archive ends with blocks of zeros; one that does not was cut off.
            self._damaged = self._damaged or stream.read(_BLOCK_SIZE) != bytes(_BLOCK_SIZE)


def _split_name(name: str) -> tuple[str, str]:
    """Split a member's name into key and ending at the first dot of its last part."""
    folder, slash, base = name.rpartition("/")
    key, _, ending = base.partition(".")
    return folder + slash + key, ending.lower()


def _load(path: Path, uri: str, first: int, last: int, damaged: bool) -> list[ImageRow]:
    """Read the samples between two places of a tar."""
    rows = []
    with open_regular(path) as stream:
        for key, members in _samples(stream, uri, first, last) if last > first else ():
            rows.append(_row(stream, uri, key, members))
    if damaged:
        rows.append(ImageRow(f"{uri}#damaged", uri, ()))
    return rows


def _samples(
    stream: BinaryIO, uri: str, first: int, last: int
) -> Iterator[tuple[str, dict[str, tarfile.TarInfo]]]:
    stream.seek(first)
    current: str | None = None
    members: dict[str, tarfile.TarInfo] = {}
    for member, end in tar_members(stream, uri):
        if member.offset >= last:
            break
        if is_plain_file(member):
            key, ending = _split_name(member.name)
            if key != current and current is not None:
                yield current, members
                members = {}
            current = key
            members.setdefault(ending, member)
        if end >= last:  # what follows may be the damage
            break
    if current is not None:
        yield current, members


def _row(stream: BinaryIO, uri: str, key: str, members: dict[str, tarfile.TarInfo]) -> ImageRow:
    place = ""
    for ending in IMAGE_EXTENSIONS:
        if ending in members:
            image = members[ending]
            place = f"{uri}#{image.name}@{image.offset_data}+{image.size}"
            break
    captions: tuple[str | None, ...] = ()
    if "txt" in members:
        captions = captions_of_text(_content(stream, members["txt"]))
    elif "json" in members:
        captions = captions_of_json(_content(stream, members["json"]))
    return ImageRow(f"{uri.removesuffix('.tar')}/{key}", place, captions)


def _content(stream: BinaryIO, member: tarfile.TarInfo) -> bytes:
    position = stream.tell()
    stream.seek(member.offset_data)
    data = stream.read(min(member.size, _MAX_TEXT_BYTES))
    stream.seek(position)
    return data


def captions_of_text(data: bytes) -> tuple[str | None, ...]:
    """Take each line with something in it as a caption; none gives one empty caption."""
    lines = data.decode("utf-8-sig", errors="replace").splitlines()
    return tuple(line.strip() for line in lines if line.strip()) or ("",)


def captions_of_json(data: bytes) -> tuple[str | None, ...]:
    """Take the captions of a sample's description; what cannot be read gives one null caption."""
    try:
        description: Any = parse_json(data, "caption")
    except DocumentError:
        return (None,)
    if not isinstance(description, dict):
        return (None,)
    for key in _CAPTION_KEYS:
        if key in description:
            found = description[key]
            listed = found if isinstance(found, list) else [found]
            return tuple(text if isinstance(text, str) else None for text in listed)
    return ()
