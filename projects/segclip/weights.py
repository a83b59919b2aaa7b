"""Checkpoints of SegCLIP, and a SegCLIP from a CLIP and back.

The released checkpoint (`segclip.bin`) is the state dict of the whole model, 415 tensors; the names
here are the same.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from torch import Tensor, nn

from ovseg.projects.segclip.parameters import RECONSTRUCTION
from ovseg.weights.clip import MASK_EMBEDDING, canonical_clip_state
from ovseg.weights.load import WeightsError, as_state_dict, load_strict

# Read in training only: an evaluation does not miss it.
TRAINING_ONLY = tuple(f"{prefix}*" for prefix in RECONSTRUCTION)
# Two thirds of a miniature's weights, and never trained.
TOKENS = "clip.token_embedding.weight"
_CLIP_BLOCK = re.compile(r"visual\.transformer\.resblocks\.(\d+)\.")
_OUR_BLOCK = re.compile(r"visual\.transformer\.layers([02])\.(\d+)\.")


def load_checkpoint(
    model: nn.Module,
    state_or_path: Mapping[str, Tensor] | str | Path,
    *,
    to_train: bool = False,
    has_tokens: bool = False,
    allow_pickle: bool = False,
) -> None:
    """Loads a SegCLIP, strictly.

    Args:
        model: a `SegCLIP`.
        state_or_path: a state dict or a file, see `as_state_dict`.
        to_train: training starts from it: all 415 tensors must be there, or a CLIP, whose parts
            are taken. For an evaluation what only training reads may be missing.
        has_tokens: the model holds the embedding of CLIP's tokens already, so that it may be
            missing for an evaluation.
        allow_pickle: see `as_state_dict`.

    Raises:
        WeightsError: names or shapes do not fit; the message lists them.
    """
    state = as_state_dict(state_or_path, allow_pickle=allow_pickle)
    if not _holds_clip(state):
        spare = (*TRAINING_ONLY, TOKENS) if has_tokens else TRAINING_ONLY
        load_strict(model, state, recomputable=() if to_train else spare)
        return
    if not to_train:
        raise WeightsError(
            "expected a checkpoint of SegCLIP, got a CLIP, whose patches are in no groups; train "
            "it: tools/train_net.py with MODEL.CLIP_ADAPTER.CLIP_WEIGHTS"
        )
    clip = canonical_clip_state(state, source="the weights to start from")
    clip.pop(MASK_EMBEDDING, None)
    first_stage = cast(nn.ModuleList, model.get_submodule("clip.visual.transformer.layers0"))
    taken = from_clip(clip, first_stage=len(first_stage))
    own = {name: tensor for name, tensor in model.state_dict().items() if name not in taken}
    load_strict(model, {**own, **taken})


def from_clip(state: Mapping[str, Tensor], *, first_stage: int = 10) -> dict[str, Tensor]:
    """Renames the tensors of a CLIP to those of a SegCLIP.

    Args:
        state: of a CLIP, under OpenAI's names.
        first_stage: blocks on patches.

    Returns:
        The same tensors.
    """

    def rename(match: re.Match[str]) -> str:
        number = int(match[1])
        stage, place = (0, number) if number < first_stage else (2, number - first_stage)
        return f"visual.transformer.layers{stage}.{place}."

    return {"clip." + _CLIP_BLOCK.sub(rename, name): tensor for name, tensor in state.items()}


def to_clip(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Renames the tensors of a SegCLIP to those of a CLIP, which then holds its trained towers.

    The towers of a SegCLIP are not used as CLIP uses them: blocks on groups saw no patches.

    Args:
        state: of a SegCLIP, as released.

    Returns:
        The tensors that a CLIP has, under OpenAI's names, and the names of the others.
    """
    numbers = [
        int(match[2]) for match in map(_OUR_BLOCK.search, state) if match and match[1] == "0"
    ]
    first_stage = max(numbers, default=-1) + 1

    def rename(match: re.Match[str]) -> str:
        number = int(match[2]) + (first_stage if match[1] == "2" else 0)
        return f"visual.transformer.resblocks.{number}."

    taken, others = {}, []
    for name, tensor in state.items():
        plain = _OUR_BLOCK.sub(rename, name)
        new = ".layers_mae2." in name or ".semantic_layer2." in name or ".reconstruct_" in name
        if name.startswith("clip.") and not new:
            taken[plain.removeprefix("clip.")] = tensor
        else:
            others.append(name)
    return taken, others


def for_evaluation(state: Mapping[str, Tensor], *, tokens: bool = True) -> dict[str, Tensor]:
    """Leaves out of a SegCLIP's state what only training reads.

    Args:
        state: of a `SegCLIP`.
        tokens: keep the embedding of CLIP's tokens, which MODEL.SEGCLIP.TOKENS_OF_CLIP makes spare.

    Returns:
        The rest of the tensors.
    """
    spare = RECONSTRUCTION if tokens else (*RECONSTRUCTION, TOKENS)
    return {name: tensor for name, tensor in state.items() if not name.startswith(spare)}


def _holds_clip(state: Mapping[str, Tensor]) -> bool:
    if any(name.startswith("clip.visual.") for name in state):
        return False
    try:
        canonical_clip_state(state, source="the state dict")
    except WeightsError:
        return False
    return True
