"""Getting a matcher: from Hugging Face's form, or from one safetensors file that holds it all."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors
from torch import nn

from ovseg.weights.load import WeightsError, load_strict, read_state_dict

from .matcher import BlipMatcher

__all__ = [
    "CONFIG_KEY",
    "VOCABULARY_KEY",
    "bundle_metadata",
    "load_bundle",
    "make_blip",
    "make_tokenizer",
    "matcher_from_hub",
    "read_bundle_metadata",
    "require_transformers",
]

CONFIG_KEY, VOCABULARY_KEY = "blip_config", "vocabulary"


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


def bundle_metadata(config: Mapping[str, Any], vocabulary: Sequence[str]) -> dict[str, str]:
    """Write down what a file of weights must say to be a matcher by itself.

    Args:
        config: see `make_blip`.
        vocabulary: see `make_tokenizer`.

    Returns:
        Strings for the header of a safetensors file.
    """
    return {CONFIG_KEY: json.dumps(config), VOCABULARY_KEY: json.dumps(list(vocabulary))}


def read_bundle_metadata(path: str | Path) -> tuple[dict[str, Any], list[str]]:
    """Read what `bundle_metadata` wrote.

    Args:
        path: a safetensors file.

    Returns:
        The config and the vocabulary.

    Raises:
        WeightsError: the file has neither, or is no safetensors file.
    """
    try:
        with safetensors.safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
        return json.loads(metadata[CONFIG_KEY]), json.loads(metadata[VOCABULARY_KEY])
    except (KeyError, ValueError, OSError, safetensors.SafetensorError) as error:
        raise WeightsError(
            f"{path}: expected a matcher's safetensors file with {CONFIG_KEY!r} and "
            f"{VOCABULARY_KEY!r} in its header, as ovseg.projects.pnp_ovss.train writes it; "
            "a BLIP in Hugging Face's form is named by MODEL.PNP_OVSS.ITM.NAME"
        ) from error


def load_bundle(path: str | Path) -> tuple[nn.Module, Any]:
    """Load a matcher from one file.

    Args:
        path: a safetensors file with `bundle_metadata`.

    Returns:
        The BLIP with its weights, and its tokenizer.

    Raises:
        WeightsError: it is no such file, or tensors do not fit its config.
    """
    config, vocabulary = read_bundle_metadata(path)
    model = make_blip(config)
    load_strict(model, read_state_dict(path))
    return model, make_tokenizer(vocabulary)


def _find_tokenizer(name: str) -> Any:
    listing = Path(name) / "vocab.txt"
    if listing.is_file():
        return make_tokenizer(listing.read_text(encoding="utf-8").splitlines())
    return require_transformers().AutoTokenizer.from_pretrained(name, use_fast=True)
