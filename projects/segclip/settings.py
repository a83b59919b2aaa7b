"""What SegCLIP's training needs to know."""

from __future__ import annotations

from dataclasses import dataclass

from ovseg.d2.config import CfgNode


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """What the losses need to know; see MODEL.SEGCLIP.

    Args:
        context_length: tokens of a caption.
        mask_ratio: share of the tokens that are hidden from the reconstruction.
        kl_weight: of the superpixel loss; 0 leaves it out.
        mae_weight: of the reconstruction; 0 leaves it out.
        lr_new: learning rate of what CLIP does not bring, and of its last blocks and projection.
        lr_clip: of the rest of CLIP.
        weight_decay: of all but biases.
    """

    context_length: int = 32
    mask_ratio: float = 0.75
    kl_weight: float = 1.0
    mae_weight: float = 1.0
    lr_new: float = 4e-3
    lr_clip: float = 4e-6
    weight_decay: float = 0.05

    @classmethod
    def from_config(cls, cfg: CfgNode) -> TrainingSettings:
        """Read MODEL.SEGCLIP and SOLVER."""
        method, solver = cfg.MODEL.SEGCLIP, cfg.SOLVER
        return cls(
            context_length=method.CONTEXT_LENGTH,
            mask_ratio=method.MAE.MASK_RATIO,
            kl_weight=method.KL.WEIGHT if method.KL.ENABLED else 0.0,
            mae_weight=method.MAE.WEIGHT if method.MAE.ENABLED else 0.0,
            lr_new=solver.LR_NEW,
            lr_clip=solver.LR_CLIP,
            weight_decay=solver.WEIGHT_DECAY,
        )
