"""What MaskFormer and OVSeg know of a picture before they are asked for words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from ovseg.modeling.segmentor import Encoding, unpad


@dataclass(eq=False)
class RegionFeatures:
    """CLIP's features of the Q masks of a picture, as far as they were asked for.

    Args:
        features: (Q, D) float32, not normalised; only rows where `encoded` count.
        encoded: (Q,) bool.
        valid: (Q,) bool, the masks with a pixel above the threshold; CLIP sees no other.
    """

    features: Tensor
    encoded: Tensor
    valid: Tensor

    def tensors(self) -> dict[str, Tensor]:
        """Returns the content by name; `RegionFeatures(**tensors)` is its inverse."""
        return {"features": self.features, "encoded": self.encoded, "valid": self.valid}

    def lent(self, by: Tensor) -> RegionFeatures:
        """Gives masks the features of others.

        Args:
            by: (Q,) int64, per mask the one whose features it gets; its own, where it is encoded.
        """
        return replace(self, features=self.features[by], encoded=self.encoded[by])


@dataclass(eq=False)
class MaskEncoding(Encoding):
    """Masks of one picture and their class embeddings, from one pass through the network.

    Args:
        mask_logits: (Q, h / 4, w / 4) float32 of the padded image.
        class_embeddings: (Q, D) float32, what the head says of the classes.
        size: (h, w) of the image at the network's input size, without padding.
        padded_size: of the padded batch.
        output_size: the requested (H, W).
        image: (3, h, w) float32 RGB 0-255, from which regions are cut; None where all that are
            needed are in `regions`.
        quality: (Q,) in [0, 1], by which the masks' scores count; None: all alike.
        regions: CLIP's features by the threshold that the masks were cut at, filled on demand.
    """

    mask_logits: Tensor
    class_embeddings: Tensor
    size: tuple[int, int]
    padded_size: tuple[int, int]
    output_size: tuple[int, int]
    image: Tensor | None = None
    quality: Tensor | None = None
    regions: dict[float, RegionFeatures] = field(default_factory=dict)

    def tensors(self) -> dict[str, Tensor]:
        """Returns what the network found, by name; image and regions are stored apart."""
        sizes = [self.output_size, self.size, self.padded_size]
        tensors = {
            "embeddings": self.class_embeddings,
            "mask_logits": self.mask_logits,
            "sizes": torch.tensor([list(size) for size in sizes]),
        }
        return tensors if self.quality is None else tensors | {"quality": self.quality}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> MaskEncoding:
        """Makes the encoding that `tensors` stored."""
        output_size, size, padded_size = (tuple(pair) for pair in tensors["sizes"].tolist())
        return cls(
            mask_logits=tensors["mask_logits"],
            class_embeddings=tensors["embeddings"],
            size=size,
            padded_size=padded_size,
            output_size=output_size,
            quality=tensors.get("quality"),
        )

    def forget(self) -> None:
        """Drops the masks at the network's input size; they follow from the logits."""
        vars(self).pop("masks", None)

    def weigh(self, scores: Tensor) -> Tensor:
        """Multiplies the masks' scores (Q, K) by their quality, where it is known."""
        return scores if self.quality is None else scores * self.quality[:, None]

    def input_logits(self) -> Tensor:
        """Mask logits at the network's input size, (Q, h, w) float32."""
        return unpad(self.mask_logits, padded_size=self.padded_size, size=self.size)

    @cached_property
    def masks(self) -> Tensor:
        """Masks at the network's input size, (Q, h, w) float32 in [0, 1]; kept once computed."""
        return self.input_logits().sigmoid()

    @cached_property
    def peaks(self) -> Tensor:
        """Each mask's highest value, (Q,)."""
        return self.masks.amax((1, 2))
