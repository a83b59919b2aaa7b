"""Noun-region pairs from label maps, their masks damaged on the way, and pairs of several sources.

Where a training set has labels, its classes' regions and names are pairs whose noun is right for
sure. What is taken from labels is what a training set shows: an ignored pixel is no region.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ovseg.data.mask_damage import damage_mask
from ovseg.data.pairs import PairDataset, PairItem, Region, crop_region
from ovseg.data.sampling import SampleKey

__all__ = ["JoinedPairDataset", "LabelPairDataset"]


class LabelPairDataset(PairDataset):
    """Pairs of a class's region in a picture and the class's noun.

    In training a share of the masks is damaged (`ovseg.data.mask_damage`) and then cut out at the
    box that the damaged mask has, as a proposal would be.

    Args:
        pictures: images (H, W, 3) uint8 RGB with label maps (H, W), in memory or read when they
            are asked for (`ovseg.data.labelled.LabelledPictures`).
        regions: (N, 2) number of the picture and class id of each pair, as `find_regions` lists
            them.
        nouns: noun by class id.
        damage: share of the samples whose mask is damaged, in [0, 1].
        template: what a noun is put into, with one "{}".
        expand_ratio: factor on the sides of each region's tight box.
        **options: image_size, min_scale and seed, see `PairDataset`.
    """

    def __init__(
        self,
        pictures: Sequence[tuple[NDArray[np.uint8], NDArray[np.integer]]],
        regions: NDArray[np.integer],
        *,
        nouns: Mapping[int, str],
        image_size: tuple[int, int],
        damage: float = 0.0,
        template: str = "a photo of a {}.",
        expand_ratio: float = 1.0,
        min_scale: float = 0.9,
        seed: int = 0,
    ) -> None:
        texts = {number: template.replace("{}", noun) for number, noun in nouns.items()}
        class_ids = regions[:, 1].tolist()
        super().__init__(
            texts=[texts[number] for number in class_ids],
            nouns=[nouns[number] for number in class_ids],
            image_size=image_size,
            min_scale=min_scale,
            seed=seed,
        )
        self.pictures = pictures
        self.regions = regions
        self.damage = damage
        self.expand_ratio = expand_ratio

    def region(self, index: int) -> Region:
        """The crop of a pair, (h, w, 3) uint8 RGB, and its plain mask (h, w) bool."""
        return self._cut(index, None)

    def training_region(self, index: int, rng: np.random.Generator) -> Region:
        """The crop of a pair with its mask, plain or damaged."""
        return self._cut(index, rng if rng.random() < self.damage else None)

    def _cut(self, index: int, rng: np.random.Generator | None) -> Region:
        number, class_id = self.regions[index].tolist()
        image, labels = self.pictures[number]
        mask = labels == class_id  # (H, W)
        if rng is not None:
            mask = damage_mask(mask, rng)
        return crop_region(image, mask, expand_ratio=self.expand_ratio)


class JoinedPairDataset(PairDataset):
    """The pairs of several datasets, one after the other.

    Args:
        parts: at least one; of one image size. Each keeps its own cropping, damage and seed.
        shares: of each part among the pairs, positive; a part that is too small for its share is
            repeated, none is cut. None takes each pair once.

    Raises:
        ValueError: parts and shares do not fit together, a part is empty or of another size.
    """

    def __init__(
        self, parts: Sequence[PairDataset], *, shares: Sequence[float] | None = None
    ) -> None:
        lengths = np.array([len(part) for part in parts])
        if not len(parts) or not lengths.all():
            raise ValueError(f"expected parts with pairs, got parts of {lengths.tolist()} pairs")
        if len({tuple(part.image_size) for part in parts}) > 1:
            sizes = [part.image_size for part in parts]
            raise ValueError(f"expected parts of one image size, got {sizes}")
        if shares is not None:
            weights = np.asarray(shares, np.float64)
            if weights.shape != lengths.shape or not (weights > 0).all():
                raise ValueError(f"expected {len(parts)} positive shares, got {list(shares)}")
            lengths = np.round((lengths / weights).max() * weights).astype(np.int64)
        self.parts = parts
        self._starts = np.concatenate([[0], lengths.cumsum()])  # (P + 1,)
        super().__init__(
            texts=_repeated([part.texts for part in parts], lengths.tolist()),
            nouns=_repeated([part.nouns for part in parts], lengths.tolist()),
            image_size=parts[0].image_size,
        )

    def region(self, index: int) -> Region:
        """The crop of a pair, (h, w, 3) uint8 RGB, and its mask (h, w) bool."""
        part, own = self._find(index)
        return part.region(own)

    def __getitem__(self, key: int | SampleKey) -> PairItem:
        if isinstance(key, SampleKey):
            part, own = self._find(key.record)
            return part[SampleKey(key.position, own)]
        part, own = self._find(key)
        return part[own]

    def _find(self, index: int) -> tuple[PairDataset, int]:
        number = int(np.searchsorted(self._starts, index, side="right")) - 1
        part = self.parts[number]
        return part, (index - int(self._starts[number])) % len(part)


def _repeated(parts: Sequence[Sequence[str]], lengths: Sequence[int]) -> list[str]:
    """Put lists one after the other, each repeated or not, up to its length."""
    joined: list[str] = []
    for part, length in zip(parts, lengths, strict=True):
        repeats, rest = divmod(length, len(part))
        joined += [*part] * repeats + [*part[:rest]]
    return joined
