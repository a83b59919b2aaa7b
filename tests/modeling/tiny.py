"""A model with every part of OVSeg that builds and runs in a fraction of a second."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ovseg.config import load_cfg
from ovseg.d2.config import CfgNode
from ovseg.d2.modeling import build_model
from ovseg.modeling import DensePrediction, Encoding, SegmentationModel
from ovseg.modeling.ovseg import OVSeg
from ovseg.vocab import Vocabulary

NAMES = ("cat", "sky", "wooden table")
QUERIES = 7
_OPTS: dict[str, Any] = {
    "MODEL.DEVICE": "cpu",
    "MODEL.WEIGHTS": "",
    "MODEL.SWIN.EMBED_DIM": 16,
    "MODEL.SWIN.DEPTHS": [2, 2, 2, 2],
    "MODEL.SWIN.NUM_HEADS": [1, 2, 2, 4],
    "MODEL.SWIN.WINDOW_SIZE": 4,
    "MODEL.SEM_SEG_HEAD.CONVS_DIM": 64,
    "MODEL.SEM_SEG_HEAD.MASK_DIM": 32,
    "MODEL.SEM_SEG_HEAD.EMBEDDING_DIM": 64,
    "MODEL.SEM_SEG_HEAD.EMBED_HIDDEN_DIM": 32,
    "MODEL.SEM_SEG_HEAD.NUM_CLASSES": len(NAMES),
    "MODEL.MASK_FORMER.HIDDEN_DIM": 32,
    "MODEL.MASK_FORMER.NUM_OBJECT_QUERIES": QUERIES,
    "MODEL.MASK_FORMER.NHEADS": 4,
    "MODEL.MASK_FORMER.DIM_FEEDFORWARD": 32,
    "MODEL.MASK_FORMER.DEC_LAYERS": 2,
    "MODEL.CLIP_ADAPTER.CLIP_MODEL_NAME": "ovseg-tiny",
    "MODEL.CLIP_ADAPTER.TEXT_TEMPLATES": "predefined",
    "TEST.OUTPUT": "sem_seg",
}


@dataclass(eq=False)
class ScoresEncoding(Encoding):
    """The input as it came."""

    inputs: dict[str, Any]
    output_size: tuple[int, int]


class FixedScores(SegmentationModel):
    """Answers every picture with the same scores (K, h, w), and with the same blank pixels."""

    has_own_weights = False

    def __init__(self, scores: Tensor, *, blank: Tensor | None = None, **options: Any) -> None:
        super().__init__(pixel_mean=(0, 0, 0), pixel_std=(1, 1, 1), **options)
        self.scores = scores
        self.blank = blank
        self.training = False

    def encode(self, batched_inputs: Any) -> Iterator[ScoresEncoding]:
        for x, size in zip(batched_inputs, self.prepare(batched_inputs).output_sizes, strict=True):
            yield ScoresEncoding(dict(x), size)

    def decode(self, encoding: Encoding, vocabulary: Vocabulary) -> DensePrediction:
        return DensePrediction(self.scores, encoding.output_size, self.blank)


def tiny_cfg(**overrides: Any) -> CfgNode:
    """The configuration; keywords are keys with "__" for the dots."""
    opts = _OPTS | {key.replace("__", "."): value for key, value in overrides.items()}
    return load_cfg("ovseg_swinB", [item for pair in opts.items() for item in pair])


def tiny_model(**overrides: Any) -> OVSeg:
    torch.manual_seed(1)
    model = build_model(tiny_cfg(**overrides)).eval()
    # Freshly initialised masks all hover around 0.5; these spread over (0, 1).
    with torch.no_grad():
        model.sem_seg_head.predictor.mask_embed.layers[-1].bias.normal_(std=2)
    return model


def image(height: int, width: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 255 * torch.rand(3, height, width, generator=generator)


def vocabulary(*names: str, **options: Any) -> Vocabulary:
    return Vocabulary.make(names or NAMES, templates=("a photo of a {}.",), **options)
