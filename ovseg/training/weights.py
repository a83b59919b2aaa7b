"""The weights that a run starts from: a name, a path or an address, loaded on every process."""

from __future__ import annotations

import logging
from pathlib import Path

from torch import nn

from ovseg.d2.config import CfgNode
from ovseg.d2.utils import comm
from ovseg.training.checkpoint import averaged_state, latest_checkpoint, read_checkpoint
from ovseg.utils.files import sha256_of
from ovseg.weights import catalogue
from ovseg.weights.ovseg import load_ovseg_weights

__all__ = ["find_clip_weights", "find_weights", "load_for_evaluation", "load_for_training"]

logger = logging.getLogger(__name__)

RANDOM = "random"


def load_for_training(model: nn.Module, wanted: str) -> None:
    """Load what training starts from; the weights of a backbone alone will do.

    Args:
        model: an OVSeg or MaskFormer.
        wanted: name in the catalogue, path or address; "" and "random" keep the initial weights.

    Raises:
        WeightsError: if the weights do not fit.
    """
    if wanted in ("", RANDOM):
        logger.info("MODEL.WEIGHTS is %r: training starts from random weights", wanted)
        return
    path = find_weights(wanted)
    logger.info("Training starts from %s", path)
    load_ovseg_weights(model, path, allow_backbone_only=True)


def load_for_evaluation(
    model: nn.Module, wanted: str, *, run_directory: Path | None = None
) -> dict[str, str]:
    """Load the weights to evaluate.

    Args:
        model: an OVSeg or MaskFormer.
        wanted: name in the catalogue, path or address; "random" keeps the initial weights.
        run_directory: evaluate the newest checkpoint of this training run instead, with its
            averaged weights where it has them; `wanted` counts where there is none.

    Returns:
        What was loaded: name, path, sha256.

    Raises:
        ValueError: if no weights are named.
        WeightsError: if the weights do not fit.
    """
    newest = latest_checkpoint(run_directory) if run_directory is not None else None
    if newest is not None:
        load_ovseg_weights(model, averaged_state(read_checkpoint(newest)))
        return _describe(newest.name, newest)
    if wanted == RANDOM:
        logger.warning("Evaluating random weights: the numbers say nothing about the method")
        return {"name": RANDOM, "path": "", "sha256": ""}
    if not wanted:
        raise ValueError(
            "MODEL.WEIGHTS: expected the weights to evaluate, got ''; give a file or a name of the "
            "catalogue (MODEL.WEIGHTS ovseg_tiny), --resume for the newest checkpoint of "
            "OUTPUT_DIR, or MODEL.WEIGHTS random"
        )
    path = find_weights(wanted)
    load_ovseg_weights(model, path)
    return _describe(wanted, path)


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


def _describe(name: str, path: Path) -> dict[str, str]:
    digest = sha256_of(path)
    logger.info("Evaluating %s (%s, sha256 %s)", name, path, digest)
    return {"name": name, "path": str(path), "sha256": digest}
