"""Segmenting a large image tile by tile.

Each tile is segmented on its own; scores are averaged where tiles overlap.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ovseg.d2.config import CfgNode
from ovseg.modeling.prediction import DensePrediction
from ovseg.modeling.segmentor import Inputs, Segmentor
from ovseg.vocab import Vocabulary

# Tile side by the image's shorter side, where the tile size is left open (0 or less).
AUTOMATIC_TILES = {256: 224, 512: 256, 768: 512, 896: 512}


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


class SlidingWindow(nn.Module):
    """A segmentor applied to overlapping tiles.

    Args:
        model: the segmentor.
        tile: side of a tile in network-input pixels; 0 or less chooses by the image's shorter side.
        overlap: share of a tile that the next one covers again, in [0, 1).

    Raises:
        ValueError: `overlap` is out of range.
    """

    def __init__(self, model: Segmentor, *, tile: int = 224, overlap: float = 2 / 3) -> None:
        super().__init__()
        if not 0 <= overlap < 1:
            raise ValueError(f"TEST.SLIDING_OVERLAP: expected a number in [0, 1), got {overlap}.")
        self.model = model
        self.tile = tile
        self.overlap = overlap
        self.training = model.training

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

    def forward(
        self, batched_inputs: Inputs, vocabulary: Vocabulary | None = None
    ) -> list[dict[str, Tensor]]:
        """Segments a batch; see `Segmentor.forward`.

        Args:
            batched_inputs: inputs of the segmentor.
            vocabulary: K classes; None reads them from the inputs.

        Returns:
            Per image labels or sem_seg, as the segmentor's `output` says.
        """
        if vocabulary is None:
            vocabulary = self.model.find_vocabulary(batched_inputs)
        results = []
        for x in batched_inputs:
            height, width = x["image"].shape[1:]
            output_size = (int(x.get("height", height)), int(x.get("width", width)))
            with torch.no_grad():
                prediction = DensePrediction(self._scores(x["image"], vocabulary), output_size)
                if self.model.output == "labels":
                    results.append({"labels": prediction.labels()})
                else:
                    results.append({"sem_seg": prediction.sem_seg()})
        return results

    def _tiles(self, height: int, width: int) -> Iterator[tuple[slice, slice]]:
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

    def _scores(self, image: Tensor, vocabulary: Vocabulary) -> Tensor:
        """Averages the tiles' scores, (K, h, w)."""
        height, width = image.shape[1:]
        total = torch.zeros(len(vocabulary), height, width, device=self.model.device)
        count = torch.zeros(height, width, device=self.model.device)
        for rows, columns in self._tiles(height, width):
            batch = self.model.prepare([{"image": image[:, rows, columns]}])
            for prediction in self.model.predict(batch, vocabulary):
                total[:, rows, columns] += prediction.sem_seg()
                count[rows, columns] += 1
        return total / count
