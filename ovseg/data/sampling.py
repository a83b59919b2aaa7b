"""Which samples make up which training batch, as pure functions of the seed.

The training set is gone through again and again, each time in a new random order; the place in
this endless sequence is a sample's global index. Everything else follows from it: the record,
the batch it is in, and (elsewhere) the random changes. So a run continues at any iteration with
the samples it would have seen, and several processes share the batches of one.

Where a part of a set stands for the whole, it is spread evenly over it and no seed is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple, TypeVar

import numpy as np

__all__ = ["BatchPlan", "SampleKey", "evenly", "sample_generator"]

Item = TypeVar("Item")

# Streams of random numbers that must not be correlated with each other.
_ORDER_STREAM, _BATCH_STREAM, _SAMPLE_STREAM = 1, 2, 3


class SampleKey(NamedTuple):
    """One draw from a training set.

    Args:
        position: global index in the endless sequence of samples.
        record: index of the record in the dataset.
    """

    position: int
    record: int


def sample_generator(seed: int, position: int) -> np.random.Generator:
    """Make the random generator of one training sample.

    Args:
        seed: of the run.
        position: the sample's global index.

    Returns:
        A generator; the same arguments give the same numbers.
    """
    return np.random.default_rng([seed, _SAMPLE_STREAM, position])


def evenly(items: Sequence[Item], count: int | None) -> Sequence[Item]:
    """Take so many items, evenly spread over all: a part of a dataset that stands for it.

    Args:
        items: such as the records of a dataset.
        count: how many; None, or more than there are: all.

    Returns:
        The items, in their order.

    Raises:
        ValueError: fewer than one is wanted.
    """
    if count is None or count >= len(items):
        return items
    if count < 1:
        raise ValueError(f"images: expected at least 1, got {count}")
    return [items[index * len(items) // count] for index in range(count)]


class BatchPlan:
    """The samples of every training batch.

    With `is_wide`, pictures of one orientation are batched together so that less is padded: each
    run of `window` batches of the plain order is sorted into wide and tall pictures, which fill
    up batches of their own (at most one batch of a window is mixed), and these are shuffled.

    Args:
        num_records: size of the dataset.
        batch_size: samples per batch, over all processes.
        seed: of the run.
        is_wide: record index -> whether the picture is wider than tall; None for no grouping.
        window: batches that are grouped together.
    """

    def __init__(
        self,
        *,
        num_records: int,
        batch_size: int,
        seed: int,
        is_wide: Callable[[int], bool] | None = None,
        window: int = 16,
    ) -> None:
        for name, value in (("num_records", num_records), ("batch_size", batch_size)):
            if value < 1:
                raise ValueError(f"expected {name} to be at least 1, got {value}")
        if seed < 0:
            raise ValueError(f"expected a seed of at least 0, got {seed}")
        self.num_records = num_records
        self.batch_size = batch_size
        self.seed = seed
        self.is_wide = is_wide
        self.window = window
        self._order = lru_cache(maxsize=2)(self._make_order)
        self._grouped = lru_cache(maxsize=2)(self._make_grouped)

    def sample(self, position: int) -> SampleKey:
        """Look up a sample of the endless sequence.

        Args:
            position: global index, from 0.

        Returns:
            The sample.
        """
        epoch, place = divmod(position, self.num_records)
        return SampleKey(position, int(self._order(epoch)[place]))

    def batch(self, iteration: int) -> list[SampleKey]:
        """List the samples of a global batch.

        Args:
            iteration: from 0.

        Returns:
            `batch_size` samples.
        """
        if self.is_wide is None:
            return self._plain(iteration * self.batch_size, self.batch_size)
        number, place = divmod(iteration, self.window)
        return self._grouped(number)[place]

    def share(self, start: int, *, rank: int, world_size: int) -> Iterator[list[SampleKey]]:
        """Iterate over one process's part of all batches.

        Args:
            start: first iteration.
            rank: number of this process.
            world_size: number of processes; the batch size is a multiple of it.

        Yields:
            Per iteration every `world_size`-th sample of the global batch, from `rank` on.

        Raises:
            ValueError: the batch does not divide evenly.
        """
        if self.batch_size % world_size:
            raise ValueError(
                f"expected a global batch size that is a multiple of the {world_size} processes, "
                f"got {self.batch_size}; set SOLVER.IMS_PER_BATCH"
            )
        iteration = start
        while True:
            yield self.batch(iteration)[rank::world_size]
            iteration += 1

    def _plain(self, first: int, count: int) -> list[SampleKey]:
        return [self.sample(position) for position in range(first, first + count)]

    def _make_order(self, epoch: int) -> np.ndarray:
        rng = np.random.default_rng([self.seed, _ORDER_STREAM, epoch])
        return rng.permutation(self.num_records)  # (num_records,)

    def _make_grouped(self, number: int) -> list[list[SampleKey]]:
        assert self.is_wide is not None
        size = self.window * self.batch_size
        wide: list[SampleKey] = []
        tall: list[SampleKey] = []
        for key in self._plain(number * size, size):
            (wide if self.is_wide(key.record) else tall).append(key)
        # Whole batches of each kind; what is left of the two makes exactly one more, or none.
        batches = []
        for group in (wide, tall):
            while len(group) >= self.batch_size:
                batches.append(group[: self.batch_size])
                del group[: self.batch_size]
        if wide or tall:
            batches.append(wide + tall)
        rng = np.random.default_rng([self.seed, _BATCH_STREAM, number])
        return [batches[int(i)] for i in rng.permutation(len(batches))]
