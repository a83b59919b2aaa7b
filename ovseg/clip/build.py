"""From a model name or an open_clip model config to a randomly initialised CLIP."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from open_clip import (
    OPENAI_DATASET_MEAN,
    OPENAI_DATASET_STD,
    CLIPTextCfg,
    CLIPVisionCfg,
    get_model_config,
    list_models,
)

from ovseg.clip.mask_prompt import MaskPromptedCLIP
from ovseg.readers.documents import DocumentError, read_json

CLIP_PIXEL_MEAN: tuple[float, float, float] = tuple(255 * v for v in OPENAI_DATASET_MEAN)
CLIP_PIXEL_STD: tuple[float, float, float] = tuple(255 * v for v in OPENAI_DATASET_STD)

# OpenAI's names and open_clip's. All of OpenAI's models use QuickGELU; open_clip only warns when a
# config says otherwise, so it is set here.
OPENAI_NAMES = {
    "ViT-B/32": "ViT-B-32",
    "ViT-B/16": "ViT-B-16",
    "ViT-L/14": "ViT-L-14",
    "ViT-L/14@336px": "ViT-L-14-336",
}
SHIPPED_NAMES = ("ovseg-tiny",)


def build_clip(
    name_or_config: str | Path | Mapping[str, Any], *, mask_prompt_depth: int = 0
) -> MaskPromptedCLIP:
    """Build a CLIP with random weights in float32; nothing is downloaded.

    Args:
        name_or_config: OpenAI's name ("ViT-L/14"), open_clip's ("ViT-L-14-quickgelu"), a shipped
            one ("ovseg-tiny"), the path of an open_clip model config (.json), or such a config.
        mask_prompt_depth: number of prompted layers of the image tower.

    Returns:
        The model, in training mode.

    Raises:
        ValueError: if the name is not known, the config lacks a part, or the model is of a kind
            without a mask prompt.
    """
    if isinstance(name_or_config, Mapping):
        config = dict(name_or_config)
    else:
        config = clip_config(str(name_or_config))
    missing = [key for key in ("embed_dim", "vision_cfg", "text_cfg") if key not in config]
    if missing:
        raise ValueError(f"expected an open_clip model config, but it lacks {', '.join(missing)}")
    if config.get("custom_text") or config.get("init_logit_bias") is not None:
        raise ValueError(
            "expected a CLIP with CLIP's own text tower, got a config with custom_text or "
            f"init_logit_bias; choose one of {', '.join(OPENAI_NAMES)}"
        )
    return MaskPromptedCLIP(
        embed_dim=config["embed_dim"],
        vision_cfg=CLIPVisionCfg(**config["vision_cfg"]),
        text_cfg=CLIPTextCfg(**config["text_cfg"]),
        quick_gelu=config.get("quick_gelu", False),
        mask_prompt_depth=mask_prompt_depth,
    )


def clip_config(name: str) -> dict[str, Any]:
    """Look up the open_clip model config behind a name.

    Args:
        name: as for `build_clip`.

    Returns:
        The config, with `quick_gelu` set for OpenAI's names.

    Raises:
        ValueError: if the name is not known or the file is not JSON.
    """
    if name in OPENAI_NAMES:
        return {**get_model_config(OPENAI_NAMES[name]), "quick_gelu": True}
    if name in SHIPPED_NAMES:
        file = resources.files("ovseg.clip").joinpath("model_configs", f"{name}.json")
        return json.loads(file.read_text(encoding="utf-8"))
    if name.endswith(".json"):
        return _read_config(Path(name))
    if name not in list_models():
        raise ValueError(
            f"expected the name of a CLIP, got {name!r}; valid: {', '.join(OPENAI_NAMES)}, "
            f"{', '.join(SHIPPED_NAMES)} (shipped), the path of an open_clip model config "
            "ending in .json, or a name that open_clip.list_models() gives"
        )
    return get_model_config(name)


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = read_json(path)
    except FileNotFoundError as error:
        raise ValueError(f"expected a CLIP model config at {path}, but there is no file") from error
    except DocumentError as error:
        raise ValueError(
            f"expected a CLIP model config in JSON at {path}: {error.reason}"
        ) from error
    return config.get("model_cfg", config)
