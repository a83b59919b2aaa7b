"""Ways to one result: a config, overrides of it, and savings that are left out."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import torch

from ovseg.benchmark.reference import SAVINGS, WholeTexts, without
from ovseg.d2.config import CfgNode
from ovseg.modeling.ovseg import OVSeg
from ovseg.predictor import Predictor
from ovseg.readers.documents import read_yaml
from ovseg.vocab import TextBank

__all__ = ["EXACT", "REFERENCE", "ReadyWay", "Way", "read_ways", "share_weights"]


@dataclass(frozen=True, kw_only=True)
class Way:
    """One way to segment.

    Attributes:
        title: what its column is called.
        opts: config overrides, KEY VALUE pairs, after those of the command.
        without: savings of `ovseg.benchmark.reference.SAVINGS` that are left out.

    Raises:
        ValueError: a key without a value, or a saving that there is not.
    """

    title: str
    opts: tuple[str, ...] = ()
    without: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.opts) % 2:
            raise ValueError(f"{self.title}: expected KEY VALUE pairs, got {' '.join(self.opts)}")
        if not {*self.without} <= {*SAVINGS}:
            raise ValueError(
                f"{self.title}: without: expected savings of {', '.join(SAVINGS)}, got "
                f"{', '.join(self.without)}"
            )


REFERENCE = Way(title="reference", without=SAVINGS)
EXACT = Way(title="exact")


def read_ways(path: str | os.PathLike[str] | None = None) -> list[Way]:
    """List the ways to measure: the reference, the package as it is, and those of a file.

    Args:
        path: YAML, a list of mappings with the attributes of `Way`; None: no further ways.

    Returns:
        The ways, the reference first.

    Raises:
        ValueError: the file is something else, or two ways have one title.
        OSError: it cannot be read.
    """
    known = [field.name for field in fields(Way)]
    ways = [REFERENCE, EXACT]
    content: Any = [] if path is None else read_yaml(path)
    for number, row in enumerate(content if isinstance(content, list) else [content]):
        if not (isinstance(row, dict) and {"title"} <= row.keys() <= {*known}):
            raise ValueError(
                f"{path}: line {number}: expected a mapping with title, and nothing but "
                f"{', '.join(known)}; got {row!r}"
            )
        lists = {key: tuple(map(str, row.get(key, ()))) for key in ("opts", "without")}
        ways.append(Way(title=str(row["title"]), **lists))
    titles = [way.title for way in ways]
    twice = sorted({title for title in titles if titles.count(title) > 1})
    if twice:
        raise ValueError(f"{path}: expected titles that differ, got twice: {', '.join(twice)}")
    return ways


@dataclass(frozen=True, eq=False)
class ReadyWay:
    """A way with its model.

    Attributes:
        way: what is asked.
        cfg: with the way's overrides.
        model: with its weights, in eval mode; its gradients are switched off. Ways of one config
            may share it.
        predictor: around the model.
    """

    way: Way
    cfg: CfgNode
    model: OVSeg
    predictor: Predictor

    def __post_init__(self) -> None:
        self.model.requires_grad_(False)  # hooks that count operations stumble over parameters

    @contextmanager
    def active(self) -> Iterator[TextBank]:
        """Let the model answer in this way; yields its bank of texts."""
        with without(self.model, self.way.without, bank=self._whole_texts):
            yield self.model.clip_adapter.text_bank

    @cached_property
    def _whole_texts(self) -> TextBank:
        return TextBank(WholeTexts(self.model.clip_adapter.clip_model))

    @property
    def keeps_texts(self) -> bool:
        """Whether features of texts are kept on disk."""
        return "texts" not in self.way.without


def share_weights(model: OVSeg, others: Sequence[OVSeg]) -> None:
    """Let a model hold what is equal in others, too, so that it takes memory once.

    Args:
        model: what it holds in another precision or shape, or with other values, stays its own.
        others: models with parameters of the same names.
    """
    for other in others:
        known = dict(other.named_parameters())
        for name, own in model.named_parameters():
            their = known.get(name)
            if their is not None and their.dtype == own.dtype and torch.equal(their, own):
                own.data = their.data
