"""Bilinear resizing of some rows at a time, for score maps that do not fit into memory."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


class RowResizer:
    """Bilinear resizing (corners not aligned) of some rows of the output at a time.

    Args:
        size: (h, w) of the input.
        output_size: (H, W) of the output.
        device: where inputs are.
    """

    def __init__(
        self, size: tuple[int, int], output_size: tuple[int, int], device: torch.device
    ) -> None:
        self.size = size
        self.output_size = output_size
        position = torch.arange(output_size[0], device=device) + 0.5
        position = (position * (size[0] / output_size[0]) - 0.5).clamp(min=0)
        self.upper = position.long().clamp(max=size[0] - 1)  # (H,)
        self.lower = (self.upper + 1).clamp(max=size[0] - 1)  # (H,)
        self.weight = (position - self.upper)[:, None]  # (H, 1), of the lower row
        self.first, self.last = self.upper.tolist(), self.lower.tolist()

    def rows_needed(self, band: slice) -> slice:
        """Input rows that a band of output rows depends on.

        Args:
            band: output rows; both ends given.

        Returns:
            The input rows.
        """
        if self.size[0] == self.output_size[0]:
            return band
        return slice(self.first[band.start], self.last[band.stop - 1] + 1)

    def __call__(self, rows: Tensor, band: slice) -> Tensor:
        """Resizes the rows needed.

        Args:
            rows: (C, n, w), the input's rows `rows_needed(band)`.
            band: output rows; both ends given.

        Returns:
            (C, band.stop - band.start, W).
        """
        if self.size[0] != self.output_size[0]:
            offset = self.first[band.start]
            above, below = rows[:, self.upper[band] - offset], rows[:, self.lower[band] - offset]
            rows = torch.lerp(above, below, self.weight[band])  # (C, rows, w)
        if self.size[1] == self.output_size[1]:
            return rows
        # Rows map to themselves here, so this interpolates along the width only.
        size = (rows.shape[1], self.output_size[1])
        return F.interpolate(rows[None], size=size, mode="bilinear", align_corners=False)[0]
