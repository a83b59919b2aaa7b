"""A matcher that has learnt nothing yet: BLIP's modules at a given size, captions' word pieces."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from ovseg.d2.config import CfgNode
from ovseg.d2.utils import comm
from ovseg.data.captions.records import caption_records
from ovseg.weights.load import write_safetensors

from .loading import PREFIX, bundle
from .matcher import BlipMatcher

__all__ = ["fresh_config", "make_fresh_matcher", "word_pieces"]

logger = logging.getLogger(__name__)

FRESH_NAME = "fresh_matcher.safetensors"
_WORD = re.compile(r"\w+|[^\w\s]")
_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def word_pieces(texts: Iterable[str], *, size: int) -> list[str]:
    """Choose word pieces: the words of some texts, and letters to spell all others with.

    (The trainer of Hugging Face's tokenizers finds other pieces at every call.)

    Args:
        texts: any number of them.
        size: most pieces.

    Returns:
        Special tokens, letters, then words that occur twice, the most frequent first.

    Raises:
        ValueError: `size` leaves no room for a word.
    """
    counts = Counter(word for text in texts for word in _WORD.findall(text.lower()))
    letters = sorted({letter for word in counts for letter in word})
    start = [*_SPECIAL, *letters, *(f"##{letter}" for letter in letters)]
    if len(start) >= size:
        raise ValueError(
            f"MODEL.PNP_OVSS.TRAIN.VOCABULARY: expected more than the {len(start)} pieces that "
            f"letters take, got {size}"
        )
    frequent = sorted(counts, key=lambda word: (-counts[word], word))
    words = [word for word in frequent if counts[word] > 1 and len(word) > 1]
    return [*start, *words[: size - len(start)]]


def fresh_config(cfg: CfgNode, pieces: list[str]) -> dict[str, Any]:
    """Describe the BLIP that MODEL.PNP_OVSS.TRAIN asks for.

    Args:
        cfg: a full config.
        pieces: of the vocabulary.

    Returns:
        As `ovseg.projects.pnp_ovss.loading.make_blip` takes it.
    """
    size = cfg.MODEL.PNP_OVSS.TRAIN
    return {
        "vision": {
            "hidden_size": size.WIDTH,
            "intermediate_size": size.MLP_WIDTH,
            "num_hidden_layers": size.VISION_LAYERS,
            "num_attention_heads": size.VISION_HEADS,
            "image_size": size.IMAGE_SIZE,
            "patch_size": size.PATCH_SIZE,
            "initializer_range": 0.02,  # transformers' own is made for loading
        },
        "text": {
            "vocab_size": len(pieces) + 2,  # and the tokens that begin a text and ask for a match
            "hidden_size": size.WIDTH,
            "encoder_hidden_size": size.WIDTH,
            "intermediate_size": size.MLP_WIDTH,
            "num_hidden_layers": size.TEXT_LAYERS,
            "num_attention_heads": size.TEXT_HEADS,
            "max_position_embeddings": size.MAX_TOKENS,
            "bos_token_id": len(pieces),
            "pad_token_id": pieces.index("[PAD]"),
            "sep_token_id": pieces.index("[SEP]"),
        },
        "image_text_hidden_size": size.EMBEDDING,
    }


def make_fresh_matcher(cfg: CfgNode) -> Path:
    """Write a matcher with random weights into the run's folder, where none is yet.

    Args:
        cfg: a full config; DATASETS.TRAIN names captions, SEED draws the weights.

    Returns:
        The file.
    """
    path = Path(cfg.OUTPUT_DIR) / FRESH_NAME
    if comm.is_main_process() and not path.is_file():
        texts = (record["caption"] for record in caption_records(cfg.DATASETS.TRAIN))
        pieces = word_pieces(texts, size=cfg.MODEL.PNP_OVSS.TRAIN.VOCABULARY)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(max(cfg.SEED, 0))
            matcher = BlipMatcher(*bundle(fresh_config(cfg, pieces), pieces))
        write_safetensors(path, {f"{PREFIX}{k}": v for k, v in matcher.state_dict().items()})
        logger.info("A new matcher with %d word pieces: %s", len(pieces), path)
    comm.synchronize()
    return path
