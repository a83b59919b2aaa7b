"""What adapting CLIP minimises: regions and nouns of a batch are to find each other.

The loss is CLIP's (Radford et al. 2021, section 2.3) as OVSeg uses it (Liang et al., CVPR 2023,
section 3.2), over the batches of all processes together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
import torch.nn.functional as F
from open_clip.loss import ClipLoss
from torch import Tensor, nn

from ovseg.clip import MaskPromptedCLIP, encode_texts
from ovseg.d2.utils import comm
from ovseg.data.pairs import PairItem
from ovseg.training.attention import attention_for_training

__all__ = ["DUPLICATES", "PairBatch", "PairLoss", "RegionTower", "collate_pairs", "unit_text_rows"]

DUPLICATES = ("negative", "positive", "ignored")


@dataclass(frozen=True)
class PairBatch:
    """B pairs: images (B, 3, S, S), masks (B, 1, S, S), and per pair a text and a noun."""

    images: Tensor
    masks: Tensor
    texts: Sequence[str]
    nouns: Sequence[str]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, part: slice) -> PairBatch:
        return PairBatch(self.images[part], self.masks[part], self.texts[part], self.nouns[part])


def collate_pairs(items: Sequence[PairItem]) -> PairBatch:
    """Put pairs of a data set into one batch."""
    return PairBatch(
        images=torch.stack([item["image"] for item in items]),
        masks=torch.stack([item["mask"] for item in items]),
        texts=[item["text"] for item in items],
        nouns=[item["noun"] for item in items],
    )


@torch.no_grad()
def unit_text_rows(clip: MaskPromptedCLIP, texts: Sequence[str]) -> Tensor:
    """Encode texts in float32 to rows of unit length.

    Args:
        clip: its text tower is used.
        texts: T strings.

    Returns:
        (T, D) float32 on the CLIP's device.
    """
    device = clip.logit_scale.device
    with torch.autocast(device.type, enabled=False):
        return F.normalize(encode_texts(clip, texts).float(), dim=-1)


class PairLoss(nn.Module):
    """Symmetric cross-entropy between B regions and B texts per process, over all processes.

    Its mean over the processes, and the mean of their gradients, are those of one process with the
    whole batch: the rows of the others arrive with their gradients.

    Args:
        duplicates: what pairs of the same noun are to each other. "negative", as in OVSeg.
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

    def forward(self, images: Tensor, texts: Tensor, scale: Tensor, nouns: Tensor) -> Tensor:
        """Compare the rows of a batch.

        Args:
            images: (B, D) unit rows of the regions.
            texts: (B, D) unit rows of their texts.
            scale: inverse temperature, a scalar.
            nouns: (B,) int64, equal for pairs of the same noun.

        Returns:
            A scalar.
        """
        if self.duplicates == "negative":
            return self.pairwise(images, texts, scale)
        by_image, by_text = self.pairwise.get_logits(images, texts, scale)  # (B, all) each
        same = nouns[:, None] == _gather(nouns)[None]  # (B, all)
        own = self.pairwise.get_ground_truth(images.device, len(images))  # (B,)
        if self.duplicates == "ignored":
            others = same.scatter(1, own[:, None], False)  # (B, all)
            by_image, by_text = (x.masked_fill(others, -torch.inf) for x in (by_image, by_text))
            return (F.cross_entropy(by_image, own) + F.cross_entropy(by_text, own)) / 2
        target = same / same.sum(1, keepdim=True)
        return (F.cross_entropy(by_image, target) + F.cross_entropy(by_text, target)) / 2


def _gather(values: Tensor) -> Tensor:
    if comm.get_world_size() == 1:
        return values
    parts = [torch.empty_like(values) for _ in range(comm.get_world_size())]
    dist.all_gather(parts, values)
    return torch.cat(parts)


class RegionTower(nn.Module):
    """The trained part of a CLIP: its image tower and temperature, against fixed text rows.

    The text tower is locked and its texts do not vary, so each text is encoded once, before the
    first step.

    Args:
        clip: shares its parameters with this module.
        use_masks: whether the tower sees the masks.
        duplicates: see `PairLoss`.
    """

    text_rows: Tensor

    def __init__(self, clip: MaskPromptedCLIP, *, use_masks: bool, duplicates: str) -> None:
        super().__init__()
        self.visual = clip.visual
        self.logit_scale = clip.logit_scale
        self.use_masks = use_masks
        self.loss = PairLoss(duplicates)
        self.register_buffer("text_rows", torch.empty(0, clip.embed_dim), persistent=False)
        self._text_ids: dict[str, int] = {}
        self._noun_ids: dict[str, int] = {}

    def remember_texts(
        self, clip: MaskPromptedCLIP, texts: Sequence[str], nouns: Sequence[str]
    ) -> None:
        """Encode every text that may come, and number every noun.

        Args:
            clip: the one that this module was made of.
            texts: with repetitions, in any order.
            nouns: likewise.
        """
        unique = sorted(set(texts))
        self._text_ids = {text: number for number, text in enumerate(unique)}
        self._noun_ids = {noun: number for number, noun in enumerate(sorted(set(nouns)))}
        self.text_rows = unit_text_rows(clip, unique)  # (T, D)

    def forward(self, batch: PairBatch) -> dict[str, Tensor]:
        """The loss of this process's part of a batch."""
        device = self.logit_scale.device
        images = batch.images.to(device, non_blocking=True)
        masks = batch.masks.to(device, non_blocking=True) if self.use_masks else None
        recomputed = self.visual.transformer.grad_checkpointing
        with attention_for_training(device, recomputed=recomputed):
            rows = self.visual(images, masks)  # (B, D)
        texts = torch.tensor([self._text_ids[text] for text in batch.texts], device=device)
        nouns = torch.tensor([self._noun_ids[noun] for noun in batch.nouns], device=device)
        with torch.autocast(device.type, enabled=False):
            loss = self.loss(
                F.normalize(rows.float(), dim=-1),
                self.text_rows[texts],
                self.logit_scale.exp(),
                nouns,
            )
        return {"loss_contrastive": loss}
