"""Noun-region pairs for training and measuring CLIP: from arrays, and from mined records.

A region reaches CLIP as in segmentation: cut out at its tight box, surroundings filled with CLIP's
mean colour, resized to a square. Source: OVSeg (Liang et al., CVPR 2023), sections 3.2 and 3.3.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from torch import Tensor
from torch.utils.data import Dataset

from ovseg.data.sampling import SampleKey, sample_generator
from ovseg.readers.pictures import ImageError
from ovseg.readers.tables import read_parquet
from ovseg.utils.boxes import expand_box, masks_to_boxes
from ovseg.utils.image_store import ImageStore
from ovseg.utils.masks import decode_rle

__all__ = [
    "ArrayPairDataset",
    "PairDataset",
    "PairItem",
    "RecordPairDataset",
    "crop_region",
    "draw_window",
    "record_mask",
    "region_tensors",
]

logger = logging.getLogger(__name__)

Region = tuple[NDArray[np.uint8], NDArray[np.bool_]]
Window = tuple[float, float, float, float]

_MEAN = torch.tensor([255 * v for v in OPENAI_DATASET_MEAN]).view(3, 1, 1)
_STD = torch.tensor([255 * v for v in OPENAI_DATASET_STD]).view(3, 1, 1)
_MAX_SUBSTITUTES = 16
_MAX_ATTEMPTS = 10  # as in torchvision's RandomResizedCrop
_LOG_RATIO = float(np.log(4 / 3))
_COLUMNS = ("image_uri", "height", "width", "noun", "rle_counts")


class PairItem(TypedDict):
    """One pair, ready to batch.

    `image` is (3, S, S) float32, normalised with CLIP's statistics; `mask` is (1, S, S) float32,
    1 inside the region; `text` is what is tokenised; `noun` tells which pairs name the same.
    """

    image: Tensor
    mask: Tensor
    text: str
    noun: str


def crop_region(
    image: NDArray[np.uint8], mask: NDArray[np.bool_], *, expand_ratio: float = 1.0
) -> Region:
    """Cut a region out of its picture.

    Args:
        image: (H, W, 3) uint8 RGB.
        mask: (H, W) bool, not empty.
        expand_ratio: factor on the sides of the tight box.

    Returns:
        The crop (h, w, 3), its surroundings still in it, and the mask's (h, w).

    Raises:
        ValueError: if the mask is empty or not of the picture's size.
    """
    if mask.shape != image.shape[:2]:
        raise ValueError(
            f"expected a mask of the picture's size {image.shape[:2]}, got {mask.shape}"
        )
    left, top, right, bottom = masks_to_boxes(torch.from_numpy(mask)[None])[0].tolist()
    if right == 0:
        raise ValueError("expected a mask with at least one pixel, got an empty one")
    if expand_ratio != 1.0:
        box, size = (left, top, right, bottom), (len(mask), mask.shape[1])
        left, top, right, bottom = expand_box(box, expand_ratio, size)
    inside = (slice(top, bottom), slice(left, right))
    return image[inside].copy(), mask[inside].copy()


def draw_window(rng: np.random.Generator, min_scale: float) -> Window:
    """Draw what RandomResizedCrop keeps of a square, as shares of its sides.

    It is drawn on the square that the region will be, not on the region: one of another shape
    would lose all that reaches beyond 4:3.

    Args:
        rng: where the numbers come from.
        min_scale: least share of the area, in (0, 1].

    Returns:
        (top, left, bottom, right) in [0, 1]; the whole square if ten draws do not fit in it.
    """
    area = rng.uniform(min_scale, 1.0, _MAX_ATTEMPTS)
    ratio = np.exp(rng.uniform(-_LOG_RATIO, _LOG_RATIO, _MAX_ATTEMPTS))
    height, width = np.sqrt(area / ratio), np.sqrt(area * ratio)
    place = rng.uniform(0.0, 1.0, 2)
    fits = np.flatnonzero((height <= 1) & (width <= 1))
    if not len(fits):
        return 0.0, 0.0, 1.0, 1.0
    h, w = float(height[fits[0]]), float(width[fits[0]])
    top, left = float(place[0]) * (1 - h), float(place[1]) * (1 - w)
    return top, left, top + h, left + w


def region_tensors(
    image: NDArray[np.uint8],
    mask: NDArray[np.bool_],
    size: tuple[int, int],
    window: Window | None = None,
) -> tuple[Tensor, Tensor]:
    """Fill, normalise and resize a region exactly as segmentation does.

    Args:
        image: (h, w, 3) uint8 RGB.
        mask: (h, w) bool; what is outside gets CLIP's mean colour.
        size: (height, width) of the result.
        window: the part of the crop to take, see `draw_window`; rounded to whole pixels, and
            passed over if nothing of the mask would be left.

    Returns:
        `(3, *size)` float32, normalised, by bicubic interpolation without antialiasing;
        `(1, *size)` float32 of 0 and 1, nearest.
    """
    if window is not None:
        rows, columns = _pixels(window[0::2], len(image)), _pixels(window[1::2], image.shape[1])
        if mask[rows, columns].any():
            image, mask = image[rows, columns], mask[rows, columns]
    pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1).float()  # (3, h, w)
    alpha = torch.from_numpy(np.ascontiguousarray(mask)).float()[None]  # (1, h, w)
    filled = (pixels - _MEAN) / _STD * alpha  # the mean colour is 0 here
    region = F.interpolate(filled[None], size=size, mode="bicubic", align_corners=False)[0]
    return region, F.interpolate(alpha[None], size=size, mode="nearest")[0]


def _pixels(share: Sequence[float], length: int) -> slice:
    first = min(round(share[0] * length), length - 1)
    return slice(first, max(round(share[1] * length), first + 1))


class PairDataset(Dataset[PairItem]):
    """Pairs by index; a subclass says where the region of a pair comes from.

    `dataset[i]` is pair i as segmentation would see it. `dataset[SampleKey(position, i)]` is the
    same pair randomly changed, as a pure function of the seed and the position in training.

    Args:
        texts: per pair what is tokenised.
        nouns: per pair what it names.
        image_size: (height, width) that the CLIP takes.
        min_scale: least share of the area that random cropping keeps; 1 switches it off.
        seed: of the run.

    Raises:
        ValueError: if `texts` and `nouns` differ in length or `min_scale` is out of range.
    """

    def __init__(
        self,
        *,
        texts: Sequence[str],
        nouns: Sequence[str],
        image_size: tuple[int, int],
        min_scale: float = 0.9,
        seed: int = 0,
    ) -> None:
        if len(texts) != len(nouns):
            raise ValueError(f"expected as many texts as nouns, got {len(texts)} and {len(nouns)}")
        if not 0 < min_scale <= 1:
            raise ValueError(f"expected min_scale in (0, 1], got {min_scale}")
        self.texts = texts
        self.nouns = nouns
        self.image_size = image_size
        self.min_scale = min_scale
        self.seed = seed

    def __len__(self) -> int:
        return len(self.texts)

    def region(self, index: int) -> Region:
        """The crop of a pair, (h, w, 3) uint8 RGB, and its mask (h, w) bool."""
        raise NotImplementedError

    def training_region(self, index: int, rng: np.random.Generator) -> Region:
        """The crop of a pair for training; a subclass may change it at random."""
        return self.region(index)

    def __getitem__(self, key: int | SampleKey) -> PairItem:
        if isinstance(key, SampleKey):
            return self._training_item(key)
        return self.item(key, *self.region(key))

    def _training_item(self, key: SampleKey) -> PairItem:
        """Take the next readable pair: one damaged file must not end a run of days."""
        rng = sample_generator(self.seed, key.position)
        window = draw_window(rng, self.min_scale) if self.min_scale < 1 else None
        for step in range(_MAX_SUBSTITUTES):
            index = (key.record + step) % len(self)
            try:
                image, mask = self.training_region(index, rng)
            except (ImageError, ValueError) as error:
                logger.warning(
                    "pair %d cannot be used, the next one takes its place: %s", index, error
                )
                reason = error
                continue
            return self.item(index, image, mask, window=window)
        raise ImageError(
            f"{_MAX_SUBSTITUTES} pairs in a row cannot be read, the last: {reason}; check that "
            "the pictures are where the pairs say"
        )

    def item(
        self,
        index: int,
        image: NDArray[np.uint8],
        mask: NDArray[np.bool_],
        *,
        window: Window | None = None,
    ) -> PairItem:
        """The item of pair `index` from its crop; `window` as for `region_tensors`."""
        region, prompt = region_tensors(image, mask, self.image_size, window)
        text, noun = self.texts[index], self.nouns[index]
        return {"image": region, "mask": prompt, "text": text, "noun": noun}


class ArrayPairDataset(PairDataset):
    """Pairs whose crops lie in memory, as bytes and bits.

    Args:
        regions: per pair a crop (h, w, 3) uint8 RGB of any size and its mask (h, w) bool.
        texts: per pair what is tokenised.
        nouns: per pair what it names; None takes the texts.
        **options: image_size, min_scale and seed, see `PairDataset`.
    """

    def __init__(
        self,
        regions: Iterable[Region],
        *,
        texts: Sequence[str],
        nouns: Sequence[str] | None = None,
        image_size: tuple[int, int],
        min_scale: float = 0.9,
        seed: int = 0,
    ) -> None:
        super().__init__(
            texts=texts,
            nouns=texts if nouns is None else nouns,
            image_size=image_size,
            min_scale=min_scale,
            seed=seed,
        )
        self._regions = [(image, np.packbits(mask)) for image, mask in regions]
        if len(self._regions) != len(texts):
            raise ValueError(
                f"expected as many regions as texts, got {len(self._regions)} and {len(texts)}"
            )

    @classmethod
    def load(cls, pairs: PairDataset) -> ArrayPairDataset:
        """Read all pairs of another dataset into memory, in order."""
        return cls(
            (pairs.region(index) for index in range(len(pairs))),
            texts=pairs.texts,
            nouns=pairs.nouns,
            image_size=pairs.image_size,
            min_scale=pairs.min_scale,
            seed=pairs.seed,
        )

    def region(self, index: int) -> Region:
        """The crop of a pair, (h, w, 3) uint8 RGB, and its mask (h, w) bool."""
        image, bits = self._regions[index]
        height, width = image.shape[:2]
        mask = np.unpackbits(bits, count=height * width).reshape(height, width).astype(np.bool_)
        return image, mask


class RecordPairDataset(PairDataset):
    """Pairs from the miner's records and the pictures that they refer to.

    Args:
        records: a table with the columns image_uri, height, width, noun and rle_counts, or the
            parquet file(s) or folder of it; `ovseg.mining.records` describes them.
        image_root: folder that relative addresses lie in.
        template: what the noun is put into, with one "{}".
        expand_ratio: factor on the sides of each region's tight box.
        **options: image_size, min_scale and seed, see `PairDataset`.

    Raises:
        ValueError: if a column is missing or the template is none.
    """

    def __init__(
        self,
        records: pa.Table | str | Path | Sequence[str | Path],
        *,
        image_size: tuple[int, int],
        image_root: str | Path = ".",
        template: str = "a photo of a {}.",
        expand_ratio: float = 1.0,
        min_scale: float = 0.9,
        seed: int = 0,
    ) -> None:
        if template.count("{}") != 1:
            raise ValueError(f"expected a template with exactly one {{}}, got {template!r}")
        table = records if isinstance(records, pa.Table) else _read_tables(records)
        missing = [name for name in _COLUMNS if name not in table.column_names]
        if missing:
            name = "" if isinstance(records, pa.Table) else f"{records}: "
            raise ValueError(
                f"{name}expected records with the columns {', '.join(_COLUMNS)}, missing: "
                f"{', '.join(missing)}; tools/mine_captions.py writes such files"
            )
        nouns = table["noun"].to_pylist()
        super().__init__(
            texts=[template.replace("{}", noun) for noun in nouns],
            nouns=nouns,
            image_size=image_size,
            min_scale=min_scale,
            seed=seed,
        )
        # Arrow's buffers, not Python objects: worker processes share them.
        self._table = table.select(_COLUMNS).combine_chunks()
        self._store = ImageStore(image_root)
        self._expand_ratio = expand_ratio
        self._last: tuple[str, NDArray[np.uint8]] | None = None

    def region(self, index: int) -> Region:
        """The crop of a pair, (h, w, 3) uint8 RGB, and its mask (h, w) bool.

        Raises:
            ValueError: if the mask is empty or not of the picture's size; the picture is named.
        """
        row = {name: self._table[name][index].as_py() for name in _COLUMNS}
        image = self._picture(row["image_uri"])
        try:
            return crop_region(image, record_mask(row), expand_ratio=self._expand_ratio)
        except ValueError as error:
            raise ValueError(f"record {index} ({row['image_uri']}): {error}") from error

    def _picture(self, uri: str) -> NDArray[np.uint8]:
        # Records of a picture follow each other: read in order, each is decoded once.
        if self._last is None or self._last[0] != uri:
            self._last = (uri, self._store.read(uri))
        return self._last[1]


def record_mask(row: Mapping[str, Any]) -> NDArray[np.bool_]:
    """Decode the region of a record.

    Args:
        row: with rle_counts, height and width.

    Returns:
        (H, W) bool at the picture's size.
    """
    return decode_rle({"size": [row["height"], row["width"]], "counts": row["rle_counts"]})


def _read_tables(paths: str | Path | Sequence[str | Path]) -> pa.Table:
    listed = [paths] if isinstance(paths, str | Path) else paths
    files = [
        file
        for path in map(Path, listed)
        for file in (sorted(path.rglob("part-*.parquet")) if path.is_dir() else [path])
    ]
    if not files:
        raise ValueError(f"expected record files (part-*.parquet), found none in {listed}")
    return pa.concat_tables([read_parquet(file) for file in files])
