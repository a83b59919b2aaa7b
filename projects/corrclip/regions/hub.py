"""What the sources that stand on a model of transformers share: loading it, and its name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from ovseg.d2.config import CfgNode
from ovseg.weights.record import state_digest

__all__ = ["PRECISIONS", "load_from_hub", "model_name", "transformers_module"]

PRECISIONS = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}


def transformers_module() -> Any:
    """Import transformers.

    Raises:
        ImportError: it is not installed.
    """
    try:
        import transformers
    except ImportError as error:
        raise ImportError(
            "regions by SAM 2, Mask2Former and EoMT need transformers, which is not installed: "
            "pip install 'ovseg[transformers]'"
        ) from error
    return transformers


def load_from_hub(cfg: CfgNode, architecture: str, weights: str) -> tuple[nn.Module, Any]:
    """Load a model and its image processor.

    Args:
        cfg: full configuration; MODEL.DEVICE and REGIONS.PRECISION are read.
        architecture: name of a class of transformers.
        weights: a repository of the Hugging Face hub, or a folder with its files. Weights are read
            from safetensors only.

    Returns:
        The model in eval mode, and the processor.

    Raises:
        ValueError: an unknown precision.
        OSError: there is no such repository or folder, or it cannot be reached.
    """
    transformers = transformers_module()
    precision = cfg.MODEL.CORRCLIP.REGIONS.PRECISION
    if precision not in PRECISIONS:
        raise ValueError(
            f"MODEL.CORRCLIP.REGIONS.PRECISION: expected one of {tuple(PRECISIONS)}, got "
            f"{precision!r}"
        )
    model = getattr(transformers, architecture).from_pretrained(weights, use_safetensors=True)
    processor = transformers.AutoImageProcessor.from_pretrained(weights)
    model.to(cfg.MODEL.DEVICE, PRECISIONS[precision]).eval()
    return model, processor


def model_name(kind: str, weights: str, model: nn.Module) -> str:
    """Name a model by where it came from and the weights that it has.

    Args:
        kind: of model.
        weights: as they were asked for.
        model: the model.

    Returns:
        Such as "sam2:sam2-hiera-large@1a2b3c4d".
    """
    return f"{kind}:{Path(weights).name}@{state_digest(model)[:8]}"
