"""Getting a matcher: from Hugging Face's form, or from tensors that say which one they are of."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ovseg.weights.load import WeightsError, load_strict

from .matcher import BlipMatcher

__all__ = [
    "PREFIX",
    "bundle",
    "make_blip",
    "make_tokenizer",
    "matcher_from_hub",
    "matcher_of_state",
    "require_transformers",
    "shape_of_state",
]

PREFIX = "matcher."  # of its tensors in the method's state dict


def require_transformers() -> Any:
    """Import transformers.

    Returns:
        The module.

    Raises:
        ImportError: it is not installed; the message says what to install.
    """
    try:
        import transformers
    except ImportError as error:
        raise ImportError(
            "PnPOVSS: expected the package transformers, which is not installed; run "
            "pip install 'ovseg[transformers]'"
        ) from error
    return transformers


def matcher_from_hub(name: str) -> BlipMatcher:
    """Load a released matcher.

    Args:
        name: a folder in Hugging Face's form (config.json, model.safetensors, tokenizer.json or
            vocab.txt), or a name of their hub, such as "Salesforce/blip-itm-large-flickr".

    Returns:
        The matcher.

    Raises:
        WeightsError: there is no such model, it is not an image-text matcher, or its weights are
            not safetensors.
    """
    transformers = require_transformers()
    try:
        model, report = transformers.BlipForImageTextRetrieval.from_pretrained(
            name, use_safetensors=True, output_loading_info=True
        )
        tokenizer = _find_tokenizer(name)
    except (OSError, ValueError) as error:
        raise WeightsError(
            f"MODEL.PNP_OVSS.ITM.NAME: expected a folder in Hugging Face's form with "
            f"model.safetensors, or a name of their hub, got {name!r}: {error}"
        ) from error
    if report["missing_keys"]:
        raise WeightsError(
            f"MODEL.PNP_OVSS.ITM.NAME: expected a BLIP with a matching head, but {name!r} lacks "
            f"{sorted(report['missing_keys'])[:6]}; take one for image-text retrieval"
        )
    return BlipMatcher(model, tokenizer)


def make_blip(config: Mapping[str, Any]) -> nn.Module:
    """Build a BLIP with random weights.

    Args:
        config: `vision` and `text`, arguments of transformers' BlipVisionConfig and
            BlipTextConfig, and optionally further ones of BlipConfig.

    Returns:
        A BlipForImageTextRetrieval.
    """
    transformers = require_transformers()
    further = {key: value for key, value in config.items() if key not in ("vision", "text")}
    blip = transformers.BlipConfig(
        vision_config=dict(config["vision"]), text_config=dict(config["text"]), **further
    )
    return transformers.BlipForImageTextRetrieval(blip)


def make_tokenizer(vocabulary: Sequence[str]) -> Any:
    """Build a lower-casing WordPiece tokenizer.

    Args:
        vocabulary: the pieces in the order of their ids, with [PAD], [UNK], [CLS], [SEP] and
            [MASK].

    Returns:
        transformers' BertTokenizerFast.
    """
    pieces = {piece: index for index, piece in enumerate(vocabulary)}
    # Its argument `vocab_file` has no effect since transformers 5.
    return require_transformers().BertTokenizerFast(vocab=pieces)


def bundle(config: Mapping[str, Any], vocabulary: Sequence[str]) -> tuple[nn.Module, Any, Tensor]:
    """Make the parts of a matcher that a checkpoint holds whole.

    Args:
        config: see `make_blip`.
        vocabulary: see `make_tokenizer`.

    Returns:
        The BLIP with random weights, its tokenizer, and both arguments as bytes, which travel with
        the weights: what `BlipMatcher` takes.
    """
    text = json.dumps({"config": config, "vocabulary": list(vocabulary)})
    header = torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8).clone()
    return make_blip(config), make_tokenizer(vocabulary), header


def shape_of_state(state: Mapping[str, Tensor], *, source: str) -> BlipMatcher:
    """Build the matcher that tensors are of, with random weights.

    Args:
        state: tensors by name, as a `PnPOVSS` has them.
        source: what to call them in an error.

    Returns:
        The matcher.

    Raises:
        WeightsError: they do not say which matcher they are of.
    """
    try:
        header = json.loads(bytes(state[f"{PREFIX}header"].cpu().numpy().tobytes()))
        return BlipMatcher(*bundle(header["config"], header["vocabulary"]))
    except (KeyError, ValueError, TypeError) as error:
        raise WeightsError(
            f"{source}: expected a matcher with its config and vocabulary under "
            f"'{PREFIX}header', as training leaves it; a BLIP in Hugging Face's form is named by "
            "MODEL.PNP_OVSS.ITM.NAME"
        ) from error


def matcher_of_state(state: Mapping[str, Tensor], *, source: str) -> BlipMatcher:
    """Build the matcher that tensors are of, and load them strictly.

    Args:
        state: tensors by name, as a `PnPOVSS` has them.
        source: what to call them in an error.

    Returns:
        The matcher.

    Raises:
        WeightsError: they do not say which matcher they are of, or do not fit it.
    """
    matcher = shape_of_state(state, source=source)
    load_strict(matcher, {k.removeprefix(PREFIX): v for k, v in state.items()})
    return matcher


def _find_tokenizer(name: str) -> Any:
    listing = Path(name) / "vocab.txt"
    if listing.is_file():
        return make_tokenizer(listing.read_text(encoding="utf-8").splitlines())
    return require_transformers().AutoTokenizer.from_pretrained(name, use_fast=True)
