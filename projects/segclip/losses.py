"""The superpixel loss, the temperature, and the random numbers of a training step.

Source: Luo et al., "SegCLIP", ICML 2023, section 3.3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

MAX_LOGIT_SCALE = math.log(100)


def inverse_temperature(logit_scale: Tensor) -> Tensor:
    """The exponential of CLIP's parameter, at most 100; without a gradient where it is cut."""
    return logit_scale.clamp(max=MAX_LOGIT_SCALE).exp()


def superpixel_kl(assignment: Tensor, superpixels: Tensor) -> Tensor:
    """How far patches of one superpixel are from having one group.

    Args:
        assignment: (B, L, K), patches to groups, rows that sum to 1; mostly one-hot.
        superpixels: (B, L) int64, equal where patches are of the same superpixel.

    Returns:
        A scalar: the divergence, both ways, between each patch's assignment and the mean over its
        superpixel, each behind a softmax, summed and divided by B * L * K. Gradients go both ways,
        too.
    """
    same = (superpixels[:, :, None] == superpixels[:, None]).to(assignment.dtype)  # (B, L, L)
    means = same @ assignment / same.sum(-1, keepdim=True).clamp(min=1)  # (B, L, K)
    log_p, log_q = assignment.log_softmax(-1), means.log_softmax(-1)
    both = (log_q.exp() - log_p.exp()) * (log_q - log_p)  # KL(q, p) + KL(p, q), entry by entry
    return both.sum() / 2 / assignment.numel()


@dataclass(frozen=True)
class Noise:
    """What a training step draws at random.

    Args:
        gumbel: (B, K, L), of the assignment of all patches.
        gumbel_visible: (B, K, l), of that of the visible ones.
        masking: (B, L) uniform, says which those are.
    """

    gumbel: Tensor
    gumbel_visible: Tensor
    masking: Tensor

    @classmethod
    def draw(
        cls, seeds: Sequence[int], *, centers: int, patches: int, visible: int, device: torch.device
    ) -> Noise:
        """Draws for each sample from its own seed, whatever batch or process it is in.

        Args:
            seeds: of the B samples.
            centers: K.
            patches: L.
            visible: l.
            device: where the result is.

        Returns:
            The noise.
        """
        drawn: list[tuple[Tensor, Tensor, Tensor]] = []
        for seed in seeds:
            generator = torch.Generator().manual_seed(seed)
            gumbels = [
                torch.empty(centers, count).exponential_(generator=generator).log().neg()
                for count in (patches, visible)
            ]
            drawn.append((gumbels[0], gumbels[1], torch.rand(patches, generator=generator)))
        return cls(*(torch.stack(parts).to(device) for parts in zip(*drawn, strict=True)))
