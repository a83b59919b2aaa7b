"""Salience dropout: what stood out is blanked, so that the rest of a class stands out next.

Source: Luo et al., arXiv 2311.17095, section 3.3, with the constants of the released code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .matcher import BlipMatcher, Tokens, gradient_map

__all__ = ["DROP_MODES", "DropSettings", "Round", "blank_patches", "salience_dropout"]

DROP_MODES = ("topk", "halving", "threshold")


@dataclass(frozen=True)
class DropSettings:
    """What each round blanks.

    Args:
        rounds: forward and backward passes; 1 blanks nothing.
        mode: "topk" the `top_k` most salient patches; "halving" in round t (from 0) the
            N / 2^(t + 1) most salient of N; "threshold" all above a share of the most salient.
        top_k: of "topk".
        threshold: of "threshold", in [0, 1].
        first_weight: of the first round in the sum.

    Raises:
        ValueError: an unknown mode, or no round.
    """

    rounds: int = 4
    mode: str = "topk"
    top_k: int = 10
    threshold: float = 0.05
    first_weight: float = 2.0

    def __post_init__(self) -> None:
        if self.mode not in DROP_MODES:
            raise ValueError(
                f"MODEL.PNP_OVSS.DROP.MODE: expected one of {DROP_MODES}, got {self.mode!r}"
            )
        if self.rounds < 1:
            raise ValueError(f"MODEL.PNP_OVSS.DROP.ITERS: expected at least 1, got {self.rounds}")

    def chosen(self, saliency: Tensor, blanked: Tensor, number: int) -> Tensor:
        """Choose the patches that a round adds to the blanked ones.

        Args:
            saliency: (B, h, w), at least 0.
            blanked: (B, h, w) bool.
            number: of the round, from 0.

        Returns:
            (B, h, w) bool.
        """
        if self.mode == "threshold":
            largest = saliency.amax((1, 2), keepdim=True)
            return (saliency > self.threshold * largest) & ~blanked
        cells = saliency.masked_fill(blanked, -1.0).flatten(1)  # (B, N)
        count = self.top_k if self.mode == "topk" else cells.shape[1] >> (number + 1)
        top = cells.topk(min(count, cells.shape[1])).indices
        return torch.zeros_like(cells, dtype=torch.bool).scatter(1, top, True).view_as(blanked)


class Round(NamedTuple):
    """One round of B captions with T tokens.

    Attributes:
        blanked: (B, h, w) bool, the patches that were blank in it.
        logits: (B, 2) of the match.
        maps: (B, T - 1, h, w) as the pass gave them.
        kept: the same without the blanked patches, which is what counts.
        saliency: (B, h, w), the sum of `kept` over the tokens of classes.
    """

    blanked: Tensor
    logits: Tensor
    maps: Tensor
    kept: Tensor
    saliency: Tensor


def salience_dropout(
    matcher: BlipMatcher,
    pixels: Tensor,
    tokens: Tokens,
    rows: Tensor,
    *,
    layer: int,
    head: int,
    settings: DropSettings,
    features: Tensor | None = None,
) -> tuple[Tensor, list[Round]]:
    """Read a head's maps again and again, each time without the patches that stood out before.

    Args:
        matcher: the matcher.
        pixels: (B, 3, H, W) normalised.
        tokens: B captions.
        rows: (B, T - 1) bool, the tokens whose maps decide what stands out.
        layer: of the text encoder, from 0.
        head: of that layer, from 0.
        settings: what is blanked.
        features: (B, 1 + N, D) of the whole pictures, where they are known.

    Returns:
        (B, T - 1, h, w), the sum over the rounds, and the rounds.
    """
    grid = (pixels.shape[2] // matcher.patch_size, pixels.shape[3] // matcher.patch_size)
    blanked = torch.zeros(len(pixels), *grid, dtype=torch.bool, device=pixels.device)
    found: list[Round] = []
    for number in range(settings.rounds):
        if number or features is None:
            with torch.no_grad():
                features = matcher.encode_images(blank_patches(pixels, blanked))
        logits, attention = matcher.attend(features, tokens, [layer])
        maps = gradient_map(attention[layer], tokens.mask, head, grid)
        kept = maps * ~blanked[:, None]
        saliency = (kept * rows[..., None, None].to(kept)).sum(1)  # (B, h, w)
        found.append(Round(blanked, logits, maps, kept, saliency))
        blanked = blanked | settings.chosen(saliency, blanked, number)
    weights = [settings.first_weight, *[1.0] * (settings.rounds - 1)]
    total = sum(weight * each.kept for weight, each in zip(weights, found, strict=True))
    return torch.as_tensor(total), found


def blank_patches(pixels: Tensor, blanked: Tensor) -> Tensor:
    """Set patches to 0, which is the mean colour of normalised pictures.

    Args:
        pixels: (B, 3, H, W).
        blanked: (B, h, w) bool.

    Returns:
        (B, 3, H, W).
    """
    blank = F.interpolate(blanked[:, None].float(), pixels.shape[2:], mode="nearest")
    return pixels * (1 - blank)
