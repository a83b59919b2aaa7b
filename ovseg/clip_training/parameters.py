"""Which parameters of a CLIP a run trains, and how fast."""

from __future__ import annotations

import torch
from torch import Tensor

from ovseg.clip import MaskPromptedCLIP
from ovseg.clip_training.config import ClipTrainConfig

__all__ = ["make_optimizer", "set_trainable"]

PROMPT = "visual.mask_embedding"
SCALE = "logit_scale"
# As open_clip has it: gains and biases are not decayed, nor is the temperature.
_UNDECAYED = ("bn", "ln", "bias", SCALE)


def set_trainable(clip: MaskPromptedCLIP, mode: str) -> list[str]:
    """Lock everything that a mode does not train.

    Args:
        clip: its parameters' `requires_grad` is set.
        mode: see `ClipTrainConfig`.

    Returns:
        The names of the parameters that are trained.

    Raises:
        ValueError: if the mode trains a mask prompt and the CLIP has none.
    """
    if mode != "full" and clip.visual.mask_prompt_depth == 0:
        raise ValueError(
            f"mode {mode!r} trains the mask prompt, but this CLIP has none; build it with "
            "mask_prompt_depth 3, for example"
        )
    trained = []
    for name, parameter in clip.named_parameters():
        if name == PROMPT:
            wanted = mode != "full"
        else:
            wanted = name == SCALE or (name.startswith("visual.") and mode != "mask_prompt")
        parameter.requires_grad_(wanted)
        if wanted:
            trained.append(name)
    return trained


def make_optimizer(clip: MaskPromptedCLIP, config: ClipTrainConfig) -> torch.optim.AdamW:
    """AdamW with one group each for the decayed, the others, and the mask prompt."""
    prompt_lr = config.lr if config.prompt_lr is None else config.prompt_lr
    settings = {
        "decayed": (config.lr, config.weight_decay),
        "undecayed": (config.lr, 0.0),
        "prompt": (prompt_lr, config.prompt_weight_decay),
    }
    members: dict[str, list[tuple[str, Tensor]]] = {name: [] for name in settings}
    for name, parameter in clip.named_parameters():
        if parameter.requires_grad:
            members[_group_of(name, parameter)].append((name, parameter))
    groups = [
        {
            "params": [parameter for _, parameter in members[kind]],
            "names": [name for name, _ in members[kind]],
            "lr": lr,
            "weight_decay": decay,
        }
        for kind, (lr, decay) in settings.items()
        if members[kind]
    ]
    return torch.optim.AdamW(groups, betas=(config.beta1, config.beta2), eps=config.eps)


def _group_of(name: str, parameter: Tensor) -> str:
    if name == PROMPT:
        return "prompt"
    plain = parameter.ndim < 2 or any(part in name for part in _UNDECAYED)
    return "undecayed" if plain else "decayed"
