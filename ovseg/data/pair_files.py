"""Noun-region pairs as files: a table of crops, tars, and crops sorted into folders by class.

The tables are those that open_clip's `csv` dataset reads: with the mask as a picture of its own,
or in the form of the pairs released with OVSeg (Liang et al., CVPR 2023), whose crops carry one
colour wherever the mask is not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD, image_transform
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import center_crop, resize

from ovseg.data.pairs import PairDataset, PairItem, Region, Window
from ovseg.readers.archives import ArchiveError, is_plain_file, read_slice, tar_members
from ovseg.readers.documents import parse_csv, parse_json, parse_text, read_text
from ovseg.readers.files import open_regular
from ovseg.readers.pictures import IMAGE_SUFFIXES, decode_image, decode_mask, read_image, read_label

__all__ = ["KEY_COLOUR", "FolderPairDataset", "TarPairDataset", "TsvPairDataset"]

KEY_COLOUR = (124, 116, 103)
"""RGB of what surrounds the region in a crop that has no mask file."""

_SEPARATORS = {"\t": "tab", ",": "comma", ";": "semicolon"}


class TsvPairDataset(PairDataset):
    """Pairs listed in a table with a header.

    Columns: `title`, the text as it is tokenised; `filepath` of the crop, relative to the table's
    folder; optionally `maskpath` of its mask (not 0 inside) and `noun`. Without `maskpath` the mask
    is read from the crop's colours; without `noun`, equal titles name the same.

    Args:
        path: the table.
        separator: between columns; None tells it from the header.
        **options: image_size, min_scale and seed, see `PairDataset`.

    Raises:
        ValueError: if the columns are not found or a row is incomplete.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        image_size: tuple[int, int],
        separator: str | None = None,
        min_scale: float = 0.9,
        seed: int = 0,
    ) -> None:
        table = Path(path)
        rows = _read_table(table, separator)
        super().__init__(
            texts=[row["title"] for row in rows],
            nouns=[row.get("noun") or row["title"] for row in rows],
            image_size=image_size,
            min_scale=min_scale,
            seed=seed,
        )
        self._crops = [table.parent / row["filepath"] for row in rows]
        self._masks = [table.parent / row["maskpath"] for row in rows if row.get("maskpath")]
        if self._masks and len(self._masks) != len(rows):
            raise ValueError(f"{table}: expected a maskpath in every row or in none")

    def region(self, index: int) -> Region:
        """The crop of a pair, (h, w, 3) uint8 RGB, and its mask (h, w) bool."""
        image = read_image(self._crops[index])
        if not self._masks:
            return image, colour_key_mask(image, self._crops[index])
        return image, _check_mask(read_label(self._masks[index]) > 0, image, self._masks[index])


class _Member(NamedTuple):
    """Where a file lies inside a tar."""

    tar: Path
    offset: int
    size: int


class TarPairDataset(PairDataset):
    """Pairs in tars as WebDataset lays them out: KEY.png, KEY.mask.png, KEY.txt, KEY.json.

    The tars are not compressed, so that any pair can be read without those before it. The noun is
    the JSON's "noun"; without it, equal texts name the same.

    Args:
        paths: the tars, or a folder of them.
        **options: image_size, min_scale and seed, see `PairDataset`.

    Raises:
        ValueError: if there is no tar, one is compressed or damaged, or a sample is incomplete.
    """

    def __init__(
        self,
        paths: str | Path | Sequence[str | Path],
        *,
        image_size: tuple[int, int],
        min_scale: float = 0.9,
        seed: int = 0,
    ) -> None:
        listed = [paths] if isinstance(paths, str | Path) else paths
        tars = [
            tar
            for path in map(Path, listed)
            for tar in (sorted(path.glob("*.tar")) if path.is_dir() else [path])
        ]
        if not tars:
            raise ValueError(f"expected tars (*.tar), found none in {listed}")
        texts: list[str] = []
        nouns: list[str] = []
        self._members: list[tuple[str, _Member, _Member]] = []
        for tar in tars:
            for name, sample in _index_tar(tar).items():
                where = f"{tar}#{name}"
                texts.append(parse_text(_read_member(sample["txt"]), where).strip())
                record = _read_record(sample.get("json"), where)
                nouns.append(str(record.get("noun") or texts[-1]))
                self._members.append((name, sample["png"], sample["mask.png"]))
        super().__init__(
            texts=texts, nouns=nouns, image_size=image_size, min_scale=min_scale, seed=seed
        )

    def region(self, index: int) -> Region:
        """The crop of a pair, (h, w, 3) uint8 RGB, and its mask (h, w) bool."""
        name, crop, mask = self._members[index]
        where = f"{crop.tar}#{name}"
        image = decode_image(_read_member(crop), where)
        inside = decode_mask(_read_member(mask), where)
        return image, _check_mask(inside, image, where)


class FolderPairDataset(PairDataset):
    """Ground-truth crops to measure a CLIP on: one folder per class, as torchvision's ImageFolder.

    A folder's name is a class's name (`_` for a space; the first synonym will do) or its number,
    from 0, or from 1 where there is no 0 and the last is K. Masks are read from the crops' colours.

    Args:
        folder: holds the folders of the classes.
        names: K class names in the order of the ids.
        image_size: (height, width) that the CLIP takes.
        squash: resize as segmentation does. Without it, as the released evaluation does: the
            shorter side to the CLIP's size, then the centre, and the key colour stays.

    Raises:
        ValueError: if a folder is none of the classes, or two are the same.
    """

    def __init__(
        self,
        folder: str | Path,
        names: Sequence[str],
        *,
        image_size: tuple[int, int],
        squash: bool = False,
    ) -> None:
        root = Path(folder)
        classes = _match_folders(root, names)
        found = [
            (file, names[number])
            for name, number in classes.items()
            for file in sorted((root / name).rglob("*"))
            if file.suffix.lower() in IMAGE_SUFFIXES
        ]
        if not found:
            raise ValueError(f"{root}: expected pictures ({', '.join(IMAGE_SUFFIXES)}), found none")
        nouns = [name for _, name in found]
        super().__init__(texts=nouns, nouns=nouns, image_size=image_size, min_scale=1.0)
        self.files = [file for file, _ in found]
        self.squash = squash
        self._released = image_transform(
            image_size, is_train=False, mean=OPENAI_DATASET_MEAN, std=OPENAI_DATASET_STD
        )

    def region(self, index: int) -> Region:
        """The crop, (h, w, 3) uint8 RGB, and its mask (h, w) bool."""
        image = read_image(self.files[index])
        return image, colour_key_mask(image, self.files[index])

    def item(
        self,
        index: int,
        image: NDArray[np.uint8],
        mask: NDArray[np.bool_],
        *,
        window: Window | None = None,
    ) -> PairItem:
        """The crop as an item; `window` counts with `squash` only."""
        item = super().item(index, image, mask, window=window)
        if not self.squash:
            inside = Image.fromarray(mask.astype(np.uint8))
            inside = resize(inside, min(self.image_size), InterpolationMode.NEAREST)
            inside = center_crop(inside, list(self.image_size))
            item["mask"] = torch.from_numpy(np.array(inside, np.float32))[None]
            item["image"] = self._released(Image.fromarray(image))
        return item


def colour_key_mask(image: NDArray[np.uint8], where: str | Path) -> NDArray[np.bool_]:
    """Tell the region of a crop from its colours.

    Args:
        image: (h, w, 3) uint8 RGB, from a lossless file.
        where: what to call it in an error.

    Returns:
        (h, w) bool, all pixels that are not of `KEY_COLOUR`.

    Raises:
        ValueError: if no pixel is left.
    """
    mask = (image != np.array(KEY_COLOUR, np.uint8)).any(-1)  # (h, w)
    if not mask.any():
        raise ValueError(f"{where}: expected a region, but every pixel has the key colour")
    return mask


def _check_mask(
    mask: NDArray[np.bool_], image: NDArray[np.uint8], where: str | Path
) -> NDArray[np.bool_]:
    if mask.shape != image.shape[:2] or not mask.any():
        raise ValueError(
            f"{where}: expected a mask of the crop's size {image.shape[:2]} with at least one "
            f"pixel, got {mask.shape} with {int(mask.sum())}"
        )
    return mask


def _read_table(path: Path, separator: str | None) -> list[dict[str, str]]:
    header, _, table = read_text(path).partition("\n")
    found = separator or _guess_separator(path, header)
    columns = header.split(found)
    for name in ("title", "filepath"):
        if name not in columns:
            raise ValueError(
                f"{path}: expected the columns title and filepath, separated by "
                f"{_SEPARATORS.get(found, found)}s, got {columns}; pass separator= if the "
                "columns are separated otherwise"
            )
    rows = []
    for number, cells in enumerate(parse_csv(table, path, delimiter=found), start=2):
        if len(cells) != len(columns):
            raise ValueError(
                f"{path}, line {number}: expected {len(columns)} cells, got {len(cells)}; "
                f"quote a text that holds a {_SEPARATORS.get(found, found)}"
            )
        rows.append(dict(zip(columns, cells, strict=True)))
    if not rows:
        raise ValueError(f"{path}: expected at least one pair behind the header")
    return rows


def _guess_separator(path: Path, header: str) -> str:
    for separator in _SEPARATORS:
        if {"title", "filepath"} <= set(header.split(separator)):
            return separator
    raise ValueError(
        f"{path}: expected a header with the columns title and filepath, separated by a tab, comma "
        f"or semicolon, got {header[:200]!r}; add the header or pass separator="
    )


def _index_tar(path: Path) -> dict[str, dict[str, _Member]]:
    """Find the files of a tar without reading them: sample -> ending -> place."""
    samples: dict[str, dict[str, _Member]] = {}
    try:
        with open_regular(path) as stream:
            for member, _ in tar_members(stream, path):
                if is_plain_file(member):
                    folder, _, name = member.name.rpartition("/")
                    key, _, ending = name.partition(".")
                    place = _Member(path, member.offset_data, member.size)
                    samples.setdefault(f"{folder}/{key}", {})[ending] = place
    except ArchiveError as error:
        raise ValueError(f"{path}: expected a tar that is not compressed: {error}") from error
    for name, sample in samples.items():
        missing = [ending for ending in ("png", "mask.png", "txt") if ending not in sample]
        if missing:
            raise ValueError(f"{path}#{name}: expected .png, .mask.png and .txt, missing {missing}")
    return samples


def _read_member(member: _Member) -> bytes:
    return read_slice(member.tar, member.offset, member.size)


def _read_record(member: _Member | None, where: str) -> Mapping[str, Any]:
    record = {} if member is None else parse_json(_read_member(member), where)
    if not isinstance(record, Mapping):
        raise ValueError(f"{where}: expected an object as the pair's JSON, got {record!r:.60}")
    return record


def _match_folders(root: Path, names: Sequence[str]) -> dict[str, int]:
    """Map the folders of a directory to class ids."""
    folders = sorted(path.name for path in root.iterdir() if path.is_dir())
    known: dict[str, int] = {}
    for number, name in enumerate(names):
        for alias in (name, name.split(",")[0]):
            known.setdefault(_plain(alias), number)
    leading = [re.match(r"\d+", folder) for folder in folders]
    if folders and all(leading):
        numbers = [int(match[0]) for match in leading if match]
        first = 1 if min(numbers) > 0 and max(numbers) == len(names) else 0
        classes = {f: n - first for f, n in zip(folders, numbers, strict=True)}
    else:
        classes = {folder: known.get(_plain(folder), -1) for folder in folders}
    _check_folders(root, classes, names)
    return classes


def _check_folders(root: Path, classes: Mapping[str, int], names: Sequence[str]) -> None:
    unknown = [folder for folder, number in classes.items() if not 0 <= number < len(names)]
    if unknown or not classes or len(set(classes.values())) != len(classes):
        raise ValueError(
            f"{root}: expected one folder per class, named by it or by its number below "
            f"{len(names)} (such as {names[0]!r}), got {len(classes)} folders, not told: "
            f"{unknown[:5]}; is it the class list of this set?"
        )


def _plain(name: str) -> str:
    return " ".join(re.split(r"[\s_]+", name.strip().lower()))
