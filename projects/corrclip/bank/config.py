"""Config keys of the memory bank, with upstream's values."""

from __future__ import annotations

from ovseg.d2.config import CfgNode

__all__ = ["add_bank_keys"]


def add_bank_keys(node: CfgNode) -> None:
    """Add BANK to a section of a config.

    Args:
        node: MODEL.CORRCLIP.
    """
    node.BANK = CfgNode(
        {
            "ENABLED": False,
            "PATH": "",  # folder that tools/build_memory_bank.py has made
            "K": 20,  # regions that are looked up for a region
            "ALPHA": 0.5,  # share of what the bank says in the scores
            "ENCODER": "",  # which values are looked up; "" for those of the model's CLIP
            # Further encoders that are asked, and the CLIP whose words belong to each.
            "AUX": [],
            "AUX_CLIP_NAMES": [],
            "AUX_CLIP_WEIGHTS": [],
            # exact; faiss; or auto: exact below 10,000 regions, above with FAISS if it is there
            "INDEX": "auto",
        }
    )
