"""The contrastive loss of CLIP (Radford et al. 2021, section 2.3), over all processes together."""

from __future__ import annotations

import torch
import torch.distributed as dist
import torch.distributed.nn.functional as differentiable
import torch.nn.functional as F
from open_clip.loss import ClipLoss
from torch import Tensor, nn

from ovseg.d2.utils import comm

__all__ = ["DUPLICATES", "ContrastiveLoss", "gather_rows"]

DUPLICATES = ("negative", "positive", "ignored")


class ContrastiveLoss(nn.Module):
    """Symmetric cross-entropy between B images and B texts per process, over all processes.

    Its mean over the processes, and the mean of their gradients, are those of one process with the
    whole batch: the rows of the others arrive with their gradients (open_clip's `ClipLoss`).

    Args:
        duplicates: what pairs of the same noun are to each other. "negative", as in CLIP and OVSeg.
            "positive": the target of a row is uniform over the pairs of its noun (Khosla et al.,
            "Supervised Contrastive Learning", 2020, in the form of one cross-entropy); where equal
            nouns have equal texts, this is the same loss as "negative", term by term in another
            order. "ignored": they are left out of each other's sums, so that frequent nouns gain
            nothing from being frequent.

    Raises:
        ValueError: if `duplicates` is none of them.
    """

    def __init__(self, duplicates: str = "negative") -> None:
        super().__init__()
        if duplicates not in DUPLICATES:
            raise ValueError(f"duplicates: expected one of {DUPLICATES}, got {duplicates!r}")
        self.duplicates = duplicates
        self.pairwise = ClipLoss(
            local_loss=True,
            gather_with_grad=True,
            rank=comm.get_rank(),
            world_size=comm.get_world_size(),
        )

    def forward(
        self, images: Tensor, texts: Tensor, scale: Tensor, nouns: Tensor | None = None
    ) -> Tensor:
        """Compare the rows of a batch.

        Args:
            images: (B, D) unit rows of the images or regions.
            texts: (B, D) unit rows of their texts.
            scale: inverse temperature, a scalar.
            nouns: (B,) int64, equal for pairs of the same noun; "negative" needs none.

        Returns:
            A scalar.
        """
        if self.duplicates == "negative":
            return self.pairwise(images, texts, scale)
        assert nouns is not None, "who tells duplicates apart must be told the nouns"
        by_image, by_text = self.pairwise.get_logits(images, texts, scale)  # (B, all) each
        same = nouns[:, None] == gather_rows(nouns)[None]  # (B, all)
        own = self.pairwise.get_ground_truth(images.device, len(images))  # (B,)
        if self.duplicates == "ignored":
            others = same.scatter(1, own[:, None], False)  # (B, all)
            by_image, by_text = (x.masked_fill(others, -torch.inf) for x in (by_image, by_text))
            return (F.cross_entropy(by_image, own) + F.cross_entropy(by_text, own)) / 2
        target = same / same.sum(1, keepdim=True)
        return (F.cross_entropy(by_image, target) + F.cross_entropy(by_text, target)) / 2


def gather_rows(values: Tensor, *, with_gradient: bool = False) -> Tensor:
    """Put the rows of all processes together, in the order of their ranks.

    Args:
        values: (B, ...), of the same shape in every process.
        with_gradient: whether gradients flow back to the process that a row came from; they are
            the sum of those of all processes.

    Returns:
        (processes * B, ...); the values themselves where there is one process.
    """
    if comm.get_world_size() == 1:
        return values
    if with_gradient:
        return torch.cat(differentiable.all_gather(values.contiguous()))
    parts = [torch.empty_like(values) for _ in range(comm.get_world_size())]
    dist.all_gather(parts, values.contiguous())
    return torch.cat(parts)
