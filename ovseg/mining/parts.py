"""What mining is made of: settings, and what a worker holds to follow them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np

from ovseg.data.captions.sources import ImageRow
from ovseg.mining.explained import LabelReader
from ovseg.mining.matching import MatchConfig
from ovseg.mining.nouns import Noun, NounConfig
from ovseg.proposals import RegionProposer
from ovseg.utils.run_record import AnotherRunError
from ovseg.vocab import templates_by_name

__all__ = [
    "BatchScorer",
    "MiningConfig",
    "MiningError",
    "MiningParts",
    "MiningRunError",
    "NounFinder",
    "ReadPicture",
    "RegionScorer",
]

ReadPicture = Callable[[ImageRow], tuple[np.ndarray, str]]
"""Gives the picture of a row, (H, W, 3) uint8 RGB, and the sha256 of its bytes."""


class MiningError(RuntimeError):
    """Something that makes mining on senseless; the text says what to change."""


class MiningRunError(AnotherRunError, MiningError):
    """The folder holds another run of the miner."""


class NounFinder(Protocol):
    """Takes nouns from captions; `ovseg.mining.nouns.NounExtractor` is one.

    Attributes:
        name: tagger and version, recorded with every pair.
    """

    name: str

    def extract(self, caption: str) -> list[Noun]:
        """Return a caption's nouns, each once; `CaptionError` where there can be none."""
        ...


class RegionScorer(Protocol):
    """Compares regions with texts.

    Attributes:
        name: the model, recorded with every pair.
    """

    name: str

    def __call__(self, image: np.ndarray, masks: np.ndarray, texts: Sequence[str]) -> np.ndarray:
        """Score every region for every text.

        Args:
            image: (H, W, 3) uint8 RGB.
            masks: (V, H, W) bool, none empty.
            texts: N nouns, without a template.

        Returns:
            (V, N) float32 cosines.
        """
        ...


@runtime_checkable
class BatchScorer(Protocol):
    """A `RegionScorer` that is faster with several pictures at a time."""

    def score_batch(
        self,
        images: Sequence[np.ndarray],
        masks: Sequence[np.ndarray],
        texts: Sequence[Sequence[str]],
    ) -> list[np.ndarray]:
        """Score the regions of each picture for its texts; see `RegionScorer`."""
        ...


@dataclass(frozen=True)
class MiningConfig:
    """Everything that the records depend on, besides the models and the source.

    Attributes:
        nouns: how nouns are found.
        matching: which matches are kept.
        captions: "first", "all", or the index of the one caption to use.
        templates: name of the templates that nouns are put into for CLIP.
        shard_size: pictures per shard, the unit of work and of resuming.
        batch_size: pictures that go through the models together.
        max_pixels: larger pictures are quarantined: their masks would fill the memory.

    Raises:
        ValueError: a setting out of range, or no templates of that name.
    """

    nouns: NounConfig = field(default_factory=NounConfig)
    matching: MatchConfig = field(default_factory=MatchConfig)
    captions: str | int = "first"
    templates: str = "vild"
    shard_size: int = 1000
    batch_size: int = 8
    max_pixels: int = 32_000_000

    def __post_init__(self) -> None:
        chosen = self.captions
        if chosen not in ("first", "all") and not (isinstance(chosen, int) and chosen >= 0):
            raise ValueError(f"captions: expected 'first', 'all' or an index, got {chosen!r}")
        for name in ("shard_size", "batch_size", "max_pixels"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}")
        templates_by_name(self.templates)


@dataclass(frozen=True)
class MiningParts:
    """What a worker holds: the models and the tagger.

    Attributes:
        proposer: gives a picture's regions.
        scorer: compares them with nouns.
        nouns: finds the nouns.
        settings: further plain facts about the models that the results depend on; kept in the
            run's manifest and part of its hash.
        labels: finds labels of the pictures, where a training set has them: proposals on labelled
            regions become pairs with the class's noun, and captions name the others.
    """

    proposer: RegionProposer
    scorer: RegionScorer
    nouns: NounFinder
    settings: Mapping[str, Any] = field(default_factory=dict)
    labels: LabelReader | None = None
