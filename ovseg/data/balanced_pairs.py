"""Pairs drawn so that frequent nouns do not crowd out rare ones."""

from __future__ import annotations

import numpy as np

from ovseg.data.pairs import PairDataset, PairItem, Region
from ovseg.data.sampling import SampleKey, sample_generator

__all__ = ["NounBalancedPairs"]

_NOUN_STREAM = 17  # apart from the stream that crops the sample


class NounBalancedPairs(PairDataset):
    """The pairs of a dataset, drawn in training by their nouns.

    A noun with n pairs is drawn in proportion to n ** exponent, then one of its pairs. What is
    drawn is a function of the seed and the position in training.

    Args:
        pairs: the dataset; it keeps its own cropping and damage.
        exponent: in [0, 1]; 0 draws all nouns alike, 1 all pairs.
        seed: of the run.

    Raises:
        ValueError: the exponent is out of range, or there are no pairs.
    """

    def __init__(self, pairs: PairDataset, *, exponent: float, seed: int = 0) -> None:
        if not 0 <= exponent <= 1 or not len(pairs):
            raise ValueError(
                f"expected an exponent in [0, 1] and pairs, got {exponent} and {len(pairs)} pairs"
            )
        super().__init__(
            texts=pairs.texts, nouns=pairs.nouns, image_size=pairs.image_size, seed=seed
        )
        self.pairs = pairs
        _, nouns, counts = np.unique(
            np.asarray(pairs.nouns), return_inverse=True, return_counts=True
        )
        shares = counts.astype(np.float64) ** exponent
        self._until = np.cumsum(shares / shares.sum())  # (N,)
        self._order = np.argsort(nouns, kind="stable")  # pairs, noun after noun
        self._starts = np.concatenate([[0], counts.cumsum()])  # (N + 1,)

    def region(self, index: int) -> Region:
        """The crop of a pair, (h, w, 3) uint8 RGB, and its mask (h, w) bool."""
        return self.pairs.region(index)

    def __getitem__(self, key: int | SampleKey) -> PairItem:
        if not isinstance(key, SampleKey):
            return self.pairs[key]
        rng = sample_generator(self.seed + _NOUN_STREAM, key.position)
        noun = min(int(np.searchsorted(self._until, rng.random(), "right")), len(self._until) - 1)
        start, end = self._starts[noun], self._starts[noun + 1]
        drawn = int(self._order[rng.integers(start, end)])
        return self.pairs[SampleKey(key.position, drawn)]
