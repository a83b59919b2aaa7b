"""How SegCLIP's parameters begin, which of them are trained, and how fast.

Source: Luo et al., "SegCLIP", ICML 2023, section 4.1, and its released training command.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from ovseg.projects.segclip.grouping import SemanticGrouping
from ovseg.projects.segclip.reconstruction import MAEDecoder

# What stays as CLIP has it: everything up to the tokens that enter the first block.
FROZEN = (
    "clip.visual.conv1.",
    "clip.visual.class_embedding",
    "clip.visual.positional_embedding",
    "clip.visual.ln_pre.",
    "clip.token_embedding.",
    "clip.positional_embedding",
    "vis_mae_decoder.decoder_pos_embed",
)
# What is used by the reconstruction alone.
RECONSTRUCTION = (
    "clip.visual.transformer.layers_mae2.",
    "clip.visual.transformer.reconstruct_layer2.",
    "vis_mae_decoder.",
)
# What is trained at the high rate: new parts, and CLIP's blocks on groups and its projection.
FAST = (
    *RECONSTRUCTION,
    "clip.visual.transformer.semantic_layer2.",
    "clip.visual.transformer.layers2.",
    "clip.visual.ln_post.",
    "clip.visual.proj",
)
_STD = 0.02


def initialise(*parts: nn.Module) -> None:
    """Draws the weights of parts that CLIP does not bring.

    Linear layers are normal with a standard deviation of 0.02 and have no bias, centres and mask
    token likewise; normalisations are as torch makes them, and so are convolutions and the inner
    projection of attention.

    Args:
        *parts: in place.
    """
    for part in parts:
        for module in part.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=_STD)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, SemanticGrouping):
                nn.init.trunc_normal_(module.semantic_center, std=_STD)
            elif isinstance(module, MAEDecoder):
                nn.init.normal_(module.mask_token, std=_STD)


def freeze(model: nn.Module, *, reconstruct: bool) -> None:
    """Locks what is not trained.

    Args:
        model: a `SegCLIP`.
        reconstruct: whether masked reconstruction is among the losses; else what it alone uses is
            locked, too.
    """
    locked = FROZEN if reconstruct else (*FROZEN, *RECONSTRUCTION)
    for name, parameter in model.named_parameters():
        if name.startswith(locked):
            parameter.requires_grad_(False)


def optimizer_groups(
    parameters: Iterable[tuple[str, nn.Parameter]],
    *,
    lr_new: float,
    lr_clip: float,
    weight_decay: float,
) -> list[dict[str, Any]]:
    """Collects trainable parameters by rate and decay.

    Args:
        parameters: by the names of a `SegCLIP`; locked ones are left out.
        lr_new: rate of `FAST`.
        lr_clip: of all else.
        weight_decay: of all whose name has no "bias" in it: normalisations, centres and temperature
            decay, too.

    Returns:
        Groups with the keys params, names, lr, weight_decay.
    """
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, parameter in parameters:
        if not parameter.requires_grad:
            continue
        rate = lr_new if name.startswith(FAST) else lr_clip
        decay = 0.0 if "bias" in name else weight_decay
        empty = {"params": [], "names": [], "lr": rate, "weight_decay": decay}
        group = groups.setdefault((rate, decay), empty)
        group["params"].append(parameter)
        group["names"].append(name)
    return list(groups.values())
