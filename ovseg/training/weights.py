"""The weights that a run starts from, loaded on every process."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from ovseg.training.checkpoint import averaged_state, latest_checkpoint, read_checkpoint
from ovseg.weights.find import RANDOM, find_weights
from ovseg.weights.load import require_finite
from ovseg.weights.record import describe_file, load_named

__all__ = ["load_for_evaluation", "load_for_training"]

logger = logging.getLogger(__name__)


def load_for_training(model: Any, wanted: str) -> None:
    """Load what training starts from; a part of the model, such as its backbone, may do.

    Args:
        model: a `SegmentationModel`.
        wanted: name in the catalogue, path or address; "" and "random" keep the initial weights.

    Raises:
        WeightsError: if the weights do not fit.
    """
    if wanted in ("", RANDOM):
        logger.info("MODEL.WEIGHTS is %r: training starts from random weights", wanted)
        return
    path = find_weights(wanted)
    logger.info("Training starts from %s", path)
    model.load_weights(path, to_train=True)


def load_for_evaluation(
    model: Any, wanted: str, *, run_directory: Path | None = None
) -> dict[str, str]:
    """Load the weights to evaluate.

    Args:
        model: a `SegmentationModel`.
        wanted: see `ovseg.weights.record.load_named`.
        run_directory: evaluate the newest checkpoint of this training run instead, with its
            averaged weights where it has them; `wanted` counts where there is none.

    Returns:
        What was loaded: name, path, sha256, licence.

    Raises:
        ValueError: if no weights are named.
        WeightsError: if the weights do not fit, or hold NaN or infinity.
    """
    newest = latest_checkpoint(run_directory) if run_directory is not None else None
    if newest is None:
        return load_named(model, wanted)
    model.load_weights(averaged_state(read_checkpoint(newest)))
    require_finite(model, source=str(newest))
    return describe_file(newest.name, newest)
