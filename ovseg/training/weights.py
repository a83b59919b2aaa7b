"""The weights that a run starts from: a name, a path or an address, loaded on every process."""

from __future__ import annotations

import logging
from pathlib import Path

from torch import nn

from ovseg.training.checkpoint import averaged_state, latest_checkpoint, read_checkpoint
from ovseg.utils.files import sha256_of
from ovseg.weights.find import RANDOM, find_weights
from ovseg.weights.ovseg import load_ovseg_weights

__all__ = ["load_for_evaluation", "load_for_training"]

logger = logging.getLogger(__name__)


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


def _describe(name: str, path: Path) -> dict[str, str]:
    digest = sha256_of(path)
    logger.info("Evaluating %s (%s, sha256 %s)", name, path, digest)
    return {"name": name, "path": str(path), "sha256": digest}
