"""Which parameters a contrastive run trains, and how fast."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from ovseg.clip import MaskPromptedCLIP
from ovseg.clip_training.config import ClipTrainConfig
from ovseg.training.muon import MuonAdamW

__all__ = ["make_optimizer", "set_trainable", "warmup_cosine"]

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
    if mode in ("mask_prompt", "both") and clip.visual.mask_prompt_depth == 0:
        raise ValueError(
            f"mode {mode!r} trains the mask prompt, but this CLIP has none; build it with "
            "mask_prompt_depth 3, for example"
        )
    trained = []
    for name, parameter in clip.named_parameters():
        if name == PROMPT:
            wanted = mode in ("mask_prompt", "both")
        elif name == SCALE or mode == "towers":
            wanted = True
        else:
            wanted = name.startswith("visual.") and mode != "mask_prompt"
        parameter.requires_grad_(wanted)
        if wanted:
            trained.append(name)
    return trained


def make_optimizer(module: nn.Module, config: ClipTrainConfig) -> torch.optim.Optimizer:
    """Make the optimizer of a run, with one group each for the decayed, the others, and the prompt.

    Args:
        module: its trainable parameters are stepped. "adamw" decays all but biases, norms and the
            temperature; "muon" steps and decays the matrices of the transformer blocks, and leaves
            the rest to AdamW without decay.
        config: optimizer, learning rates, weight decays, and AdamW's constants.
    """
    prompt_lr = config.lr if config.prompt_lr is None else config.prompt_lr
    settings = {
        "decayed": (config.lr, config.weight_decay),
        "undecayed": (config.lr, 0.0),
        "prompt": (prompt_lr, config.prompt_weight_decay),
    }
    groups: dict[str, dict[str, Any]] = {
        kind: {"params": [], "names": [], "lr": lr, "weight_decay": decay}
        for kind, (lr, decay) in settings.items()
    }
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            group = groups[_group_of(name, parameter, config.optimizer)]
            group["params"].append(parameter)
            group["names"].append(name)
    groups = {kind: group for kind, group in groups.items() if group["params"]}
    betas = (config.beta1, config.beta2)
    if config.optimizer == "muon":
        matrices = [groups.pop("decayed")] if "decayed" in groups else []
        others = list(groups.values())
        return MuonAdamW(matrices=matrices, others=others, betas=betas, eps=config.eps)
    return torch.optim.AdamW(list(groups.values()), betas=betas, eps=config.eps)


def _group_of(name: str, parameter: Tensor, optimizer: str) -> str:
    if name == PROMPT:
        return "prompt"
    if optimizer == "muon":
        decayed = "blocks." in name and name.endswith("weight") and parameter.ndim == 2
    else:
        decayed = parameter.ndim >= 2 and not any(part in name for part in _UNDECAYED)
    return "decayed" if decayed else "undecayed"


def warmup_cosine(step: int, *, warmup: int, steps: int) -> float:
    """Factor on the learning rate: linear warm-up to 1, then a cosine to 0 at `steps`."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1)))
