"""Training samples of an image-text matcher: a picture, a text of it, and one with a wrong noun.

Beside captions as people write them come bare lists of nouns, which is what segmentation asks with.
Whether a text with one wrong noun fits can only be told by looking for that noun.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from ovseg.d2.config import CfgNode
from ovseg.data.captions.records import PictureRecords, caption_records
from ovseg.data.mappers import TRAIN_MAPPER_REGISTRY
from ovseg.data.sampling import evenly
from ovseg.mining.nouns import CaptionError, Noun, NounConfig, NounExtractor
from ovseg.utils.image_store import ImageStore

from .pictures import squash

__all__ = ["MatchMapper"]

_SEARCHED = 20_000  # captions whose nouns may be put into others; more would delay every start


@TRAIN_MAPPER_REGISTRY.register()
def pnp_ovss_captions(cfg: CfgNode) -> MatchMapper:
    """Builds the mapper of the matcher's training samples."""
    node = cfg.MODEL.PNP_OVSS
    finder = NounExtractor(NounConfig(lemma=True))
    captions = caption_records(cfg.DATASETS.TRAIN)
    searched = evenly(range(len(captions)), _SEARCHED)
    return MatchMapper(
        records=PictureRecords(captions),
        finder=finder,
        captions=[captions[index]["caption"] for index in searched],
        prefix=node.PROMPT.PREFIX,
        side=node.ITM.IMAGE_SIZE or node.TRAIN.IMAGE_SIZE,
        list_share=node.TRAIN.LIST_SHARE,
        most_nouns=node.TRAIN.MOST_NOUNS,
    )


class MatchMapper:
    """Reads a picture and writes two texts for it.

    Args:
        records: the training set, which stands for that of label maps.
        finder: finds the nouns of captions.
        captions: texts of the training set; wrong nouns are among theirs.
        prefix: what lists of nouns begin with.
        side: of the square that pictures are resized to.
        list_share: share of the texts that are lists of nouns.
        most_nouns: of a list.

    Raises:
        ValueError: the captions have no two different nouns.
    """

    def __init__(
        self,
        *,
        records: Sequence[Mapping[str, Any]],
        finder: NounExtractor,
        captions: Iterable[str],
        prefix: str,
        side: int,
        list_share: float,
        most_nouns: int,
    ) -> None:
        self.records = records
        self.finder = finder
        self.prefix = prefix
        self.side = side
        self.list_share = list_share
        self.most_nouns = most_nouns
        self._nouns = lru_cache(maxsize=100_000)(self._find)
        known = {noun.text for text in captions for noun in self._nouns(text)}
        self.known = tuple(sorted(known))  # sets have no order
        if len(self.known) < 2:
            raise ValueError(
                f"expected captions with at least two different nouns, got {list(self.known)}; "
                "a matcher learns from texts in which one is exchanged"
            )

    def __call__(
        self, record: Mapping[str, Any], rng: np.random.Generator | None = None
    ) -> dict[str, Any]:
        """Makes a training sample.

        Args:
            record: see `ovseg.data.captions.records.PictureRecords`.
            rng: source of all random choices; None draws from fresh entropy.

        Returns:
            The record with `image` (3, S, S) float32 0-255, `text`, which fits it, and `wrong`,
            the same with another noun.

        Raises:
            ImageError: the picture is unreadable.
        """
        rng = np.random.default_rng() if rng is None else rng
        picture = ImageStore(record["image_root"]).read(record["file_name"])  # (H, W, 3)
        if rng.random() < 0.5:
            picture = picture[:, ::-1]
        present = {noun.text for text in record["captions"] for noun in self._nouns(text)}
        caption = str(rng.choice(record["captions"]))
        if present and rng.random() < self.list_share:
            text, wrong = self._list(sorted(present), rng)
        else:
            text, wrong = caption, self._exchange(caption, present, rng)
        image = squash(np.ascontiguousarray(picture), self.side)
        return {**record, "image": image, "text": text, "wrong": wrong}

    def _list(self, present: Sequence[str], rng: np.random.Generator) -> tuple[str, str]:
        """A list of nouns that are there, and the same with one that is not."""
        count = int(rng.integers(1, min(len(present), self.most_nouns) + 1))
        nouns = [str(noun) for noun in rng.permutation(present)[:count]]
        wrong = list(nouns)
        wrong[int(rng.integers(count))] = self._absent(set(present), rng)
        return " ".join([self.prefix, *nouns]), " ".join([self.prefix, *wrong])

    def _exchange(self, caption: str, present: set[str], rng: np.random.Generator) -> str:
        """A caption with one of its nouns exchanged; one without any becomes a list of one."""
        nouns = self._nouns(caption)
        other = self._absent(present, rng)
        if not nouns:
            return f"{self.prefix} {other}"
        noun = nouns[int(rng.integers(len(nouns)))]
        return caption[: noun.start] + other + caption[noun.end :]

    def _absent(self, present: set[str], rng: np.random.Generator) -> str:
        """A noun that no caption of the picture has; any, where they have all."""
        for _ in range(100):
            noun = self.known[int(rng.integers(len(self.known)))]
            if noun not in present:
                break
        return noun

    def _find(self, caption: str) -> tuple[Noun, ...]:
        try:
            return tuple(self.finder.extract(caption))
        except CaptionError:  # too long, or half a character: still a text, but without nouns
            return ()
