"""Test-time augmentation: scores averaged over image scales and horizontal flips.

As in MaskFormer's evaluation (Cheng et al. 2021): each view is segmented on its own and its scores
are brought to the original resolution, un-flipped and averaged.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ovseg.d2.config import CfgNode
from ovseg.modeling.prediction import DensePrediction
from ovseg.modeling.segmentor import Encoding, Inputs, Segmentor
from ovseg.modeling.views.view import View, ViewEncoding, original_image
from ovseg.utils.resizing import resize_shortest_edge
from ovseg.vocab import Vocabulary

__all__ = ["AugmentedSegmentor"]


@dataclass(eq=False)
class AugmentedEncoding(ViewEncoding):
    """Encodings of the scales and mirror images of one picture.

    Args:
        flipped: whether each part is a mirror image.
    """

    flipped: list[bool]


class AugmentedSegmentor(View):
    """A segmentor that averages `sem_seg` over views of each image.

    Views are cut from the original picture where the input has it or names its file, so that large
    scales are not made from an image that was already shrunk; else from the input's image.

    Args:
        model: the segmentor.
        short_sides: length of the shorter side of each view.
        max_size: longest side of a view.
        flip: add the mirror image of each view.
    """

    def __init__(
        self, model: Segmentor, *, short_sides: Sequence[int], max_size: int, flip: bool = True
    ) -> None:
        super().__init__(model)
        if not short_sides:
            raise ValueError("TEST.AUG.MIN_SIZES: expected at least one scale, got none")
        self.short_sides = tuple(short_sides)
        self.max_size = max_size
        self.flip = flip

    @classmethod
    def from_config(cls, cfg: CfgNode, model: Segmentor) -> AugmentedSegmentor:
        """Read `cfg.TEST.AUG`."""
        augment = cfg.TEST.AUG
        return cls(
            model,
            short_sides=augment.MIN_SIZES,
            max_size=augment.MAX_SIZE,
            flip=augment.FLIP,
        )

    def encode(self, batched_inputs: Inputs) -> Iterable[AugmentedEncoding]:
        """Encodes the views of each image; see `Segmentor.encode`."""
        for inputs in batched_inputs:
            parts: list[Encoding] = []
            flipped = []
            for view, mirrored in self._views(inputs):
                parts += self.model.encode([view])
                flipped.append(mirrored)
            yield AugmentedEncoding(parts, parts[0].output_size, flipped)

    def decode(self, encoding: Encoding, vocabulary: Vocabulary) -> DensePrediction:
        """Averages the views' scores; see `Segmentor.decode`.

        The prediction abstains where all views do.
        """
        assert isinstance(encoding, AugmentedEncoding)
        total: Tensor | None = None
        named = torch.zeros(encoding.output_size, dtype=torch.bool, device=self.device)
        for part, flipped in zip(encoding.parts, encoding.flipped, strict=True):
            prediction = self.model.decode(part, vocabulary)
            score, abstention = prediction.sem_seg(), prediction.abstention()  # (K, H, W), (H, W)
            score = score.flip(-1) if flipped else score
            total = score if total is None else total + score
            if abstention is None:
                named.fill_(True)
            else:
                named |= ~(abstention.flip(-1) if flipped else abstention)
            part.forget()
        assert total is not None
        blank = None if bool(named.all()) else ~named
        return DensePrediction(total / len(encoding.parts), encoding.output_size, blank)

    def _views(self, inputs: Mapping[str, Any]) -> Iterator[tuple[dict[str, Any], bool]]:
        source = original_image(inputs)
        # Sizes are the requested output's, whatever the size of a view.
        size = {
            "height": inputs.get("height", source.shape[0]),
            "width": inputs.get("width", source.shape[1]),
        }
        for short in self.short_sides:
            resized = resize_shortest_edge(source, short, self.max_size)  # (h, w, 3)
            image = torch.from_numpy(np.ascontiguousarray(resized.transpose(2, 0, 1)))
            yield {**inputs, **size, "image": image}, False
            if self.flip:
                yield {**inputs, **size, "image": image.flip(-1), "mirrored": True}, True
