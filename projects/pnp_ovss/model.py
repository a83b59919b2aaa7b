"""PnP-OVSS: segmentation from what an image-text matcher looks at, with nothing trained for it.

Source: Luo et al., "Emergent Open-Vocabulary Semantic Segmentation from Off-the-shelf
Vision-Language Models" (CVPR 2024, arXiv 2311.17095); constants are those of the released code.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ovseg.clip import CLIP_PIXEL_MEAN, CLIP_PIXEL_STD
from ovseg.d2.config import CfgNode, configurable
from ovseg.d2.modeling import META_ARCH_REGISTRY
from ovseg.modeling import DensePrediction, Encoding, SegmentationModel
from ovseg.modeling.segmentor import Inputs
from ovseg.vocab import TextBank, Vocabulary
from ovseg.weights.find import find_weights
from ovseg.weights.load import as_state_dict, read_state_dict

from . import model_filters, pairs  # noqa: F401  (they register filters and the mapper)
from .captions import Wording, class_maps, make_captions, rows_of_classes
from .config import add_config, drop_of, rules_of, wording_of
from .dropout import DropSettings, salience_dropout
from .filters import Asked, ClassFilter, build_filter
from .fresh import make_fresh_matcher
from .labels import LabelRules, crf_backend, score_channels
from .loading import matcher_from_hub, matcher_of_state, shape_of_state
from .matcher import BlipMatcher
from .matching_loss import MatchingLoss
from .pictures import squash, to_picture
from .prediction import SubsetPrediction

__all__ = ["PictureEncoding", "PnPOVSS", "add_config", "settle_config"]


def settle_config(cfg: CfgNode, *, evaluating: bool) -> None:
    """Make a matcher to train, where a run names none.

    Args:
        cfg: the full config of a run, not frozen; MODEL.WEIGHTS becomes the new matcher's file.
        evaluating: whether it only evaluates.
    """
    if not evaluating and not cfg.MODEL.WEIGHTS and not cfg.MODEL.PNP_OVSS.ITM.NAME:
        cfg.MODEL.WEIGHTS = str(make_fresh_matcher(cfg))


@dataclass(eq=False)
class PictureEncoding(Encoding):
    """A picture, kept for the words that it will meet.

    Args:
        pixels: (3, S, S), normalised, as the matcher takes it.
        features: (1 + N, D) of the matcher's image encoder, with nothing blanked.
        picture: (h, w, 3) uint8 RGB, at the network's input size.
        output_size: the requested (H, W).
        image_id: the picture's name, "" where it has none.
        seen: what the class filter kept of it.
    """

    pixels: Tensor
    features: Tensor
    picture: np.ndarray
    output_size: tuple[int, int]
    image_id: str
    seen: dict[str, Tensor]

    def tensors(self) -> dict[str, Tensor]:
        """Returns the content by name."""
        own = {"pixels": self.pixels, "features": self.features}
        own["picture"] = torch.from_numpy(self.picture)
        return own | {f"seen.{name}": tensor for name, tensor in self.seen.items()}


@META_ARCH_REGISTRY.register()
class PnPOVSS(SegmentationModel):
    """Segments by the cross-attention of an image-text matcher.

    Args:
        matcher: the matcher.
        name: of the matcher where it is complete; "" where its weights are still to be loaded.
        image_size: side of the square that it sees; 0 takes its own.
        interpolation: of that, "bicubic" or "bilinear".
        layer: of the text encoder, from 1.
        head: of that layer, from 0.
        wording: how classes become a caption.
        drop: salience dropout.
        rules: from maps to labels.
        class_filter: which classes are asked for.
        loss: what a matcher is trained with.
        **base: see `SegmentationModel`.

    Raises:
        ValueError: layer, head or size do not exist in this matcher.
    """

    @configurable
    def __init__(
        self,
        *,
        matcher: BlipMatcher,
        name: str,
        image_size: int,
        interpolation: str,
        layer: int,
        head: int,
        wording: Wording,
        drop: DropSettings,
        rules: LabelRules,
        class_filter: ClassFilter,
        loss: MatchingLoss,
        **base: Any,
    ) -> None:
        super().__init__(**base)
        self.matcher = matcher
        self.name = name
        self.has_own_weights = not name  # type: ignore[misc]
        self.image_size = image_size
        self.interpolation = interpolation
        self.layer, self.head = layer - 1, head
        self.wording = wording
        self.drop = drop
        self.rules = rules
        self.class_filter = class_filter
        self.loss = loss
        self._check()

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Reads MODEL.PNP_OVSS; see `add_config`."""
        itm = cfg.MODEL.PNP_OVSS.ITM
        matcher = _find_matcher(itm.NAME, cfg.MODEL.WEIGHTS)
        raw = {"pixel_mean": [0.0] * 3, "pixel_std": [255.0] * 3}
        clips = {"pixel_mean": CLIP_PIXEL_MEAN, "pixel_std": CLIP_PIXEL_STD}
        own = {
            "matcher": matcher,
            "name": itm.NAME,
            "image_size": itm.IMAGE_SIZE,
            "interpolation": itm.INTERPOLATION,
            "layer": itm.LAYER,
            "head": itm.HEAD,
            "wording": wording_of(cfg),
            "drop": drop_of(cfg),
            "rules": rules_of(cfg),
            "class_filter": build_filter(cfg, matcher),
            "loss": MatchingLoss(
                contrastive_weight=cfg.MODEL.PNP_OVSS.TRAIN.CONTRASTIVE_WEIGHT,
                temperature=cfg.MODEL.PNP_OVSS.TRAIN.TEMPERATURE,
                sharpness=cfg.MODEL.PNP_OVSS.TRAIN.SHARPNESS,
                masked_weight=cfg.MODEL.PNP_OVSS.TRAIN.MASKED_WEIGHT,
                masked_share=cfg.MODEL.PNP_OVSS.TRAIN.MASKED_SHARE,
            ),
        }
        return super().from_config(cfg) | (raw if itm.RAW_INPUT else clips) | own

    def _check(self) -> None:
        matcher, side = self.matcher, self.side
        for key, value, low, high in (
            ("LAYER", self.layer + 1, 1, matcher.layers),
            ("HEAD", self.head, 0, matcher.heads - 1),
        ):
            if not low <= value <= high:
                raise ValueError(
                    f"MODEL.PNP_OVSS.ITM.{key}: expected {low} to {high} of this matcher, got "
                    f"{value}"
                )
        if side < 1 or side % matcher.patch_size:
            raise ValueError(
                f"MODEL.PNP_OVSS.ITM.IMAGE_SIZE: expected a multiple of {matcher.patch_size}, this "
                f"matcher's patches, got {side}"
            )

    @property
    def side(self) -> int:
        """Side of the square that the matcher sees."""
        return self.image_size or self.matcher.image_size

    def protocol(self) -> dict[str, str | int | float | bool]:
        """States the choices of inference; see `Segmentor.protocol`."""
        drop, rules = self.drop, self.rules
        return {
            "matcher": self.name or "with its weights",
            "image_size": self.side,
            "layer": self.layer + 1,
            "head": self.head,
            "salience_dropout": f"{drop.rounds} x {drop.mode}",
            "map_threshold": rules.threshold,
            "scale_01": rules.scale_01,
            "background_channel": rules.background,
            "post": rules.post,
            "crf": crf_backend(rules),
            "caption": f"{self.wording.prefix} ... ({self.wording.rule})",
            **self.class_filter.protocol(),
        }

    def text_banks(self) -> Sequence[TextBank]:
        """Lists those of the class filter; see `SegmentationModel.text_banks`."""
        return self.class_filter.text_banks()

    def load_weights(
        self,
        state_or_path: Mapping[str, Tensor] | str | Path,
        *,
        to_train: bool = False,
        allow_pickle: bool = False,
    ) -> None:
        """Loads a matcher of any size: the tensors say which one they are of.

        Args:
            state_or_path: what training leaves, a file or its tensors.
            to_train: has no effect.
            allow_pickle: see `SegmentationModel.load_weights`.

        Raises:
            WeightsError: the file cannot be read, or holds no whole matcher.
        """
        state = as_state_dict(state_or_path, allow_pickle=allow_pickle)
        source = str(state_or_path) if isinstance(state_or_path, str | Path) else "the state dict"
        self.matcher.become(matcher_of_state(state, source=source))
        self._check()

    def losses(
        self, batched_inputs: Inputs, vocabulary: Vocabulary | None = None
    ) -> dict[str, Tensor]:
        """Trains the matcher on samples of `MatchMapper`; see `Segmentor.losses`.

        Args:
            batched_inputs: `image` (3, S, S) 0-255, `text` and `wrong`.
            vocabulary: has no effect.

        Returns:
            Weighted losses.
        """
        images = torch.stack([x["image"] for x in batched_inputs]).to(self.device)
        pixels = (images - self.pixel_mean) / self.pixel_std  # (B, 3, S, S)
        texts = [x["text"] for x in batched_inputs]
        return self.loss(self.matcher, pixels, texts, [x["wrong"] for x in batched_inputs])

    @torch.no_grad()
    def encode(self, batched_inputs: Inputs) -> Iterable[PictureEncoding]:
        """Encodes each picture once, with nothing blanked; see `Segmentor.encode`."""
        batch = self.prepare(batched_inputs)
        for index, (inputs, image) in enumerate(zip(batched_inputs, batch.images, strict=True)):
            picture = to_picture(image)
            square = squash(picture, self.side, self.interpolation).to(self.device)
            pixels = (square - self.pixel_mean) / self.pixel_std  # (3, S, S)
            yield PictureEncoding(
                pixels=pixels,
                features=self.matcher.encode_images(pixels[None])[0],
                picture=picture,
                output_size=batch.output_sizes[index],
                image_id=batch.image_ids[index],
                seen=self.class_filter.look({**inputs, "image": image}),
            )

    def decode(self, encoding: Encoding, vocabulary: Vocabulary) -> SubsetPrediction:
        """Asks the matcher for the classes that the filter leaves; see `Segmentor.decode`.

        The background's channel is the vocabulary's background class where it has one; else the
        prediction abstains where that channel is the largest.
        """
        assert isinstance(encoding, PictureEncoding)
        candidates = [k for k in range(len(vocabulary)) if k != vocabulary.background]
        if not candidates:
            raise ValueError("expected a class besides the background, got none; name one")
        words = [self.wording.words(vocabulary.names[k]) for k in candidates]
        asked = Asked(
            vocabulary, candidates, words, encoding.image_id, encoding.features, encoding.seen
        )
        kept = self.class_filter.choose(asked)
        maps = self.maps(encoding, [words[position] for position in kept])  # (K, h, w)
        scores = score_channels(maps, encoding.picture, self.rules)  # (C, H, W)
        classes = [candidates[position] for position in kept]
        blank = None
        if self.rules.has_background(len(kept)):
            if vocabulary.background is not None:
                classes = [vocabulary.background, *classes]
            else:
                blank = _resized(scores.argmax(0) == 0, encoding.output_size)
                scores = scores[1:]
        inner = DensePrediction(scores, encoding.output_size, blank)
        return SubsetPrediction(inner, classes, len(vocabulary))

    def maps(self, encoding: PictureEncoding, names: Sequence[tuple[str, ...]]) -> Tensor:
        """Finds where the matcher sees each class.

        Classes that do not fit into one caption are asked for in several, each with a salience
        dropout of its own.

        Args:
            encoding: of a picture.
            names: per class its words.

        Returns:
            (K, h, w) at the patches, at least 0.
        """
        captions = make_captions(
            names,
            prefix=self.wording.prefix,
            pieces=self.matcher.pieces,
            max_tokens=min(self.wording.max_tokens, self.matcher.max_tokens),
        )
        found = []
        for caption in captions:
            tokens = self.matcher.tokenize([caption.words])
            pieces = tokens.words[0][1:]
            total, _ = salience_dropout(
                self.matcher,
                encoding.pixels[None],
                tokens,
                rows_of_classes(pieces, caption)[None].to(self.device),
                layer=self.layer,
                head=self.head,
                settings=self.drop,
                features=encoding.features[None],
            )
            found.append(class_maps(total[0], pieces, caption, rule=self.wording.rule))
        return torch.cat(found)


def _find_matcher(name: str, weights: str) -> BlipMatcher:
    """The matcher of a name, or one as a file of weights has it, with nothing loaded yet."""
    if name:
        return matcher_from_hub(name)
    if not weights:
        raise ValueError(
            "MODEL.PNP_OVSS.ITM.NAME: expected a matcher, got ''; name a folder in Hugging Face's "
            "form or a model of their hub, or give a matcher in one file as MODEL.WEIGHTS"
        )
    path = find_weights(weights)
    return shape_of_state(read_state_dict(path), source=str(path))


def _resized(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """A mask (h, w) bool at another size."""
    return F.interpolate(mask[None, None].float(), size, mode="nearest")[0, 0].bool()
