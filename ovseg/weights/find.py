"""Which file a run's weights lie in: a name, a path or an address, found on every process."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ovseg.d2.config import CfgNode
from ovseg.d2.utils import comm
from ovseg.weights import catalogue
from ovseg.weights.load import read_names

__all__ = [
    "RANDOM",
    "find_clip_weights",
    "find_weights",
    "holds_part",
    "named_weights",
    "names_in_weights",
    "trained_weights",
    "weights_set_in",
]

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


def trained_weights(cfg: CfgNode) -> str:
    """Say which weights a config means a model to answer with.

    Args:
        cfg: full config.

    Returns:
        MODEL.TRAINED_WEIGHTS, and where that is empty MODEL.WEIGHTS.
    """
    return str(cfg.MODEL.TRAINED_WEIGHTS or cfg.MODEL.WEIGHTS)


def weights_set_in(cfg: CfgNode) -> str:
    """Say which weights a config means that was changed key by key, as Detectron2's users do.

    Who writes `cfg.MODEL.WEIGHTS = ...` means these, and leaves TRAINED_WEIGHTS as a file had it.

    Args:
        cfg: full config.

    Returns:
        MODEL.WEIGHTS, or where these are empty or still a released backbone, which training starts
        from, MODEL.TRAINED_WEIGHTS.
    """
    wanted = str(cfg.MODEL.WEIGHTS)
    own = wanted and not catalogue.is_backbone(wanted)
    return wanted if own else trained_weights(cfg)


def named_weights(opts: Sequence[Any]) -> str | None:
    """Read the weights that settings on a command line name.

    Args:
        opts: KEY, VALUE, KEY, VALUE, ...

    Returns:
        The last value of MODEL.WEIGHTS, without quotes around it, which configs, too, read past;
        None where it is not among them.
    """
    values = [
        str(opts[i + 1]).strip("'\"") for i in range(len(opts) - 1) if opts[i] == "MODEL.WEIGHTS"
    ]
    return values[-1] if values else None


def names_in_weights(wanted: str) -> list[str]:
    """List the names of the tensors that a run starts from.

    Args:
        wanted: as `find_weights`; "" and "random" name none.

    Returns:
        The names.

    Raises:
        WeightsError: the file is none of weights.
    """
    return [] if wanted in ("", RANDOM) else read_names(find_weights(wanted))


def holds_part(wanted: str, prefix: str) -> bool:
    """Tell whether the weights that a run starts from bring a part of the model.

    Args:
        wanted: as `names_in_weights`. Of the catalogue's files nothing is read: a trained model has
            all parts, a backbone or a CLIP none.
        prefix: what the names of the part's tensors begin with.

    Returns:
        Whether they do.

    Raises:
        WeightsError: the file is none of weights.
    """
    entry = catalogue.entries().get(wanted)
    if entry is not None:
        return bool(entry.config)
    return any(name.startswith(prefix) for name in names_in_weights(wanted))


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
