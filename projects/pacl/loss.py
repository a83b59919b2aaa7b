"""Symmetric InfoNCE with the patch-aligned compatibility, over all processes together.

Source: Mukhoti et al., CVPR 2023, section 3: CLIP's loss with another compatibility. A picture is
there with several texts (its caption, prompts made of nouns): each is a pair, and pairs of one
picture are left out of each other's sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ovseg.clip.contrastive import gather_rows
from ovseg.d2.utils import comm
from ovseg.projects.pacl.compatibility import PatchPooling

__all__ = ["SAME_NOUN", "PairKeys", "PatchAlignedLoss"]

SAME_NOUN = ("negative", "ignored")
MAX_MENTIONED = 32  # nouns of a picture's captions that are looked at


@dataclass(frozen=True)
class PairKeys:
    """What tells which pairs are no negatives of each other.

    Args:
        images: (B,) int64, equal for the same picture.
        nouns: (B, T) int64, of the noun that a text was made of; 0 for a caption.
        mentioned: (B, M) int64, nouns of the pictures' captions, filled up with -1.
    """

    images: Tensor
    nouns: Tensor
    mentioned: Tensor

    @classmethod
    def make(
        cls,
        *,
        images: Sequence[int],
        nouns: Sequence[Sequence[int]],
        mentioned: Sequence[Sequence[int]],
        device: torch.device,
    ) -> PairKeys:
        """Puts numbers into tensors of the same shape in every process.

        Args:
            images: of the B pictures.
            nouns: of their texts, as many for every picture.
            mentioned: of their captions; more than `MAX_MENTIONED` are cut off.
            device: where the tensors go.

        Returns:
            The keys.
        """
        filled = [[*row[:MAX_MENTIONED], *[-1] * (MAX_MENTIONED - len(row))] for row in mentioned]
        return cls(*(torch.tensor(part, device=device) for part in (images, nouns, filled)))

    def gathered(self) -> PairKeys:
        """Those of all processes, one after the other."""
        parts = (self.images, self.nouns, self.mentioned)
        return PairKeys(*(gather_rows(part) for part in parts))


class PatchAlignedLoss(nn.Module):
    """Compares the pictures of a batch with all texts, and the texts with all pictures.

    The mean over processes, and the mean of their gradients, are those of one process with the
    whole batch.

    Args:
        pooling: the compatibility.
        pairwise: compare picture i with text j by pooling i for j, as the paper defines it. False
            pools each picture by its own texts only and compares the results with all texts.
        same_noun: "ignored" also leaves a prompt and a picture out of each other's sums where the
            prompt's noun is in the picture's captions; "negative" does not look at nouns.

    Raises:
        ValueError: no such `same_noun`.
    """

    def __init__(
        self, pooling: PatchPooling, *, pairwise: bool = True, same_noun: str = "negative"
    ) -> None:
        super().__init__()
        if same_noun not in SAME_NOUN:
            raise ValueError(
                f"MODEL.PACL.SAME_NOUN: expected one of {SAME_NOUN}, got {same_noun!r}"
            )
        self.pooling = pooling
        self.pairwise = pairwise
        self.same_noun = same_noun

    def forward(self, patches: Tensor, texts: Tensor, scale: Tensor, keys: PairKeys) -> Tensor:
        """Computes this process's part of the loss.

        Args:
            patches: (B, N, D) of B pictures.
            texts: (B, T, D) unit rows, T of each picture; without gradients.
            scale: inverse temperature, a scalar.
            keys: of these pictures and texts.

        Returns:
            A scalar.
        """
        everything = keys.gathered()
        scores = self.compatibilities(patches, texts)  # (B * T, all pairs)
        count = len(scores)
        own = torch.arange(count, device=scores.device) + comm.get_rank() * count
        by_text = gather_rows(scores, with_gradient=True)[:, own].T  # (B * T, all pairs)
        losses = []
        for logits, left_out in (
            (scores, self._left_out(keys, everything)),
            (by_text, self._left_out(everything, keys).T),
        ):
            left_out = left_out.scatter(1, own[:, None], False)
            logits = (scale * logits).masked_fill(left_out, -torch.inf)
            losses.append(F.cross_entropy(logits, own))
        return (losses[0] + losses[1]) / 2

    def compatibilities(self, patches: Tensor, texts: Tensor) -> Tensor:
        """Compares the pairs of this process, by their pictures, with all texts, (B * T, all)."""
        all_texts = gather_rows(texts.flatten(0, 1))  # (all pairs, D)
        if self.pairwise:
            scores = self.pooling.pairwise(patches, all_texts)  # (B, all pairs)
            return scores.repeat_interleave(texts.shape[1], dim=0)
        pooled = self.pooling.matched(patches, texts).flatten(0, 1)  # (B * T, D)
        return pooled @ all_texts.T.to(pooled.dtype)

    def _left_out(self, pictures: PairKeys, texts: PairKeys) -> Tensor:
        """Which pictures (rows, one per pair) and texts (columns) are no negatives, bool."""
        out = pictures.images[:, None] == texts.images  # (B, B')
        out = out.repeat_interleave(texts.nouns.shape[1], 1)  # (B, B' * T)
        if self.same_noun == "ignored":
            prompts = texts.nouns.flatten()  # (B' * T,)
            out = out | (pictures.mentioned[:, :, None] == prompts).any(1)
        return out.repeat_interleave(pictures.nouns.shape[1], 0)  # (B * T, B' * T)
