"""Random numbers of training as a pure function of (seed, iteration, rank).

Saving generator states makes a resume exact only as long as nothing else (an evaluation, a logger,
a data loader) draws from them in between. Seeding anew at each iteration needs no saved state,
survives a change of the number of processes, and costs microseconds.
"""

from __future__ import annotations

import random

import numpy as np
import torch

__all__ = ["derive_seed", "seed_iteration"]


def derive_seed(seed: int, *path: int) -> int:
    """Mix a run's seed and a path of counters into an independent 64-bit seed.

    Args:
        seed: the run's seed, not negative.
        path: counters that name the stream, e.g. iteration and rank; not negative.

    Returns:
        A seed in [0, 2**64).
    """
    # Lengths matter: SeedSequence treats [1] and [1, 0] alike unless the length is mixed in.
    sequence = np.random.SeedSequence([len(path), seed, *path])
    return int(sequence.generate_state(1, np.uint64)[0])


def seed_iteration(seed: int, iteration: int, rank: int = 0) -> None:
    """Seed every generator that a training step may draw from.

    Args:
        seed: the run's seed, not negative.
        iteration: index of the step about to be taken, from 0.
        rank: index of this process; each process draws its own dropout masks.
    """
    derived = derive_seed(seed, iteration, rank)
    random.seed(derived)
    np.random.seed(derived % 2**32)
    torch.manual_seed(derived)
