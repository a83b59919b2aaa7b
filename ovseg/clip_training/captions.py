"""Captioned pictures as pairs, drawn when they are asked for."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from ovseg.data.pairs import PairItem, region_tensors
from ovseg.data.sampling import SampleKey

__all__ = ["CaptionPairs"]


class CaptionPairs(Dataset[PairItem]):
    """Pair `i` of a deterministic stream of pictures and captions; the whole picture is the region.

    Training takes them in the order of the stream, each once: what is drawn anew for every pair
    needs no shuffling.

    Args:
        render: maps an index to an image (H, W, 3) uint8 RGB and its caption; picklable.
        count: pairs that training may take.
        image_size: (height, width) that the image tower takes.
        first: index in the stream of the first pair.
    """

    def __init__(
        self,
        render: Callable[[int], tuple[NDArray[np.uint8], str]],
        *,
        count: int,
        image_size: tuple[int, int],
        first: int = 0,
    ) -> None:
        self.render = render
        self.count = count
        self.image_size = image_size
        self.first = first

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, key: int | SampleKey) -> PairItem:
        position = key.position if isinstance(key, SampleKey) else key
        picture, caption = self.render(self.first + position)
        everywhere = np.ones(picture.shape[:2], dtype=np.bool_)
        image, mask = region_tensors(picture, everywhere, self.image_size)
        return {"image": image, "mask": mask, "text": caption, "noun": caption}
