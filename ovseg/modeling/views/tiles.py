"""Segmenting a large image tile by tile.

Each tile is segmented on its own; scores are averaged where tiles overlap.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ovseg.d2.config import CfgNode
from ovseg.modeling.prediction import DensePrediction, Window
from ovseg.modeling.segmentor import Encoding, Inputs, Segmentor
from ovseg.modeling.views.view import View, ViewEncoding, output_size_of
from ovseg.vocab import Vocabulary

__all__ = ["SlidingWindow", "tile_starts"]

# Tile side by the image's shorter side, where the tile size is left open (0 or less).
AUTOMATIC_TILES = {256: 224, 512: 256, 768: 512, 896: 512}

# What a tile's input keeps of its picture's.
_PICTURE_KEYS = ("image_id", "file_name", "sem_seg_file_name", "original", "mirrored")


def tile_starts(length: int, tile: int, overlap: float) -> list[int]:
    """First pixels of the tiles along one axis.

    Args:
        length: length of the axis.
        tile: length of a tile.
        overlap: share of a tile that the next one covers again, in [0, 1).

    Returns:
        Ascending starts; the last tile ends with the axis. One tile where the axis is shorter.
    """
    if length <= tile:
        return [0]
    stride = max(1, math.ceil(tile * (1 - overlap)))
    return [*range(0, length - tile, stride), length - tile]


@dataclass(eq=False)
class TileEncoding(ViewEncoding):
    """Encodings of the tiles of one picture.

    Args:
        windows: rows and columns of each tile at the network's input size.
        size: (h, w) of the picture at the network's input size.
    """

    windows: list[Window]
    size: tuple[int, int]


class SlidingWindow(View):
    """A segmentor applied to overlapping tiles.

    Args:
        model: the segmentor.
        tile: side of a tile in network-input pixels; 0 or less chooses by the image's shorter side.
        overlap: share of a tile that the next one covers again, in [0, 1).

    Raises:
        ValueError: `overlap` is out of range.
    """

    def __init__(self, model: Segmentor, *, tile: int = 224, overlap: float = 2 / 3) -> None:
        super().__init__(model)
        if not 0 <= overlap < 1:
            raise ValueError(f"TEST.SLIDING_OVERLAP: expected a number in [0, 1), got {overlap}.")
        self.tile = tile
        self.overlap = overlap

    @classmethod
    def from_config(cls, cfg: CfgNode, model: Segmentor) -> SlidingWindow:
        """Reads TEST.SLIDING_TILE_SIZE and TEST.SLIDING_OVERLAP.

        Args:
            cfg: full configuration.
            model: the segmentor.

        Returns:
            The wrapped model.
        """
        return cls(model, tile=cfg.TEST.SLIDING_TILE_SIZE, overlap=cfg.TEST.SLIDING_OVERLAP)

    def encode(self, batched_inputs: Inputs) -> Iterable[TileEncoding]:
        """Encodes the tiles of each image; see `Segmentor.encode`."""
        for x in batched_inputs:
            height, width = x["image"].shape[1:]
            windows = list(self._windows(height, width))
            about = {key: x[key] for key in _PICTURE_KEYS if key in x}
            about["whole_size"] = (height, width)
            parts: list[Encoding] = []
            for rows, columns in windows:
                about["image"] = x["image"][:, rows, columns]
                parts += self.model.encode([about | {"offset": (rows.start, columns.start)}])
            yield TileEncoding(parts, output_size_of(x), windows, (height, width))

    def decode(self, encoding: Encoding, vocabulary: Vocabulary) -> DensePrediction:
        """Averages the tiles' scores; see `Segmentor.decode`.

        The prediction abstains where all tiles of a pixel do.
        """
        assert isinstance(encoding, TileEncoding)
        total = torch.zeros(len(vocabulary), *encoding.size, device=self.device)
        count = torch.zeros(encoding.size, device=self.device)
        named = torch.zeros(encoding.size, dtype=torch.bool, device=self.device)
        for (rows, columns), part in zip(encoding.windows, encoding.parts, strict=True):
            prediction = self.model.decode(part, vocabulary)
            total[:, rows, columns] += prediction.sem_seg()
            count[rows, columns] += 1
            abstention = prediction.abstention()
            named[rows, columns] |= True if abstention is None else ~abstention
            part.forget()
        blank = None if bool(named.all()) else ~_nearest(named, encoding.output_size)
        return DensePrediction(total / count, encoding.output_size, blank)

    def _windows(self, height: int, width: int) -> Iterator[Window]:
        """Yields the rows and columns of every tile."""
        tile = self.tile
        if tile <= 0:
            shorter = min(height, width)
            if shorter not in AUTOMATIC_TILES:
                raise ValueError(
                    f"TEST.SLIDING_TILE_SIZE: expected a tile size for a shorter side of {shorter} "
                    f"pixels; a size is chosen only for {list(AUTOMATIC_TILES)}."
                )
            tile = AUTOMATIC_TILES[shorter]
        for top in tile_starts(height, tile, self.overlap):
            for left in tile_starts(width, tile, self.overlap):
                yield slice(top, min(top + tile, height)), slice(left, min(left + tile, width))


def _nearest(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """A mask (h, w) bool at another size."""
    resized = torch.nn.functional.interpolate(mask[None, None].float(), size, mode="nearest")
    return resized[0, 0].bool()
