"""What the memory bank says of a picture's regions (CorrCLIPv2).

Source: CorrCLIPv2's released code: VISR (regions are looked up by a vision model's features, and
the CLIP features of what is found stand for them) and DMCE (those of several CLIPs, each against
its own texts).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["MemoryBank", "retrieve", "support_scores"]


class MemoryBank(Protocol):
    """Regions of many pictures, with a key each and the features of one or more CLIPs.

    Attributes:
        name: which bank; part of the protocol.
    """

    name: str

    def search(self, queries: np.ndarray, k: int) -> np.ndarray:
        """Find the nearest regions.

        Args:
            queries: (R, C) float32, unit rows.
            k: how many.

        Returns:
            (R, k) int64 ids, best first; -1 where there are no more.
        """
        ...

    def values(self, encoder: str) -> np.ndarray:
        """The features (N, D) of one CLIP, row by row the regions' ids."""
        ...


def retrieve(bank: MemoryBank, queries: Tensor, encoders: Sequence[str], k: int) -> list[Tensor]:
    """Look regions up and average what each CLIP says of those found.

    Args:
        bank: the bank.
        queries: (R, C) a vision model's features of the regions, of any length.
        encoders: names of the CLIPs.
        k: regions to find for each.

    Returns:
        Per CLIP (R, D) float32 unit rows on the queries' device; zeros where nothing was found.
    """
    rows = F.normalize(queries.float(), dim=1).cpu().numpy()
    ids = bank.search(rows, k)  # (R, k)
    found = torch.from_numpy(ids >= 0)[..., None]  # (R, k, 1)
    supports = []
    for encoder in encoders:
        values = torch.from_numpy(np.asarray(bank.values(encoder)[ids.clip(min=0)])).float()
        total = (values * found).sum(1)  # (R, D); its direction is the mean's
        supports.append(F.normalize(total, dim=1).to(queries.device))
    return supports


def support_scores(supports: Sequence[Tensor], texts: Sequence[Tensor], where: Tensor) -> Tensor:
    """Compare what was found with the words, averaged over the CLIPs.

    Args:
        supports: per CLIP (R, D) unit rows.
        texts: per CLIP (P, D) unit rows of its own text tower.
        where: (h, w) int64 region of each pixel, 0..R - 1.

    Returns:
        (P, h, w) cosines.
    """
    pairs = zip(supports, texts, strict=True)
    scores = torch.stack([text @ support.T for support, text in pairs]).mean(0)  # (P, R)
    return scores[:, where]
