"""One label map of the overlapping tiles of a large picture, with few of them in memory.

At a pixel, tile i has the weight w_i = r_i c_i: r_i is the distance of the pixel's centre from the
tile's nearer end along its rows, c_i that along its columns. The score of a class is

    sum_i w_i s_i / sum_i w_i

over the tiles that hold the pixel. So one tile fades into the next linearly where they overlap, and
where a tile is alone, its scores count as they are.

The picture is read out in cells. Cell (i, j) ends where tile (i, j) ends and begins where the tiles
before it end: the cells part the picture, and each meets its own tile and some after it. Hence a
tile is encoded once, decoded once for each row of cells that it meets (two of them, as a rule), and
gone after its own cell. One row of encodings and the predictions of four tiles are alive at a time,
whatever the picture's height.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, product
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from ovseg.modeling.contenders import contenders
from ovseg.modeling.prediction import MaskPrediction, Prediction, Window
from ovseg.modeling.views.tiles import tile_starts

__all__ = ["BLANK", "Cell", "Mosaic"]

BLANK = -1
_Place = tuple[int, int]  # number of a tile along the rows and along the columns
_Found = TypeVar("_Found")


@dataclass(frozen=True, eq=False)
class Cell:
    """A part of the picture that is done.

    Attributes:
        window: which part.
        labels: (h, w) int64, -1 for pixels without a class.
        tile: the picture's part that `prediction` is of; it holds the cell.
        prediction: of the cell's own tile; None where that was left out.
    """

    window: Window
    labels: Tensor
    tile: Window
    prediction: Prediction | None

    def region_scores(self, labels: np.ndarray) -> np.ndarray:
        """Says with what confidence the cell's own tile names each class's pixels in it.

        Args:
            labels: (h, w) integers in [-1, K), those of the cell.

        Returns:
            (K,) float32, see `Prediction.region_scores`.

        Raises:
            ValueError: the cell's tile was left out.
        """
        if self.prediction is None:
            raise ValueError("expected a cell whose tile was predicted, got one that was left out")
        whole = np.full(self.prediction.output_size, BLANK, np.int32)
        rows, columns = _within(self.window, self.tile)
        whole[rows, columns] = labels
        return self.prediction.region_scores(whole)


class Mosaic:
    """Overlapping tiles that cover a picture.

    Args:
        size: (H, W) of the picture.
        tile: side of a tile, pixels; a shorter side of the picture is one tile.
        overlap: share of a tile that the next one covers again, in [0, 0.5].

    Raises:
        ValueError: a tile without pixels, or an overlap out of range.
    """

    def __init__(self, size: tuple[int, int], *, tile: int, overlap: float) -> None:
        if tile < 1:
            raise ValueError(f"tile: expected at least 1 pixel, got {tile}")
        if not 0 <= overlap <= 0.5:
            raise ValueError(f"overlap: expected a share of the tile in [0, 0.5], got {overlap}")
        self.rows, self.columns = (
            [slice(start, min(start + tile, side)) for start in tile_starts(side, tile, overlap)]
            for side in size
        )

    def __len__(self) -> int:
        return len(self.rows) * len(self.columns)

    def cells(
        self,
        encode: Callable[[Window], _Found | None],
        decode: Callable[[_Found], Prediction],
    ) -> Iterator[Cell]:
        """Reads out the label map from the upper left to the lower right.

        Args:
            encode: called once for each tile; None leaves it out, and pixels that are in no other
                tile are blank.
            decode: makes a prediction of the tile's size.

        Yields:
            The cells, row after row.
        """
        encoded: dict[_Place, _Found | None] = {}
        for i, rows in enumerate(_cell_sides(self.rows)):
            decoded: dict[_Place, Prediction] = {}
            for j, columns in enumerate(_cell_sides(self.columns)):
                cell = rows, columns
                below, beside = _meeting(self.rows, i, rows), _meeting(self.columns, j, columns)
                for place in product(below, beside):
                    if place not in encoded:
                        encoded[place] = encode(self._tile(place))
                    content = encoded[place]
                    if content is not None and place not in decoded:
                        decoded[place] = decode(content)
                labels = self._labels(cell, decoded)
                yield Cell(cell, labels, self._tile((i, j)), decoded.get((i, j)))
                del encoded[i, j]
                decoded = {place: each for place, each in decoded.items() if place[1] > j}

    def _tile(self, place: _Place) -> Window:
        return self.rows[place[0]], self.columns[place[1]]

    def _labels(self, cell: Window, tiles: Mapping[_Place, Prediction]) -> Tensor:
        """Labels a cell, (h, w) int64."""
        device = next((tile.device for tile in tiles.values()), None)
        labels = torch.full([side.stop - side.start for side in cell], BLANK, device=device)
        # Tiles may begin within the cell, none ends there: a block between two begins is in the
        # same tiles throughout.
        for block in product(_cut(cell[0], self.rows), _cut(cell[1], self.columns)):
            here = {p: each for p, each in tiles.items() if _holds(self._tile(p), block)}
            if here:
                labels[_within(block, cell)] = self._block(block, here)
        return labels

    def _block(self, block: Window, tiles: Mapping[_Place, Prediction]) -> Tensor:
        """Labels a block that is in the same tiles throughout, (h, w) int64."""
        kept, chosen = _contending(list(tiles.values()))
        parts = [
            (tile, _within(block, self._tile(place)))
            for place, tile in zip(tiles, chosen, strict=True)
        ]
        weights = torch.stack([_weights(self._tile(place), block) for place in tiles])  # (T, h, w)
        shares = (weights / weights.sum(0)).to(parts[0][0].device)
        height = min(tile.band_height for tile, _ in parts)
        readers = [tile.final_bands(height, window) for tile, window in parts]
        labels: list[Tensor] = []
        begin = 0
        for bands in zip(*readers, strict=True):
            end = begin + len(bands[0][1])
            labels.append(_blend(parts, bands, shares[:, begin:end]))
            begin = end
        found = torch.cat(labels)
        return found if kept is None else torch.where(found < 0, found, kept[found.clamp(min=0)])


def _contending(tiles: Sequence[Prediction]) -> tuple[Tensor | None, Sequence[Prediction]]:
    """The classes that can win where T tiles are blended, and the tiles with these alone.

    A blend is a sum over the masks of all tiles with weights of at least 0, as
    `ovseg.modeling.contenders` asks for. None: all classes, of a method that merges no masks.
    """
    masked = [tile for tile in tiles if isinstance(tile, MaskPrediction)]
    if len(masked) < len(tiles):
        return None, tiles
    kept = contenders(torch.cat([tile.class_scores for tile in masked]))
    return kept, [replace(tile, class_scores=tile.class_scores[:, kept]) for tile in masked]


def _blend(
    parts: Sequence[tuple[Prediction, Window]],
    bands: Sequence[tuple[slice, Tensor]],
    shares: Tensor,
) -> Tensor:
    """Labels one band of T tiles.

    Args:
        parts: the tiles, and which part of each is read.
        bands: rows of each tile and their scores (h, w, C).
        shares: (T, h, w), their sum is 1.

    Returns:
        (h, w) int64; -1 where tiles of more than half of the weight abstain.
    """
    silent = torch.zeros_like(shares[0])  # (h, w)
    total: Tensor | None = None
    for (tile, (_, columns)), (rows, values), share in zip(parts, bands, shares, strict=True):
        scores = values[..., : tile.num_classes]
        if tile.may_abstain:
            silent += share * tile.abstains(rows, values, columns)
        if len(parts) == 1:
            total = scores
        elif total is None:
            total = scores * share[..., None]
        else:
            total.addcmul_(scores, share[..., None])
    assert total is not None
    return total.max(-1).indices.masked_fill_(silent > 0.5, BLANK)


def _weights(tile: Window, block: Window) -> Tensor:
    """Weights of a tile at the pixels of a block, (h, w) float32; see the head of this module."""
    near = []
    for side, part in zip(tile, block, strict=True):
        centres = torch.arange(part.start, part.stop) + 0.5
        near.append(torch.minimum(centres - side.start, side.stop - centres))
    return near[0][:, None] * near[1]


def _cell_sides(sides: Sequence[slice]) -> list[slice]:
    return [slice(a, b) for a, b in pairwise([0, *(side.stop for side in sides)])]


def _meeting(sides: Sequence[slice], own: int, cell: slice) -> list[int]:
    """Numbers of the tiles that meet a cell along an axis: its own and some after it."""
    return [number for number in range(own, len(sides)) if sides[number].start < cell.stop]


def _cut(cell: slice, sides: Sequence[slice]) -> list[slice]:
    """Parts a side of a cell where tiles begin."""
    begins = [side.start for side in sides if cell.start < side.start < cell.stop]
    return [slice(a, b) for a, b in pairwise([cell.start, *begins, cell.stop])]


def _holds(tile: Window, block: Window) -> bool:
    return all(
        side.start <= part.start and part.stop <= side.stop
        for side, part in zip(tile, block, strict=True)
    )


def _within(part: Window, whole: Window) -> Window:
    """A part of the picture in the coordinates of another that holds it."""
    rows, columns = (
        slice(inner.start - outer.start, inner.stop - outer.start)
        for inner, outer in zip(part, whole, strict=True)
    )
    return rows, columns
