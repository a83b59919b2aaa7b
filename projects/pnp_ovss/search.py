"""Looking for good settings by evaluating them one by one: at random, or by annealing.

Source: Luo et al., arXiv 2311.17095, section 3.5, searches layer, head and threshold by a reward
that takes no masks; the released code anneals from random starts. The rule of acceptance here is
Metropolis' with a temperature that falls linearly.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ovseg.readers.documents import read_json
from ovseg.utils.files import write_json

__all__ = ["METHODS", "Found", "search"]

METHODS = ("annealing", "random")
Setting = dict[str, Any]


@dataclass
class Found:
    """What a search has found.

    Attributes:
        tried: settings and rewards in the order of the search; some may occur again.
        rewards: reward by setting, each evaluated once.
    """

    tried: list[tuple[Setting, float]] = field(default_factory=list)
    rewards: dict[str, float] = field(default_factory=dict)

    @property
    def best(self) -> tuple[Setting, float]:
        """The setting with the largest reward, the first of equal ones."""
        return max(self.tried, key=lambda one: one[1])


def search(
    space: Mapping[str, Sequence[Any]],
    evaluate: Callable[[Setting], float],
    n_iter: int,
    seed: int,
    *,
    method: str = "annealing",
    temperature: float = 0.1,
    journal: str | Path | None = None,
) -> Found:
    """Look for the setting with the largest reward.

    Args:
        space: the choices of each setting, in their natural order.
        evaluate: maps a setting to its reward; asked once for each.
        n_iter: settings to try.
        seed: of all choices; the same seed tries the same settings.
        method: "random" draws every setting anew; "annealing" moves one choice of the last one by
            a step and goes back from a worse one, less often at first.
        temperature: of annealing at its start, as a share of the rewards' range so far.
        journal: JSON file of the rewards so far; a search that was stopped goes on with it.

    Returns:
        What was tried.

    Raises:
        ValueError: an empty choice, no iteration, or an unknown method.
    """
    empty = [name for name, choices in space.items() if not choices]
    if empty or not space:
        raise ValueError(f"expected choices for every setting, got none for {empty or 'any'}")
    if n_iter < 1 or method not in METHODS:
        raise ValueError(
            f"expected n_iter of at least 1 and a method of {METHODS}, got {n_iter} and {method!r}"
        )
    rng = np.random.default_rng(seed)
    found = Found(rewards=_read(journal))

    def reward_of(setting: Setting) -> float:
        key = json.dumps(setting, sort_keys=True)
        if key not in found.rewards:
            found.rewards[key] = float(evaluate(setting))
            if journal is not None:
                write_json(journal, found.rewards)
        found.tried.append((setting, found.rewards[key]))
        return found.rewards[key]

    current = _draw(space, rng)
    reward = reward_of(current)
    for number in range(1, n_iter):
        setting = _draw(space, rng) if method == "random" else _neighbour(space, current, rng)
        new = reward_of(setting)
        heat = temperature * (1 - number / n_iter)
        # Drawn in any case: what comes next does not depend on the rewards' order.
        chance = rng.random()
        if chance < _acceptance(new - reward, heat, [one for _, one in found.tried]):
            current, reward = setting, new
    return found


def _draw(space: Mapping[str, Sequence[Any]], rng: np.random.Generator) -> Setting:
    return {name: choices[int(rng.integers(len(choices)))] for name, choices in space.items()}


def _neighbour(
    space: Mapping[str, Sequence[Any]], setting: Setting, rng: np.random.Generator
) -> Setting:
    """The setting with one of its choices moved by a step; the ends of a choice are neighbours."""
    movable = [name for name, choices in space.items() if len(choices) > 1]
    if not movable:
        return dict(setting)
    name = movable[int(rng.integers(len(movable)))]
    choices = list(space[name])
    step = 1 if rng.random() < 0.5 else -1
    return {**setting, name: choices[(choices.index(setting[name]) + step) % len(choices)]}


def _acceptance(gain: float, heat: float, rewards: Sequence[float]) -> float:
    """Chance to go on from a setting whose reward is larger by `gain`."""
    if gain >= 0:
        return 1.0
    scale = heat * (max(rewards) - min(rewards))
    return math.exp(gain / scale) if scale > 0 else 0.0


def _read(journal: str | Path | None) -> dict[str, float]:
    if journal is None or not Path(journal).is_file():
        return {}
    return {key: float(value) for key, value in read_json(journal).items()}
