"""Putting an adapted CLIP into an OVSeg checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from ovseg.weights.clip import CLIP_IN_OVSEG, MASK_EMBEDDING
from ovseg.weights.load import WeightsError


@dataclass(frozen=True)
class Replacement:
    """A checkpoint with another CLIP, and what happened on the way.

    Args:
        state: the whole checkpoint by name.
        replaced: names in the checkpoint that now hold the adapted CLIP's tensors.
        kept: names of CLIP in the checkpoint that the adapted CLIP does not have.
        mask_prompt_depth: number of mask prompts of the result, 0 if it has none.
        mask_prompt_fwd: what MODEL.CLIP_ADAPTER.MASK_PROMPT_FWD should be.
    """

    state: dict[str, Tensor]
    replaced: tuple[str, ...]
    kept: tuple[str, ...]
    mask_prompt_depth: int
    mask_prompt_fwd: bool


def replace_clip(
    ovseg_state: Mapping[str, Tensor], clip_state: Mapping[str, Tensor]
) -> Replacement:
    """Replace the CLIP of an OVSeg checkpoint by an adapted one.

    The mask prompt is used in the result only if the adapted CLIP brings one that was trained: the
    checkpoint's own belongs to the CLIP that was there before.

    Args:
        ovseg_state: the checkpoint, by name.
        clip_state: the adapted CLIP under OpenAI's names, as `load_clip_state` gives it.

    Returns:
        The new checkpoint and a report; no tensor is shared with a cast one.

    Raises:
        WeightsError: if the checkpoint has no CLIP or one of another architecture.
    """
    inside = {
        name.removeprefix(CLIP_IN_OVSEG): tensor
        for name, tensor in ovseg_state.items()
        if name.startswith(CLIP_IN_OVSEG)
    }
    if not inside:
        raise WeightsError(
            f"expected an OVSeg checkpoint with tensors under {CLIP_IN_OVSEG}*, got none; its "
            f"first names are {', '.join(list(ovseg_state)[:4])}"
        )
    problems = [
        f"{name}: the checkpoint has {_shape(inside.get(name))}, the adapted CLIP {_shape(tensor)}"
        for name, tensor in clip_state.items()
        if name != MASK_EMBEDDING and (name not in inside or inside[name].shape != tensor.shape)
    ]
    if problems:
        raise WeightsError(
            "expected a CLIP of the architecture that the checkpoint has (OVSeg with Swin-B has "
            "ViT-L/14, with R101c ViT-B/16), but:\n  " + "\n  ".join(problems[:20])
        )
    state = dict(ovseg_state)
    for name, tensor in clip_state.items():
        dtype = inside[name].dtype if name in inside else tensor.dtype
        state[CLIP_IN_OVSEG + name] = tensor.to(dtype)
    prompt = clip_state.get(MASK_EMBEDDING)
    final = state.get(CLIP_IN_OVSEG + MASK_EMBEDDING)
    return Replacement(
        state=state,
        replaced=tuple(CLIP_IN_OVSEG + name for name in clip_state),
        kept=tuple(CLIP_IN_OVSEG + name for name in inside if name not in clip_state),
        mask_prompt_depth=0 if final is None else final.shape[0],
        mask_prompt_fwd=prompt is not None and bool(prompt.count_nonzero()),
    )


def _shape(tensor: Tensor | None) -> str:
    return "nothing" if tensor is None else str(tuple(tensor.shape))
