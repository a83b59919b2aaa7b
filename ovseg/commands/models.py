"""The model that a command works with."""

from __future__ import annotations

from ovseg.d2.config import CfgNode
from ovseg.d2.modeling import build_model
from ovseg.modeling.ovseg import OVSeg


def build_ovseg(cfg: CfgNode) -> OVSeg:
    """Build the OVSeg that a config describes, in evaluation mode, with random weights.

    Raises:
        ValueError: the config is of another method.
    """
    model = build_model(cfg).eval()
    if not isinstance(model, OVSeg):
        raise ValueError(
            f"MODEL.META_ARCHITECTURE: expected OVSeg, got {cfg.MODEL.META_ARCHITECTURE}, which "
            "has no masks and names to tell apart"
        )
    return model
