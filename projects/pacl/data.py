"""Training samples: a picture, a caption of it, and prompts made of the caption's nouns.

Source: Mukhoti et al., CVPR 2023, section 4: nouns of the caption, put into one of seven of CLIP's
templates, are used in addition to the caption. How many of them is not told; see the README.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from PIL import Image

from ovseg.d2.config import CfgNode, configurable
from ovseg.data.captions.records import PictureRecords, caption_records
from ovseg.data.mappers import TRAIN_MAPPER_REGISTRY
from ovseg.data.transforms import random_resized_box
from ovseg.mining.nouns import CaptionError, NounConfig, NounExtractor
from ovseg.utils.image_store import ImageStore
from ovseg.vocab import templates_by_name

__all__ = ["PACLMapper", "text_number"]


@TRAIN_MAPPER_REGISTRY.register()
def pacl_captions(cfg: CfgNode) -> PACLMapper:
    """Build the mapper of PACL's training samples."""
    return PACLMapper(cfg)


class PACLMapper:
    """Reads a picture, cuts a part out at random, and chooses texts for it.

    Args:
        size: side of the square that the part becomes.
        scale: (least, largest) share of the picture's area that is kept.
        ratio: (least, largest) width of the part over its height.
        noun_prompts: texts made of nouns. A picture whose caption has no noun repeats the caption
            in their place, so that every picture has as many texts.
        caption: whether the caption is a text, too.
        templates: what nouns are put into.
        nouns: finds them.
        records: the training set; None for a mapper of single records.

    Attributes:
        records: the training set, which stands for that of label maps.

    Raises:
        ValueError: neither captions nor prompts are asked for.
    """

    @configurable
    def __init__(
        self,
        *,
        size: int,
        scale: tuple[float, float],
        ratio: tuple[float, float],
        noun_prompts: int,
        caption: bool,
        templates: Sequence[str],
        nouns: NounExtractor,
        records: Sequence[Mapping[str, Any]] | None = None,
    ) -> None:
        if noun_prompts + caption < 1:
            raise ValueError(
                "INPUT.PACL: expected NOUN_PROMPTS of at least 1 or CAPTION True, got no text"
            )
        self.size = size
        self.scale = scale
        self.ratio = ratio
        self.noun_prompts = noun_prompts
        self.caption = caption
        self.templates = tuple(templates)
        self.nouns = nouns
        self.records = records
        self._cached = lru_cache(maxsize=100_000)(self._find)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Reads INPUT.PACL."""
        data = cfg.INPUT.PACL
        return {
            "size": data.SIZE,
            "scale": tuple(data.SCALE),
            "ratio": tuple(data.RATIO),
            "noun_prompts": data.NOUN_PROMPTS,
            "caption": data.CAPTION,
            "templates": templates_by_name(data.TEMPLATES),
            "records": PictureRecords(caption_records(cfg.DATASETS.TRAIN)),
            "nouns": NounExtractor(NounConfig(tagger=data.TAGGER, lemma=data.LEMMA)),
        }

    def __call__(
        self, record: Mapping[str, Any], rng: np.random.Generator | None = None
    ) -> dict[str, Any]:
        """Makes a training sample.

        Args:
            record: see `ovseg.data.captions.records.PictureRecords`.
            rng: source of all random choices; None draws from fresh entropy.

        Returns:
            The record with `image` (3, S, S) uint8 RGB, `texts`, as many for every picture,
            `text_nouns`, the noun that each was made of or "", and `mentioned`, the nouns of all
            of the picture's captions.

        Raises:
            ImageError: the picture is unreadable.
        """
        rng = np.random.default_rng() if rng is None else rng
        picture = ImageStore(record["image_root"]).read(record["file_name"])  # (H, W, 3)
        caption = str(rng.choice(record["captions"]))
        texts, nouns = [caption] * self.caption, [""] * self.caption
        for noun in self._draw(self._cached(caption), rng):
            template = self.templates[int(rng.integers(len(self.templates)))]
            texts.append(template.replace("{}", noun) if noun else caption)
            nouns.append(noun)
        mentioned = {noun for text in record["captions"] for noun in self._cached(text)}
        return {
            **record,
            "image": self._crop(picture, rng),
            "texts": texts,
            "text_nouns": nouns,
            "mentioned": sorted(mentioned),
        }

    def _find(self, caption: str) -> tuple[str, ...]:
        try:
            return tuple(noun.text for noun in self.nouns.extract(caption))
        except CaptionError:  # too long, or half a character: still a text, but without nouns
            return ()

    def _draw(self, nouns: Sequence[str], rng: np.random.Generator) -> list[str]:
        """As many nouns as prompts, none twice while there are others; "" where there are none."""
        if not nouns:
            return [""] * self.noun_prompts
        rounds = -(-self.noun_prompts // len(nouns))
        drawn = [nouns[i] for _ in range(rounds) for i in rng.permutation(len(nouns))]
        return drawn[: self.noun_prompts]

    def _crop(self, picture: np.ndarray, rng: np.random.Generator) -> torch.Tensor:
        left, top, right, bottom = random_resized_box(
            (picture.shape[0], picture.shape[1]), rng, scale=self.scale, ratio=self.ratio
        )
        part = Image.fromarray(picture).resize(
            (self.size, self.size), Image.Resampling.BICUBIC, box=(left, top, right, bottom)
        )
        return torch.from_numpy(np.array(part).transpose(2, 0, 1).copy())  # (3, S, S)


def text_number(text: str) -> int:
    """The same number above 0 for the same text in every process; others differ in practice."""
    digest = hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1 or 1
