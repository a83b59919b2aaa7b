"""Sine position encoding of a feature map.

Source: Carion et al., "End-to-End Object Detection with Transformers", ECCV 2020, appendix A.4
(the two-dimensional form of Vaswani et al. 2017).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class PositionEmbeddingSine(nn.Module):
    """Fixed encoding, half of the channels for y and half for x.

    Args:
        features: channels per axis; the result has twice as many.
        temperature: base of the geometric progression of wavelengths.
    """

    def __init__(self, *, features: int, temperature: float = 10000.0) -> None:
        super().__init__()
        self.features = features
        self.temperature = temperature

    def _axis(self, length: int, device: torch.device) -> Tensor:
        """Encodes the positions 1..length, normalised to (0, 2 pi]: (length, features)."""
        position = torch.arange(1, length + 1, dtype=torch.float32, device=device)
        position = position / (length + 1e-6) * (2 * math.pi)
        exponent = torch.arange(self.features, dtype=torch.float32, device=device)
        exponent = 2 * torch.div(exponent, 2, rounding_mode="floor") / self.features
        angle = position[:, None] / self.temperature**exponent
        pairs = torch.stack((angle[:, 0::2].sin(), angle[:, 1::2].cos()), dim=2)
        return pairs.flatten(1)  # sine and cosine interleaved

    def forward(self, x: Tensor) -> Tensor:
        """Encodes the grid of a map.

        Args:
            x: (B, C, H, W); only its size and device are used.

        Returns:
            (1, 2 * features, H, W) float32, y first.
        """
        height, width = x.shape[-2:]
        rows = self._axis(height, x.device)[:, None].expand(-1, width, -1)  # (H, W, F)
        columns = self._axis(width, x.device)[None].expand(height, -1, -1)  # (H, W, F)
        return torch.cat((rows, columns), dim=-1).permute(2, 0, 1)[None]
