"""A CLIP together with its weights, wherever they lie."""

from __future__ import annotations

from ovseg.clip.build import build_clip
from ovseg.clip.mask_prompt import MaskPromptedCLIP
from ovseg.clip.released import OPEN_CLIP, released_weights
from ovseg.weights.clip import MASK_EMBEDDING, load_clip_state
from ovseg.weights.find import RANDOM, find_weights
from ovseg.weights.load import load_strict


def load_clip(name: str, weights: str = "", *, mask_prompt_depth: int = 0) -> MaskPromptedCLIP:
    """Build a CLIP and load its weights strictly.

    Args:
        name: see `build_clip`.
        weights: name in the catalogue, path or address, in any format that `load_clip_state` reads
            (an OVSeg checkpoint, too: its CLIP is taken); "open_clip:TAG" for those that open_clip
            has by a tag, such as "open_clip:metaclip_fullcc"; "" and "random" for random ones.
        mask_prompt_depth: number of prompted layers; weights that hold a mask prompt bring their
            own.

    Returns:
        The model, in training mode.

    Raises:
        ValueError: the name or the tag is not known, or they do not belong together.
        WeightsError: the weights do not fit.
    """
    if weights in ("", RANDOM):
        return build_clip(name, mask_prompt_depth=mask_prompt_depth)
    if weights.startswith(OPEN_CLIP):
        file = released_weights(name, weights.removeprefix(OPEN_CLIP))
    else:
        file = find_weights(weights)
    state = load_clip_state(file)
    depth = len(state.get(MASK_EMBEDDING, range(mask_prompt_depth)))
    clip = build_clip(name, mask_prompt_depth=depth)
    load_strict(clip, state, recomputable=(MASK_EMBEDDING,))
    return clip
