"""Loading the weights that a run names, and the record of them that stays with its results."""

from __future__ import annotations

import difflib
import hashlib
import logging
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ovseg.utils.files import sha256_of
from ovseg.weights import catalogue
from ovseg.weights.find import RANDOM, find_weights
from ovseg.weights.load import require_finite

__all__ = [
    "NO_OWN_WEIGHTS",
    "config_for",
    "describe_file",
    "describe_state",
    "known_models",
    "load_named",
    "state_digest",
]

logger = logging.getLogger(__name__)

NO_OWN_WEIGHTS = "no weights of its own"
DEFAULT_MODEL = "ovseg_tiny"


def load_named(model: Any, wanted: str, *, path: Path | None = None) -> dict[str, str]:
    """Load the weights that a model is to answer with.

    Args:
        model: says by `has_own_weights` and `load_weights` how it is loaded, as an
            `ovseg.modeling.SegmentationModel` does.
        wanted: name in the catalogue, path or address; "random" keeps the initial weights; "" for
            a model that has no weights of its own.
        path: their file, where it was found before the model was built.

    Returns:
        What it answers with: name, path, sha256 (of the file; where there is none, of the weights
        as the model holds them), licence.

    Raises:
        ValueError: no weights are named though the model needs some, or the other way round.
        WeightsError: they do not fit, or hold NaN or infinity.
    """
    if not model.has_own_weights:
        if wanted not in ("", RANDOM):
            raise ValueError(
                f"MODEL.WEIGHTS: expected '', as {type(model).__name__} has no weights of its own, "
                f"got {wanted!r}; its parts are named by the config"
            )
        require_finite(model, source=f"the parts of {type(model).__name__}")
        return describe_state(NO_OWN_WEIGHTS, model, "that of its parts")
    if wanted == RANDOM:
        logger.warning("random weights: the regions found mean nothing")
        return describe_state(RANDOM, model, "none")
    if not wanted:
        raise ValueError(
            "MODEL.WEIGHTS: expected the weights to evaluate, got ''; give a file or one of "
            f"{known_models()}; in train_net.py, --resume takes the newest checkpoint of OUTPUT_DIR"
        )
    path = path or find_weights(wanted)
    model.load_weights(path)
    require_finite(model, source=str(path))
    return describe_file(wanted, path)


def config_for(wanted: str | Path | None) -> str:
    """Find the config that belongs to weights named without one.

    Args:
        wanted: name in the catalogue, path or address; None for the bundled "ovseg_tiny".

    Returns:
        The catalogue's config for the weights, by their name or file name; else `config.yaml`
        beside the file, which a training run leaves there.

    Raises:
        ValueError: if there is none.
    """
    named = str(DEFAULT_MODEL if wanted is None else wanted)
    file_id = catalogue.drive_id(named)
    for entry in catalogue.entries().values():
        if entry.config and (
            named in (entry.name, entry.url)
            or Path(named).name == entry.filename
            or (file_id is not None and file_id == entry.drive_id)
        ):
            return entry.config
    beside = Path(named).expanduser().with_name("config.yaml") if Path(named).name else None
    if beside is not None and Path(named).expanduser().is_file() and beside.is_file():
        logger.info("config: %s, beside the weights", beside)
        return str(beside)
    close = difflib.get_close_matches(named, known_models(), n=1)
    if close and close[0] != named:
        raise ValueError(
            f"expected a file, an address or a name of the catalogue, got {named!r}; did you mean "
            f"{close[0]!r}?"
        )
    raise ValueError(
        f"config: expected the config that {named!r} was trained with, got none, and there is no "
        "config.yaml beside it; give one such as 'ovseg_swinB', or weights from the catalogue: "
        f"{known_models()}"
    )


def known_models() -> list[str]:
    """Names of the catalogue's trained models, and "random"."""
    models = [name for name, entry in catalogue.entries().items() if entry.config]
    return [*models, RANDOM]


def describe_file(wanted: str, path: Path) -> dict[str, str]:
    """Say which file of weights was loaded.

    Args:
        wanted: what was asked for.
        path: the file.

    Returns:
        name, path, sha256, licence.
    """
    entries = catalogue.entries().values()
    entry = next((e for e in entries if wanted in (e.name, e.filename, e.url)), None)
    digest = sha256_of(path)
    logger.info("weights: %s (%s, sha256 %s)", wanted, path, digest)
    return {
        "name": entry.name if entry else wanted,
        "path": str(path),
        "sha256": digest,
        "licence": entry.licence if entry else "unknown (not from the catalogue)",
    }


def state_digest(module: nn.Module) -> str:
    """Hash the weights that a module runs with, wherever they came from.

    Args:
        module: any module.

    Returns:
        sha256 of names, shapes, types and values, hexadecimal.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        values = tensor.detach().cpu().contiguous().reshape(-1)  # (N,)
        digest.update(values.view(torch.uint8).numpy().data if values.numel() else b"")
    return digest.hexdigest()


def describe_state(name: str, model: nn.Module, licence: str) -> dict[str, str]:
    """Say which weights a model holds that lie in no file.

    Args:
        name: what to call them.
        model: the model.
        licence: of the weights.

    Returns:
        name, path (empty), sha256 of the weights, licence.
    """
    return {"name": name, "path": "", "sha256": state_digest(model), "licence": licence}
