"""What all views share: a segmentor around a segmentor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ovseg.modeling.segmentor import Encoding, Inputs, Segmentor
from ovseg.readers.pictures import read_image
from ovseg.vocab import Vocabulary

__all__ = ["View", "ViewEncoding", "original_image", "output_size_of"]


@dataclass(eq=False)
class ViewEncoding(Encoding):
    """Encodings of several looks at one picture.

    Args:
        parts: of the segmentor inside, in the view's order.
        output_size: the requested (H, W).
    """

    parts: list[Encoding]
    output_size: tuple[int, int]

    def tensors(self) -> dict[str, Tensor]:
        """Returns the content of all parts, each name with the number of its part before it."""
        return {
            f"{number}.{name}": tensor
            for number, part in enumerate(self.parts)
            for name, tensor in part.tensors().items()
        }

    def forget(self) -> None:
        """Drops what the parts can compute again."""
        for part in self.parts:
            part.forget()


class View(Segmentor):
    """A segmentor that looks at each picture through another one.

    Args:
        model: the segmentor inside; it may be a view, too.
    """

    def __init__(self, model: Segmentor) -> None:
        super().__init__()
        self.model = model
        self.training = model.training

    @property
    def output(self) -> str:  # type: ignore[override]
        """The entry of each result, the model's."""
        return self.model.output

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.device

    def find_vocabulary(self, batched_inputs: Inputs) -> Vocabulary:
        """Finds the vocabulary that the inputs name, as the model does."""
        return self.model.find_vocabulary(batched_inputs)

    def protocol(self) -> dict[str, str | int | float | bool]:
        """States the model's choices of inference."""
        return self.model.protocol()

    def prefetch(self, encoding: Encoding) -> None:
        """Computes for every part what `decode` would compute when it first needs it."""
        assert isinstance(encoding, ViewEncoding)
        for part in encoding.parts:
            self.model.prefetch(part)
            part.forget()


def output_size_of(inputs: Mapping[str, Any]) -> tuple[int, int]:
    """The requested (H, W) of an input."""
    height, width = inputs["image"].shape[1:]
    return int(inputs.get("height", height)), int(inputs.get("width", width))


def original_image(inputs: Mapping[str, Any]) -> np.ndarray:
    """The picture of an input at its best resolution.

    Args:
        inputs: with original (H, W, 3) uint8 RGB, else file_name, else only image (3, h, w).

    Returns:
        (H, W, 3) uint8 RGB.
    """
    if "original" in inputs:
        return inputs["original"]
    if "file_name" in inputs:
        return read_image(inputs["file_name"])
    return inputs["image"].round().clamp(0, 255).byte().permute(1, 2, 0).cpu().numpy()
