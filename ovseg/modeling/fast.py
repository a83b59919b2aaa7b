"""What inference may leave out where a small share of the labels may change.

`TEST.FAST` switches it on. Everything here is about CLIP's look at the regions, which is over nine
tenths of the work of OVSeg; docs/performance.md has what each saving is worth and what it keeps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ovseg.clip.int8 import has_int8
from ovseg.d2.config import CfgNode
from ovseg.utils.precision import has_fast_bf16

PRECISIONS = ("float32", "bfloat16", "int8", "auto")

# Masks are compared on a grid whose shorter side has at least this many points.
_GRID = 128


@dataclass(frozen=True)
class FastSettings:
    """Savings of inference; the defaults save nothing.

    Args:
        precision: of CLIP's image tower, one of PRECISIONS.
        merge_after: share of the tower's blocks in (0, 1], after which patches outside of a region
            are merged; 1: never.
        min_share: see `stand_ins`; 0: every mask is looked at.
        rest: see `stand_ins`.

    Raises:
        ValueError: a value is out of range.
    """

    precision: str = "float32"
    merge_after: float = 1.0
    min_share: float = 0.0
    rest: float = 0.0

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ValueError(
                f"TEST.FAST.PRECISION: expected one of {', '.join(PRECISIONS)}, got "
                f"{self.precision!r}"
            )
        if not 0 < self.merge_after <= 1:
            raise ValueError(
                "TEST.FAST.MERGE_AFTER: expected a share of the blocks above 0 and up to 1, got "
                f"{self.merge_after}"
            )
        for key, value in (("MIN_SHARE", self.min_share), ("REST", self.rest)):
            if not 0 <= value < 1:
                raise ValueError(f"TEST.FAST.{key}: expected a share in [0, 1), got {value}")

    @classmethod
    def from_config(cls, cfg: CfgNode) -> FastSettings:
        """Reads TEST.FAST; without ENABLED nothing is saved."""
        fast = cfg.TEST.FAST
        if not fast.ENABLED:
            return cls()
        return cls(
            precision=fast.PRECISION,
            merge_after=float(fast.MERGE_AFTER),
            min_share=float(fast.MIN_SHARE),
            rest=float(fast.REST),
        )

    def precision_on(self, device: torch.device) -> str:
        """What "auto" means on a device, and any other precision if the device has it.

        Raises:
            ValueError: int8 is asked of a device without it.
        """
        if self.precision == "int8" and not has_int8(device):
            raise ValueError(
                f"TEST.FAST.PRECISION: expected a device that multiplies int8, got {device}; set "
                "it to auto or bfloat16"
            )
        if self.precision != "auto":
            return self.precision
        if has_fast_bf16(device):
            return "bfloat16"
        return "int8" if has_int8(device) else "float32"

    def blocks_before_merging(self, blocks: int, prompted: int) -> int | None:
        """After how many of the blocks patches are merged, none of the mask prompt's; None: never.

        Args:
            blocks: of the tower.
            prompted: how many of them replace patches.
        """
        after = max(math.ceil(self.merge_after * blocks), prompted, 1)
        return after if after < blocks else None

    def stand_ins(self, masks: Tensor, quality: Tensor | None, *, threshold: float) -> Tensor:
        """Find the masks that CLIP need not look at, and for each of them another that names it.

        At a pixel a mask's share is its value (times its quality) by the sum over all masks. What
        has `min_share` or less everywhere turns a label only where others are nearly even. Masks
        are taken in the order of the pixels where they have more, as long as these are less than
        `rest` of the picture together. The one that overlaps such a mask most stands in for it.

        Args:
            masks: (Q, h, w) in [0, 1].
            quality: (Q,) in [0, 1], or None.
            threshold: a pixel belongs to a mask above this value.

        Returns:
            (Q,) int64, the mask whose features are to be used; of most masks it is the mask itself.
        """
        itself = torch.arange(len(masks), device=masks.device)
        if self.min_share == 0 or self.rest == 0:
            return itself
        step = max(1, min(masks.shape[1:]) // _GRID)
        values = masks[:, ::step, ::step].flatten(1)  # (Q, P)
        cut = (values > threshold).float()
        seen = cut.any(1)
        weights = values if quality is None else values * quality[:, None]
        weights = weights * seen[:, None]
        shares = weights / weights.sum(0).clamp(min=1e-9)
        pixels = (shares > self.min_share).sum(1) / shares.shape[1]  # (Q,), of all pixels
        order = pixels.argsort(stable=True)
        passed = torch.zeros_like(seen)
        passed[order] = pixels[order].cumsum(0) < self.rest
        common = cut @ cut.T
        areas = cut.sum(1)
        iou = common / (areas[:, None] + areas - common).clamp(min=1)
        best = iou.masked_fill(passed | ~seen, -1).max(1)  # of the columns that are looked at
        return torch.where(passed & seen & (best.values > 0), best.indices, itself)
