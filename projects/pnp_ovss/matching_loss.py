"""What a matcher learns from: does the text fit the picture, and which of the batch's fits best.

Source: Li et al., "BLIP" (ICML 2022), section 3.2: image-text matching with hard negatives of the
batch, beside the contrastive loss that finds them. The text with an exchanged noun is our addition.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ovseg.clip.contrastive import ContrastiveLoss

from .matcher import BlipMatcher

__all__ = ["MatchingLoss"]


class MatchingLoss(nn.Module):
    """Losses of a batch of pictures with texts, right and wrong.

    Args:
        contrastive_weight: of the contrastive loss; 0 leaves it out and draws negatives evenly.
        temperature: of the contrastive loss.
    """

    def __init__(self, *, contrastive_weight: float, temperature: float) -> None:
        super().__init__()
        self.contrastive_weight = contrastive_weight
        self.temperature = temperature
        self.contrastive = ContrastiveLoss()

    def forward(
        self, matcher: BlipMatcher, pixels: Tensor, texts: Sequence[str], wrong: Sequence[str]
    ) -> dict[str, Tensor]:
        """Compute the losses.

        Args:
            matcher: in training mode.
            pixels: (B, 3, S, S) normalised.
            texts: per picture one that fits.
            wrong: per picture one that does not.

        Returns:
            Weighted losses by name.
        """
        features = matcher.encode_images(pixels)  # (B, 1 + N, D)
        model, batch = matcher.model, len(pixels)
        images = F.normalize(model.vision_proj(features[:, 0]), dim=-1)  # (B, E)
        cut = matcher.tokenize([text.split() for text in texts])
        alone = model.text_encoder(
            input_ids=matcher.without_match(cut.ids), attention_mask=cut.mask
        )
        words = F.normalize(model.text_proj(alone.last_hidden_state[:, 0]), dim=-1)  # (B, E)
        losses = {}
        if self.contrastive_weight:
            scale = images.new_tensor(1 / self.temperature)
            alike = self.contrastive(
                images, words, scale, torch.arange(batch, device=pixels.device)
            )
            losses["loss_contrastive"] = self.contrastive_weight * alike
        others = self._hard_negatives(images.detach(), words.detach(), texts)  # (B,)
        asked = [*texts, *wrong, *[texts[other] for other in others.tolist()]]
        tokens = matcher.tokenize([text.split() for text in asked])
        logits = matcher.match(features.repeat(3, 1, 1), tokens)  # (3 B, 2)
        target = torch.zeros(3 * batch, dtype=torch.int64, device=pixels.device)
        target[:batch] = 1
        losses["loss_match"] = F.cross_entropy(logits, target)
        return losses

    def _hard_negatives(self, images: Tensor, words: Tensor, texts: Sequence[str]) -> Tensor:
        """Per picture another one's text, drawn by how well it seems to fit."""
        weights = (images @ words.T / self.temperature).softmax(1)  # (B, B)
        if not self.contrastive_weight:
            weights = torch.ones_like(weights)
        equal = torch.tensor([[a == b for b in texts] for a in texts], device=weights.device)
        weights = weights.masked_fill(equal, 0.0) + 1e-8 * ~equal
        # A batch of one text has no negatives: its own is drawn and the loss cannot be met.
        weights = torch.where(equal.all(1, keepdim=True), 1.0, weights)
        return torch.multinomial(weights, 1)[:, 0]
