"""Test-time augmentation: scores averaged over image scales and horizontal flips.

As in MaskFormer's evaluation (Cheng et al. 2021): each view is segmented on its own and its scores
are brought to the original resolution, un-flipped and averaged.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ovseg.d2.config import CfgNode
from ovseg.data.transforms import resize_shortest_edge
from ovseg.utils.images import read_image

__all__ = ["AugmentedSegmentor"]


class AugmentedSegmentor(nn.Module):
    """A segmentor that averages `sem_seg` over views of each image.

    Views are cut from the file where the input names one, so that large scales are not made from an
    image that was already shrunk; else from the input's image.

    Args:
        model: a segmentor whose `output` can be set to "sem_seg".
        window: segments a view tile by tile with `model`; None segments it in one piece.
        short_sides: length of the shorter side of each view.
        max_size: longest side of a view.
        flip: add the mirror image of each view.
        output: "sem_seg" for averaged scores, "labels" for their argmax.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        short_sides: Sequence[int],
        max_size: int,
        flip: bool = True,
        window: nn.Module | None = None,
        output: str = "sem_seg",
    ) -> None:
        super().__init__()
        if not short_sides:
            raise ValueError("TEST.AUG.MIN_SIZES: expected at least one scale, got none")
        self.model = model
        self.segment = window or model
        self.short_sides = tuple(short_sides)
        self.max_size = max_size
        self.flip = flip
        self.output = output

    @classmethod
    def from_config(
        cls, cfg: CfgNode, model: nn.Module, *, window: nn.Module | None = None
    ) -> AugmentedSegmentor:
        """Read `cfg.TEST.AUG`."""
        augment = cfg.TEST.AUG
        return cls(
            model,
            short_sides=augment.MIN_SIZES,
            max_size=augment.MAX_SIZE,
            flip=augment.FLIP,
            window=window,
            output=cfg.TEST.OUTPUT,
        )

    def forward(self, batched_inputs: Sequence[Mapping[str, Any]]) -> list[dict[str, Tensor]]:
        """Segment each image of the batch, view by view.

        Args:
            batched_inputs: as the model takes them.

        Returns:
            `{"sem_seg": (K, H, W) float32}` or `{"labels": (H, W) int64}` per image.
        """
        previous = self.model.output
        self.model.output = "sem_seg"  # type: ignore[assignment]  # a plain attribute
        try:
            scores = [self._mean_scores(inputs) for inputs in batched_inputs]
        finally:
            self.model.output = previous
        if self.output == "labels":
            return [{"labels": score.argmax(0)} for score in scores]
        return [{"sem_seg": score} for score in scores]

    def _mean_scores(self, inputs: Mapping[str, Any]) -> Tensor:
        total: Tensor | None = None
        count = 0
        for view, flipped in self._views(inputs):
            score = self.segment([view])[0]["sem_seg"]  # (K, H, W)
            score = score.flip(-1) if flipped else score
            total = score if total is None else total + score
            count += 1
        assert total is not None
        return total / count

    def _views(self, inputs: Mapping[str, Any]) -> Iterator[tuple[dict[str, Any], bool]]:
        source = _source_image(inputs)
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
                yield {**inputs, **size, "image": image.flip(-1)}, True


def _source_image(inputs: Mapping[str, Any]) -> np.ndarray:
    """The image at its best resolution: `(H, W, 3)` uint8 RGB."""
    if "file_name" in inputs:
        return read_image(inputs["file_name"])
    return inputs["image"].round().clamp(0, 255).byte().permute(1, 2, 0).cpu().numpy()
