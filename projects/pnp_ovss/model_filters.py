"""Class filters that ask a model: CLIP, or the matcher itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ovseg.clip import (
    CLIP_PIXEL_MEAN,
    CLIP_PIXEL_STD,
    ClipTexts,
    MaskPromptedCLIP,
    load_clip,
)
from ovseg.d2.config import CfgNode
from ovseg.vocab import TextBank

from .filters import CLASS_FILTER_REGISTRY, Asked, ClassFilter
from .matcher import BlipMatcher
from .pictures import squash, to_picture

__all__ = ["ClipFilter", "MatcherFilter", "most_probable"]

_CLIP_SCALE = 100.0  # of CLIP's cosines
_AT_A_TIME = 32  # captions per forward pass


def most_probable(probabilities: Tensor, *, ratio: float, top: int) -> list[int]:
    """Choose the classes that are almost as probable as the most probable one.

    Args:
        probabilities: (K,).
        ratio: least share of the largest.
        top: most classes.

    Returns:
        Positions in ascending order; the most probable one is always there.
    """
    best = probabilities.topk(min(max(top, 1), len(probabilities))).indices
    kept = best[probabilities[best] >= ratio * probabilities.max()]
    return sorted(kept.tolist())


class ClipFilter(ClassFilter):
    """Asks for the classes that CLIP finds in the whole picture (zero-shot classification).

    Args:
        clip: the CLIP, on its way to the model's device.
        model: name of the CLIP, for the protocol.
        ratio: least probability, as a share of the largest.
        top: most classes.
    """

    name = "clip"

    def __init__(self, clip: MaskPromptedCLIP, *, model: str, ratio: float, top: int) -> None:
        super().__init__()
        # Not a part of this module: the config names its weights, a checkpoint has the method's.
        self._clip = (clip.eval().requires_grad_(False),)
        self.model, self.ratio, self.top = model, ratio, top
        self.texts = TextBank(ClipTexts(clip))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> ClipFilter:
        """Takes the CLIP along to another device or precision."""
        self._clip[0]._apply(fn)
        return super()._apply(fn, recurse)

    @torch.no_grad()
    def look(self, inputs: Mapping[str, Any]) -> dict[str, Tensor]:
        """Encode the picture; see `ClassFilter.look`."""
        [clip] = self._clip
        side = clip.image_size[0]
        pixels = squash(to_picture(inputs["image"]), side).to(clip.positional_embedding)
        mean = pixels.new_tensor(CLIP_PIXEL_MEAN)[:, None, None]
        std = pixels.new_tensor(CLIP_PIXEL_STD)[:, None, None]
        feature = clip.encode_image(((pixels - mean) / std)[None])  # (1, D)
        return {"clip": F.normalize(feature.float(), dim=-1)[0]}

    def choose(self, asked: Asked) -> list[int]:
        """Keep the most probable ones; see `ClassFilter.choose`."""
        text = self.texts.features(asked.vocabulary)[list(asked.candidates)]  # (K, D)
        scores = (_CLIP_SCALE * text @ asked.seen["clip"]).softmax(0)
        return most_probable(scores, ratio=self.ratio, top=self.top)

    def text_banks(self) -> Sequence[TextBank]:
        """Lists its CLIP's; see `SegmentationModel.text_banks`."""
        return (self.texts,)

    def protocol(self) -> dict[str, str | int | float | bool]:
        """States the CLIP and how many classes it may choose."""
        return super().protocol() | {
            "filter_clip": self.model,
            "filter_ratio": self.ratio,
            "filter_top": self.top,
        }


@CLASS_FILTER_REGISTRY.register()
def clip(cfg: CfgNode, matcher: BlipMatcher) -> ClassFilter:
    """Builds the filter of MODEL.CLIP_ADAPTER's CLIP, FILTER.RATIO and TOP."""
    adapter, node = cfg.MODEL.CLIP_ADAPTER, cfg.MODEL.PNP_OVSS.FILTER
    name, weights = adapter.CLIP_MODEL_NAME, adapter.CLIP_WEIGHTS
    if not weights:
        raise ValueError(
            "MODEL.CLIP_ADAPTER.CLIP_WEIGHTS: expected the weights of the CLIP that filters "
            "classes, got ''; name them, such as clip_ViT-L-14"
        )
    return ClipFilter(load_clip(name, weights), model=name, ratio=node.RATIO, top=node.TOP)


class MatcherFilter(ClassFilter):
    """Asks for the classes whose names alone, each in a caption of its own, fit the picture.

    Args:
        matcher: the method's.
        prefix: what a caption begins with.
        ratio: least probability of a match, as a share of the largest.
        top: most classes.
    """

    name = "itm"

    def __init__(self, matcher: BlipMatcher, *, prefix: str, ratio: float, top: int) -> None:
        super().__init__()
        # Not a part of this module: it is the method's.
        self._matcher = (matcher,)
        self.start = tuple(prefix.split())
        self.ratio, self.top = ratio, top

    @torch.no_grad()
    def choose(self, asked: Asked) -> list[int]:
        """Keep the best matches; see `ClassFilter.choose`."""
        [matcher] = self._matcher
        captions = [self.start + words for words in asked.words]
        found = []
        for start in range(0, len(captions), _AT_A_TIME):
            tokens = matcher.tokenize(captions[start : start + _AT_A_TIME])
            features = asked.features.expand(len(tokens.ids), -1, -1)
            found.append(matcher.match(features, tokens).softmax(-1)[:, 1])
        return most_probable(torch.cat(found), ratio=self.ratio, top=self.top)

    def protocol(self) -> dict[str, str | int | float | bool]:
        """States how many classes may be chosen."""
        return super().protocol() | {"filter_ratio": self.ratio, "filter_top": self.top}


@CLASS_FILTER_REGISTRY.register()
def itm(cfg: CfgNode, matcher: BlipMatcher) -> ClassFilter:
    """Builds the filter of the matcher itself, FILTER.RATIO and TOP."""
    node = cfg.MODEL.PNP_OVSS
    prefix, ratio, top = node.PROMPT.PREFIX, node.FILTER.RATIO, node.FILTER.TOP
    return MatcherFilter(matcher, prefix=prefix, ratio=ratio, top=top)
