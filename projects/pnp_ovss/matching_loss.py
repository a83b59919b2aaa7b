"""What a matcher learns from: does the text fit the picture, and which of the batch's fits best.

Source: Li et al., "BLIP" (ICML 2022), section 3.2: image-text matching with hard negatives of the
batch, beside the contrastive loss that finds them. Two things are ours: the text with an exchanged
noun, and that the contrastive loss compares words with patches (as Yao et al., "FILIP", ICLR 2022,
but softly), so that patches carry what cross-attention has to find in them. Words that are hidden
and told from the picture are ALBEF's (Li et al., NeurIPS 2021, section 3.2): matching alone stays
long at what it can say without looking.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .matcher import BlipMatcher, Tokens

__all__ = ["MatchingLoss"]


class MatchingLoss(nn.Module):
    """Losses of a batch of pictures with texts, right and wrong.

    Args:
        contrastive_weight: of the contrastive loss; 0 leaves it out and draws negatives evenly.
        temperature: of the contrastive loss.
        sharpness: of the patches that a word is compared with: their similarities times this, under
            a softmax, are their weights.
        masked_weight: of the loss of hidden words; 0 leaves it out.
        masked_share: of the word pieces that it hides.
    """

    def __init__(
        self,
        *,
        contrastive_weight: float,
        temperature: float,
        sharpness: float = 10.0,
        masked_weight: float = 0.0,
        masked_share: float = 0.3,
    ) -> None:
        super().__init__()
        self.contrastive_weight = contrastive_weight
        self.temperature = temperature
        self.sharpness = sharpness
        self.masked_weight = masked_weight
        self.masked_share = masked_share

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
        batch = len(pixels)
        likeness = self._likeness(matcher, features, texts) / self.temperature  # (B, B)
        losses = {}
        if self.contrastive_weight:
            own = torch.arange(batch, device=pixels.device)
            both = F.cross_entropy(likeness, own) + F.cross_entropy(likeness.T, own)
            losses["loss_contrastive"] = self.contrastive_weight * both / 2
        others = self._hard_negatives(likeness.detach(), texts)  # (B,)
        asked = [*texts, *wrong, *[texts[other] for other in others.tolist()]]
        tokens = matcher.tokenize([text.split() for text in asked])
        logits = matcher.match(features.repeat(3, 1, 1), tokens)  # (3 B, 2)
        target = torch.zeros(3 * batch, dtype=torch.int64, device=pixels.device)
        target[:batch] = 1
        losses["loss_match"] = F.cross_entropy(logits, target)
        if self.masked_weight:
            masked = self._masked_words(matcher, features, texts)
            losses["loss_masked"] = self.masked_weight * masked
        return losses

    def _masked_words(self, matcher: BlipMatcher, features: Tensor, texts: Sequence[str]) -> Tensor:
        """Cross-entropy of the word pieces that were hidden, given the picture and the others."""
        tokens = matcher.tokenize([text.split() for text in texts])
        drawn = torch.rand(tokens.ids.shape, device=features.device)
        hidden = (drawn < self.masked_share) & _named(tokens)  # (B, T)
        ids = tokens.ids.masked_fill(hidden, matcher.tokenizer.mask_token_id)
        told = matcher.told(features, replace(tokens, ids=ids))[hidden]  # (M, D)
        pieces = matcher.model.text_encoder.embeddings.word_embeddings.weight  # (V, D)
        total = F.cross_entropy(told @ pieces.T, tokens.ids[hidden], reduction="sum")
        return total / max(len(told), 1)

    def _likeness(self, matcher: BlipMatcher, features: Tensor, texts: Sequence[str]) -> Tensor:
        """How well each picture's patches answer to each text's words, (B, B) in [-1, 1]."""
        model = matcher.model
        cut = matcher.tokenize([text.split() for text in texts])
        plain = matcher.without_match(cut.ids)
        alone = model.text_encoder(input_ids=plain, attention_mask=cut.mask).last_hidden_state
        words = F.normalize(model.text_proj(alone), dim=-1)  # (B, T, E)
        patches = F.normalize(model.vision_proj(features[:, 1:]), dim=-1)  # (B, N, E)
        alike = torch.einsum("ine,jte->ijtn", patches, words)
        best = (alike * (self.sharpness * alike).softmax(-1)).sum(-1)  # (B, B, T)
        counted = _named(cut).to(best)  # (B, T)
        return (best * counted).sum(-1) / counted.sum(-1).clamp(min=1)

    def _hard_negatives(self, likeness: Tensor, texts: Sequence[str]) -> Tensor:
        """Per picture another one's text, drawn by how well it seems to fit."""
        weights = likeness.softmax(1)  # (B, B)
        if not self.contrastive_weight:
            weights = torch.ones_like(weights)
        equal = torch.tensor([[a == b for b in texts] for a in texts], device=weights.device)
        weights = weights.masked_fill(equal, 0.0) + 1e-8 * ~equal
        # A batch of one text has no negatives: its own is drawn and the loss cannot be met.
        weights = torch.where(equal.all(1, keepdim=True), 1.0, weights)
        return torch.multinomial(weights, 1)[:, 0]


def _named(tokens: Tokens) -> Tensor:
    """Which tokens are pieces of words, (B, T) bool."""
    width = tokens.ids.shape[1]
    rows = [[word is not None for word in words] for words in tokens.words]
    return torch.tensor(rows, device=tokens.ids.device).view(-1, width)
