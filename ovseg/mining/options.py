"""What the command line of the caption miner means."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import torch

from ovseg.mining.matching import MatchConfig
from ovseg.mining.nouns import DEFAULT_STOP_WORDS, NounConfig
from ovseg.mining.parts import MiningConfig
from ovseg.readers.documents import read_text

__all__ = ["PRECISIONS", "PROPOSALS", "ModelChoice", "settings"]

PROPOSALS = ("model", "instances:FILE", "classes:FILE", "files:FOLDER", "grid:ROWSxCOLUMNS")
PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class ModelChoice:
    """Which models mine.

    Attributes:
        config_file: path or shipped name; "" for the one that belongs to the weights, else
            "ovseg_tiny".
        weights: name in the catalogue, path or address; "random" for random ones, with which
            time and memory can be measured; "" for MODEL.WEIGHTS of `opts`, else the config's
            trained weights.
        clip: another CLIP for the scores, of the config's architecture: a name or path; "" for
            the model's own.
        proposals: where regions come from, one of `PROPOSALS`.
        labels: training set whose labels explain proposals, a name or a dataset YAML; "" for none.
        duplicate_iou: see `MaskFormerProposer`.
        precision: one of `PRECISIONS`; the halves are several times faster on a GPU.
        opts: config overrides, KEY VALUE ...

    Raises:
        ValueError: an unknown precision.
    """

    config_file: str = ""
    weights: str = ""
    clip: str = ""
    proposals: str = "model"
    labels: str = ""
    duplicate_iou: float | None = None
    precision: str = "float32"
    opts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ValueError(
                f"precision: expected one of {tuple(PRECISIONS)}, got {self.precision!r}"
            )

    @property
    def dtype(self) -> torch.dtype | None:
        """What the models compute in; None leaves it to their weights."""
        return PRECISIONS[self.precision]


def settings(args: argparse.Namespace) -> tuple[MiningConfig, ModelChoice]:
    """Turn the command line into the library's settings.

    Args:
        args: what the parser returned.

    Returns:
        The miner's settings, and which models mine.

    Raises:
        ValueError: a value out of range.
        OSError: a file of words that cannot be read.
    """
    stop_words = DEFAULT_STOP_WORDS
    if args.stop_words is not None:
        stop_words = tuple(read_text(args.stop_words).split())
    of_nouns = ("tagger", "phrases", "lemma", "lower", "proper", "concreteness", "min_concreteness")
    nouns = {name: getattr(args, name) for name in of_nouns}
    config = MiningConfig(
        nouns=NounConfig(**nouns, stop_words=stop_words),
        matching=MatchConfig(threshold=args.threshold, margin=args.margin, mutual=args.mutual),
        captions=int(args.captions) if args.captions.isdigit() else args.captions,
        **{name: getattr(args, name) for name in ("templates", "shard_size", "batch_size")},
    )
    of_models = (
        "config_file",
        "weights",
        "clip",
        "proposals",
        "labels",
        "duplicate_iou",
        "precision",
    )
    models = {name: getattr(args, name) for name in of_models}
    return config, ModelChoice(opts=tuple(args.opts), **models)
