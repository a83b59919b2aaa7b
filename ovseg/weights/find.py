"""Which file a run's weights lie in: a name, a path or an address, found on every process."""

from __future__ import annotations

import logging
from pathlib import Path

from ovseg.d2.config import CfgNode
from ovseg.d2.utils import comm
from ovseg.weights import catalogue

__all__ = ["RANDOM", "find_clip_weights", "find_weights"]

logger = logging.getLogger(__name__)

RANDOM = "random"  # in place of a name: the weights stay as they were drawn


def find_weights(wanted: str) -> Path:
    """Find a file of weights; only one process per run downloads it, the others wait.

    Args:
        wanted: name in the catalogue, path or address.

    Returns:
        The local file.
    """
    if comm.is_main_process():
        path = catalogue.resolve(wanted)
    comm.synchronize()
    return path if comm.is_main_process() else catalogue.resolve(wanted, progress=False)


def find_clip_weights(adapter: CfgNode) -> str:
    """Find the file that CLIP starts from in training.

    Args:
        adapter: MODEL.CLIP_ADAPTER. CLIP_WEIGHTS is a name in the catalogue, a path or an address;
            "" asks for OpenAI's weights of CLIP_MODEL_NAME and "random" for none.

    Returns:
        The path, or "" where CLIP starts from random weights.
    """
    wanted = adapter.CLIP_WEIGHTS
    if not wanted:
        wanted = "clip_" + adapter.CLIP_MODEL_NAME.replace("/", "-").replace("@", "-")
        if wanted not in catalogue.entries():
            logger.warning(
                "CLIP starts from random weights: MODEL.CLIP_ADAPTER.CLIP_WEIGHTS is empty and no "
                "released weights are known for %r",
                adapter.CLIP_MODEL_NAME,
            )
            return ""
    return "" if wanted == RANDOM else str(find_weights(wanted))
