"""What contrastive training steps: an image tower and a text tower that are to agree on pairs.

Adapting CLIP to regions (Liang et al., CVPR 2023, section 3.2) and training one from nothing
(Radford et al. 2021) differ in the towers alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ovseg.clip import (
    MaskPromptedCLIP,
    encode_texts,
    encode_tokens,
    tokenize,
)
from ovseg.clip.contrastive import ContrastiveLoss
from ovseg.data.pairs import PairItem

__all__ = [
    "ContrastiveModel",
    "LockedTexts",
    "PairBatch",
    "TextTower",
    "attention_for_training",
    "collate_pairs",
]


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
    """Put pairs of a dataset into one batch."""
    return PairBatch(
        images=torch.stack([item["image"] for item in items]),
        masks=torch.stack([item["mask"] for item in items]),
        texts=[item["text"] for item in items],
        nouns=[item["noun"] for item in items],
    )


class TextTower(nn.Module):
    """The text tower of a CLIP as a module of its own, for texts that are not known before.

    Args:
        clip: shares its parameters with this module; its gradients flow where they are asked for.
    """

    def __init__(self, clip: MaskPromptedCLIP) -> None:
        super().__init__()
        self.clip = clip

    def forward(self, texts: Sequence[str]) -> Tensor:
        """T texts to unit rows (T, D) float32."""
        tokens = tokenize(texts, self.clip.context_length).to(self.clip.logit_scale.device)
        return F.normalize(encode_tokens(self.clip, tokens).float(), dim=-1)


class LockedTexts(nn.Module):
    """The locked text tower of a CLIP, for texts that are known: each is encoded once, in float32.

    Args:
        clip: its text tower is used; it does not become a part of this module.
    """

    rows: Tensor

    def __init__(self, clip: MaskPromptedCLIP) -> None:
        super().__init__()
        self._encode = partial(encode_texts, clip)
        empty = torch.empty(0, clip.embed_dim, device=clip.logit_scale.device)
        self.register_buffer("rows", empty, persistent=False)
        self._ids: dict[str, int] = {}

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> None:
        """Encode every text that may come, given with repetitions and in any order."""
        unique = sorted(set(texts))
        self._ids = {text: number for number, text in enumerate(unique)}
        with torch.autocast(self.rows.device.type, enabled=False):
            self.rows = F.normalize(self._encode(unique).float(), dim=-1)  # (unique, D)

    def forward(self, texts: Sequence[str]) -> Tensor:
        """T texts, each encoded before, to unit rows (T, D) float32."""
        ids = torch.tensor([self._ids[text] for text in texts], device=self.rows.device)
        return self.rows[ids]


class ContrastiveModel(nn.Module):
    """Maps a batch of pairs to its contrastive loss.

    Args:
        image_tower: maps images (B, 3, S, S), normalised for CLIP, and masks (B, 1, S, S) or None
            to (B, D).
        text_tower: maps B texts to unit rows (B, D).
        logit_scale: logarithm of the inverse temperature.
        use_masks: whether the image tower sees the masks.
        duplicates: see `ContrastiveLoss`.
        recomputed: whether activations are computed again in the backward pass.
    """

    def __init__(
        self,
        *,
        image_tower: nn.Module,
        text_tower: TextTower | LockedTexts,
        logit_scale: nn.Parameter,
        use_masks: bool = False,
        duplicates: str = "negative",
        recomputed: bool = False,
    ) -> None:
        super().__init__()
        self.image_tower = image_tower
        self.text_tower = text_tower
        self.logit_scale = logit_scale
        self.use_masks = use_masks
        self.recomputed = recomputed
        self.loss = ContrastiveLoss(duplicates)

    def forward(self, batch: PairBatch) -> dict[str, Tensor]:
        """The loss of this process's part of a batch."""
        device = self.logit_scale.device
        images = batch.images.to(device, non_blocking=True)
        masks = batch.masks.to(device, non_blocking=True) if self.use_masks else None
        with attention_for_training(device, recomputed=self.recomputed):
            rows = self.image_tower(images, masks)  # (B, D)
            texts = self.text_tower(batch.texts)  # (B, D)
        nouns = torch.tensor([_number(noun) for noun in batch.nouns], device=device)
        with torch.autocast(device.type, enabled=False):
            rows = F.normalize(rows.float(), dim=-1)
            loss = self.loss(rows, texts, self.logit_scale.exp(), nouns)
        return {"loss_contrastive": loss}


def _number(noun: str) -> int:
    """The same 64-bit number for the same noun in every process; others differ in practice."""
    digest = hashlib.blake2b(noun.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def attention_for_training(
    device: torch.device, *, recomputed: bool = False
) -> AbstractContextManager[None]:
    """Choose attention whose backward pass is fast; to be entered around a forward pass.

    On a CPU under bfloat16 autocast the fused attention's backward pass takes several times as long
    as the plain one (step of a CLIP with 65 tokens: 0.84 s fused, 0.55 s plain).

    Args:
        device: of the step.
        recomputed: whether activations are computed again in the backward pass, outside of this
            context; they must come from the same implementation, so the default one is kept.
    """
    if device.type == "cpu" and torch.is_autocast_enabled("cpu") and not recomputed:
        return sdpa_kernel(SDPBackend.MATH)
    return nullcontext()
