"""Loading checkpoints of OVSeg: the released ones, our own, and pretrained backbones.

Loading is strict. A name that the model needs and the file lacks, or the other way round, is an
error that lists the names; only what the model computes itself may be missing.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from ovseg.weights.backbones import Conversion, convert_resnet, convert_swin
from ovseg.weights.load import WeightsError, as_state_dict, load_strict

logger = logging.getLogger(__name__)

# Follow from the config (number of classes, NO_OBJECT_WEIGHT); released checkpoints hold them.
CONSTANTS = ("criterion.empty_weight",)
RECOMPUTABLE = (
    *CONSTANTS,
    "*.relative_position_index",
    "clip_adapter.pixel_mean",
    "clip_adapter.pixel_std",
)
MASK_EMBEDDING = "clip_adapter.clip_model.visual.mask_embedding"
CLIP = "clip_adapter.clip_model."
HEAD = "sem_seg_head."
CLASS_EMBED = "sem_seg_head.predictor.class_embed."
BACKBONE = "backbone."
RESNET = ("stem.", "conv1.", "res2.", "layer1.0.conv1.")


def upstream_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Renames keys of old checkpoints, in which the head was the pixel decoder.

    Args:
        state: tensors by name.

    Returns:
        The tensors; `sem_seg_head.x` became `sem_seg_head.pixel_decoder.x` unless x already lies
        under `pixel_decoder.` or `predictor.`, so new names stay as they are.
    """
    renamed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        inner = name.removeprefix(HEAD)
        if inner != name and not inner.startswith(("pixel_decoder.", "predictor.")):
            name = f"{HEAD}pixel_decoder.{inner}"
        renamed[name] = tensor
    return renamed


def load_ovseg_weights(
    model: nn.Module,
    state_or_path: Mapping[str, Tensor] | str | Path,
    *,
    allow_backbone_only: bool = False,
    allow_pickle: bool = False,
) -> None:
    """Loads a checkpoint strictly.

    The depth of the mask prompt is taken from the checkpoint: the model's is replaced by it. The
    weights of the classes in the loss are no weights of the network and stay as configured, so a
    checkpoint goes on to training with another number of classes.

    Args:
        model: an OVSeg or MaskFormer; left as it was on an error.
        state_or_path: a state dict, with or without a {"model": ...} around it, or a file.
        allow_backbone_only: also accept the weights of a backbone alone, from which training
            starts: those of a Swin Transformer or ResNet classifier, or under our names. A closed
            model of other classes gives all but its class layer.
        allow_pickle: read plain pickles, too; see `read_state_dict`.

    Raises:
        WeightsError: the file cannot be read, or names or shapes do not fit; the message lists
            them.
    """
    state = upstream_names(as_state_dict(state_or_path, allow_pickle=allow_pickle))
    state = {name: tensor for name, tensor in state.items() if name not in CONSTANTS}
    parts = {name.split(".")[0] for name in model.state_dict()} - {"backbone"}
    if not parts & {name.split(".")[0] for name in state}:
        _load_backbone(model, state, allowed=allow_backbone_only)
        return
    if allow_backbone_only:
        state = _with_fresh_class_layer(model, state)
    previous = _fit_mask_prompt(model, state)
    try:
        load_strict(model, state, recomputable=RECOMPUTABLE)
    except WeightsError:
        if previous is not None:
            _visual(model).mask_embedding = previous
        raise


def _visual(model: nn.Module) -> nn.Module:
    return model.get_submodule(MASK_EMBEDDING.rpartition(".")[0])


def _fit_mask_prompt(model: nn.Module, state: Mapping[str, Tensor]) -> nn.Parameter | None:
    """Gives the mask prompt the checkpoint's depth; returns the parameter it replaced, if any."""
    loaded, current = state.get(MASK_EMBEDDING), dict(model.named_parameters()).get(MASK_EMBEDDING)
    if loaded is None or current is None or len(loaded) == len(current):
        return None
    if loaded.shape[1:] != current.shape[1:]:
        return None  # of another CLIP; the strict loader says so
    logger.info("Mask prompt: depth %d, from the checkpoint", len(loaded))
    empty = torch.zeros(loaded.shape, dtype=current.dtype, device=current.device)
    _visual(model).mask_embedding = nn.Parameter(empty, requires_grad=current.requires_grad)
    return current


def _with_fresh_class_layer(model: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Keeps a closed model's own class layer where the checkpoint knows other classes."""
    own = model.state_dict()
    if any(name.startswith(CLIP) for name in own):
        return state  # open: the layer makes embeddings, whatever the classes
    layer = {
        name: own[name]
        for name, tensor in state.items()
        if name.startswith(CLASS_EMBED)
        and name in own
        and len(tensor) != len(own[name])
        and tensor.shape[1:] == own[name].shape[1:]
    }
    if layer:
        logger.warning(
            "the checkpoint is of other classes than this run: %s start fresh", ", ".join(layer)
        )
    return state | layer


def _load_backbone(model: nn.Module, state: Mapping[str, Tensor], *, allowed: bool) -> None:
    """Loads a classifier's weights into the backbone; everything else keeps its initial values."""
    converted = _convert_backbone(model.get_submodule("backbone"), state)
    if not allowed:
        raise WeightsError(
            "expected a full checkpoint, got the weights of a backbone alone; training starts from "
            "such a file, evaluation and prediction need a trained model"
        )
    inner = {name.removeprefix(BACKBONE): tensor for name, tensor in converted.state.items()}
    # The norms of the outputs are not part of a classifier and start fresh.
    fresh = ("norm[0-9].*", "*relative_position_index")
    load_strict(model.get_submodule("backbone"), inner, recomputable=fresh)
    logger.info(
        "Backbone: loaded %d tensors, left out %s; all other parts start from their initial values",
        len(inner),
        ", ".join(converted.dropped) or "none",
    )


def _convert_backbone(backbone: nn.Module, state: Mapping[str, Tensor]) -> Conversion:
    """Maps a classifier's names; which network it is, is told by the names."""
    if state and all(name.startswith(BACKBONE) for name in state):
        return Conversion(dict(state), ())
    if any(name.startswith("patch_embed.") for name in state):
        return convert_swin(state)
    if any(name.startswith(RESNET) for name in state):
        return convert_resnet(state)
    own = type(backbone).__name__
    raise WeightsError(
        f"expected a full checkpoint or the weights of the backbone ({own}) in the naming of "
        f"a Swin Transformer or a ResNet, got {len(state)} names that are neither: "
        f"{', '.join(list(state)[:6])}"
    )
