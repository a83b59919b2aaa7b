"""The memory bank of CorrCLIPv2."""

from __future__ import annotations

from ovseg.d2.config import CfgNode
from ovseg.projects.corrclip.retrieval import MemoryBank

__all__ = ["add_bank_keys", "build_bank"]


def add_bank_keys(node: CfgNode) -> None:
    """Add BANK to MODEL.CORRCLIP."""
    bank = node.BANK = CfgNode()
    bank.ENABLED = False
    bank.PATH = ""
    bank.K = 20
    bank.ALPHA = 0.5
    bank.ENCODER = ""
    bank.AUX = []
    bank.AUX_CLIP_NAMES = []
    bank.AUX_CLIP_WEIGHTS = []


def build_bank(cfg: CfgNode) -> MemoryBank:
    """Open the bank of MODEL.CORRCLIP.BANK.PATH."""
    raise NotImplementedError("MODEL.CORRCLIP.BANK: there is no bank yet")
