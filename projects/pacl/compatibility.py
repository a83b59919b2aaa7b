"""How well a picture fits a text, by the patches that the text looks at.

Source: Mukhoti et al., "Open Vocabulary Semantic Segmentation with Patch Aligned Contrastive
Learning", CVPR 2023, section 3: the cosines of a text with all patches, through a softmax over the
patches, weigh the patches; the cosine of their weighted sum with the text is the compatibility.

The sum depends on the text, so B pictures and T texts have B * T sums of D channels. They are not
made: a sum's product with its text is the weighted sum of the patches' products, and its length
follows from the patches' products with each other, which belong to the picture alone.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

__all__ = ["PatchPooling", "patch_weights"]

_SMALLEST_LENGTH = 1e-6


def patch_weights(similarity: Tensor, temperature: float) -> Tensor:
    """Turns the cosines of patches with texts into their weights.

    Args:
        similarity: (B, N, T) cosines of N patches with T texts.
        temperature: above 0; 1 is what the paper writes, lower ones sharpen.

    Returns:
        (B, N, T) float32, positive; those of a text sum to 1.
    """
    return (similarity.float() / temperature).softmax(1)


class PatchPooling:
    """Compatibility of pictures and texts.

    Args:
        temperature: of the softmax over patches.
        normalized: sum patches of unit length, not as the embedder puts them out.
        renormalize: divide by the length of the sum, so that the result is a cosine.
        chunk: texts at a time; bounds the memory. While gradients are recorded, each chunk is
            computed again in the backward pass.

    Raises:
        ValueError: the temperature is not above 0, or the chunk is below 1.
    """

    def __init__(
        self,
        *,
        temperature: float = 1.0,
        normalized: bool = True,
        renormalize: bool = True,
        chunk: int = 256,
    ) -> None:
        if temperature <= 0:
            raise ValueError(f"MODEL.PACL.PATCH_TEMP: expected a number > 0, got {temperature}")
        if chunk < 1:
            raise ValueError(f"MODEL.PACL.TEXT_CHUNK: expected at least 1, got {chunk}")
        self.temperature = temperature
        self.normalized = normalized
        self.renormalize = renormalize
        self.chunk = chunk

    def pairwise(self, patches: Tensor, texts: Tensor) -> Tensor:
        """Compares every picture with every text.

        Args:
            patches: (B, N, D) of B pictures, of any length.
            texts: (T, D) unit rows.

        Returns:
            (B, T) float32, cosines where `renormalize`.
        """
        lengths = patches.float().norm(dim=-1).clamp(min=_SMALLEST_LENGTH)  # (B, N)
        units = patches / lengths[..., None].to(patches.dtype)  # (B, N, D)
        summed = units if self.normalized else patches
        gram = summed @ summed.transpose(1, 2) if self.renormalize else None  # (B, N, N)
        compare = partial(self._compare, units, None if self.normalized else lengths, gram)
        parts = texts.split(self.chunk)
        if len(parts) > 1 and torch.is_grad_enabled():
            compare = partial(checkpoint, compare, use_reentrant=False)
        return torch.cat([compare(part) for part in parts], dim=1)

    def _compare(
        self, units: Tensor, lengths: Tensor | None, gram: Tensor | None, texts: Tensor
    ) -> Tensor:
        # (B, N, D) @ (D, T): the other way round, the texts would be expanded to (B, T, D).
        similarity = (units @ texts.T.to(units.dtype)).float()  # (B, N, T)
        weights = patch_weights(similarity, self.temperature)
        products = similarity if lengths is None else similarity * lengths[..., None]
        score = (weights * products).sum(1)  # (B, T)
        if gram is None:
            return score
        square = ((gram @ weights.to(gram.dtype)).float() * weights).sum(1)  # (B, T)
        return score / square.clamp(min=_SMALLEST_LENGTH**2).sqrt()

    def matched(self, patches: Tensor, texts: Tensor) -> Tensor:
        """Pools each picture by its own texts only.

        Args:
            patches: (B, N, D).
            texts: (B, T, D) unit rows, T per picture.

        Returns:
            (B, T, D) float32, the weighted sums; unit rows where `renormalize`.
        """
        units = F.normalize(patches.float(), dim=-1)
        weights = patch_weights(units @ texts.transpose(1, 2), self.temperature)  # (B, N, T)
        pooled = weights.transpose(1, 2) @ (
            units if self.normalized else patches.float()
        )  # (B, T, D)
        return F.normalize(pooled, dim=-1) if self.renormalize else pooled
