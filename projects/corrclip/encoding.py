"""What CorrCLIP knows of a picture before it is asked for words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ovseg.modeling import Encoding
from ovseg.projects.corrclip.windows import Window


@dataclass(eq=False)
class WindowEncoding(Encoding):
    """Features of a picture's windows, and its regions.

    Args:
        features: (V, D, h', w') float32 of the V windows, each vector of unit length.
        windows: where they lie in the resized picture.
        size: (h, w) of the resized picture.
        output_size: the requested (H, W).
        regions: (H, W) int32 ids at the requested size, to correct labels by.
        where: (h, w) int64, the row of `supports` that each pixel belongs to; None without a bank.
        supports: per CLIP of the memory bank (R, D) unit rows.
    """

    features: Tensor
    windows: list[Window]
    size: tuple[int, int]
    output_size: tuple[int, int]
    regions: Tensor
    where: Tensor | None = None
    supports: list[Tensor] = field(default_factory=list)

    def tensors(self) -> dict[str, Tensor]:
        """Returns the content by name; `from_tensors` is its inverse."""
        found = {
            "features": self.features,
            "windows": torch.tensor(self.windows),
            "sizes": torch.tensor([self.size, self.output_size]),
            "regions": self.regions,
        }
        if self.where is not None:
            found["where"] = self.where
        return found | {f"support{i}": rows for i, rows in enumerate(self.supports)}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> WindowEncoding:
        """Makes the encoding that `tensors` stored."""
        size, output_size = (tuple(pair) for pair in tensors["sizes"].tolist())
        number = sum(name.startswith("support") for name in tensors)
        return cls(
            features=tensors["features"],
            windows=[Window(*row) for row in tensors["windows"].tolist()],
            size=size,
            output_size=output_size,
            regions=tensors["regions"],
            where=tensors.get("where"),
            supports=[tensors[f"support{i}"] for i in range(number)],
        )
