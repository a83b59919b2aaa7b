"""How good a layer, a head and a threshold are, judged by CLIP, without any mask.

Source: Luo et al., arXiv 2311.17095, section 3.5, in the form of the released code: what a class's
map leaves of the picture must look more like the class than nothing does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from torch import Tensor

from ovseg.clip import CLIP_PIXEL_MEAN, CLIP_PIXEL_STD, ClipTexts, MaskPromptedCLIP
from ovseg.vocab import TextBank, Vocabulary

from .captions import class_maps, make_captions
from .labels import min_max
from .matcher import gradient_map
from .model import PictureEncoding, PnPOVSS
from .pictures import squash

__all__ = ["Judged", "MaskFreeReward", "wins"]

_BLUR = 0.04  # over the longer side
_SCALE = 100.0  # of cosines
MAX_CLASSES = 12  # of a picture; bounds the pictures that CLIP sees


@dataclass(frozen=True, eq=False)
class Judged:
    """A picture of which a reward is computed again and again.

    Args:
        pixels: (3, S, S) as CLIP takes them.
        text: (K, D) unit rows of the classes that are there.
        maps: (layers, heads, K, h, w) of a single pass, each class alone.
    """

    pixels: Tensor
    text: Tensor
    maps: Tensor


class MaskFreeReward:
    """Counts how often what a map leaves of a picture wins over an empty picture.

    A picture with one class can never win, since the softmax over its classes is 1 for anything;
    such pictures are left out.

    Args:
        model: whose layers and heads are judged.
        clip: judges.
        layers: of the text encoder, from 0; the last one has no maps.
    """

    def __init__(self, model: PnPOVSS, clip: MaskPromptedCLIP, layers: Sequence[int]) -> None:
        self.model = model.eval()
        self.clip = clip.eval()
        self.layers = list(layers)
        self.texts = TextBank(ClipTexts(clip))
        device = next(clip.parameters()).device
        self._mean = torch.tensor(CLIP_PIXEL_MEAN, device=device)[:, None, None]
        self._std = torch.tensor(CLIP_PIXEL_STD, device=device)[:, None, None]
        self.pictures: list[Judged] = []

    @torch.no_grad()
    def add(
        self, inputs: Mapping[str, Any], vocabulary: Vocabulary, present: Sequence[int]
    ) -> bool:
        """Look at a picture once, with all layers and heads.

        Args:
            inputs: a model input.
            vocabulary: names of the classes.
            present: indices of those that are in the picture, as image-level labels say.

        Returns:
            Whether it can be judged, that is, shows several classes.
        """
        present = list(present)[:MAX_CLASSES]
        if len(present) < 2:
            return False
        [encoding] = self.model.encode([inputs])
        names = [self.model.wording.words(vocabulary.names[k]) for k in present]
        side = self.clip.image_size[0]
        pixels = (squash(encoding.picture, side).to(self._mean) - self._mean) / self._std
        text = self.texts.features(vocabulary)[present]
        self.pictures.append(Judged(pixels, text, self._maps(encoding, names)))
        return True

    def _maps(self, encoding: PictureEncoding, names: Sequence[tuple[str, ...]]) -> Tensor:
        model, matcher = self.model, self.model.matcher
        captions = make_captions(
            names,
            prefix=model.wording.prefix,
            pieces=matcher.pieces,
            max_tokens=min(model.wording.max_tokens, matcher.max_tokens),
        )
        grid = (model.side // matcher.patch_size,) * 2
        parts = []
        for caption in captions:
            tokens = matcher.tokenize([caption.words])
            _, attention = matcher.attend(encoding.features[None], tokens, self.layers)
            words = tokens.words[0][1:]
            maps = [
                class_maps(
                    gradient_map(attention[layer], tokens.mask, head, grid)[0],
                    words,
                    caption,
                    rule=model.wording.rule,
                )
                for layer in self.layers
                for head in range(matcher.heads)
            ]
            parts.append(torch.stack(maps).unflatten(0, (len(self.layers), matcher.heads)))
        return torch.cat(parts, 2)  # (layers, heads, K, h, w)

    @torch.no_grad()
    def __call__(self, setting: Mapping[str, Any]) -> float:
        """Judge a setting.

        Args:
            setting: `layer` (from 1), `head` (from 0) and `threshold`.

        Returns:
            Wins over all classes of all pictures.
        """
        layer = self.layers.index(setting["layer"] - 1)
        total = 0
        for picture in self.pictures:
            maps = picture.maps[layer, setting["head"]]  # (K, h, w)
            total += wins(self.clip, picture, maps, setting["threshold"])
        return float(total)


def wins(clip: MaskPromptedCLIP, picture: Judged, maps: Tensor, threshold: float) -> int:
    """Count the classes that CLIP recognises better in what their maps leave than in nothing.

    Args:
        clip: the judge.
        picture: what is masked.
        maps: (K, h, w) of its classes.
        threshold: of maps, in [0, 1], before and after they are blurred.

    Returns:
        At most K.
    """
    side = picture.pixels.shape[-1]
    binary = (min_max(maps) > threshold).float()
    large = F.interpolate(binary[None], (side, side), mode="bilinear", align_corners=False)[0]
    blurred = gaussian_filter(large.cpu().numpy(), (0, _BLUR * side, _BLUR * side))
    masks = (min_max(torch.from_numpy(np.ascontiguousarray(blurred))) > threshold).to(maps)
    seen = torch.cat((picture.pixels * masks[:, None], torch.zeros_like(picture.pixels)[None]))
    features = F.normalize(clip.encode_image(seen), dim=-1)  # (K + 1, D)
    chance = (_SCALE * features @ picture.text.T).softmax(-1)  # (K + 1, K)
    return int((chance[:-1].diagonal() > chance[-1]).sum())
