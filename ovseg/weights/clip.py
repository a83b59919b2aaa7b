"""CLIP weights from every format in use, under OpenAI's names.

Understood are OpenAI's TorchScript archives and state dicts, open_clip's state dicts of both model
classes, fine-tuned CLIPs (`{"state_dict": ...}`, with and without "module."), and the CLIP inside
an OVSeg checkpoint; in float32 or float16.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from ovseg.weights.load import WeightsError, read_state_dict

CLIP_IN_OVSEG = "clip_adapter.clip_model."
MASK_EMBEDDING = "visual.mask_embedding"

_REQUIRED = ("visual.conv1.weight", "token_embedding.weight", "text_projection", "logit_scale")
# In OpenAI's archives: three numbers about the architecture. `attn_mask` is the causal mask, which
# the model makes itself.
_NOT_WEIGHTS = ("input_resolution", "context_length", "vocab_size", "attn_mask")
_OTHER_KINDS = {
    "visual.layer1.": "a ResNet CLIP; the mask prompt exists only for Vision Transformers",
    "visual.trunk.": "a timm image tower",
    "vision_model.": "in the naming of Hugging Face transformers; get the original file",
    "logit_bias": "a SigLIP model",
}


def load_clip_state(path: str | Path, *, allow_pickle: bool = False) -> dict[str, Tensor]:
    """Read a CLIP from a file of any known format.

    Args:
        path: the file.
        allow_pickle: read plain pickles, too; see `read_state_dict`.

    Returns:
        The tensors under OpenAI's names, plus "visual.mask_embedding" if the file has it, in the
        file's dtypes.

    Raises:
        WeightsError: if the file cannot be read or does not hold a CLIP with a Vision Transformer.
    """
    return canonical_clip_state(read_state_dict(path, allow_pickle=allow_pickle), source=str(path))


def canonical_clip_state(state: Mapping[str, Tensor], *, source: str) -> dict[str, Tensor]:
    """Bring the state dict of a CLIP to OpenAI's names.

    Args:
        state: tensors by name, without a container around them.
        source: what to call it in an error.

    Returns:
        The tensors by OpenAI's names.

    Raises:
        WeightsError: if it is not a CLIP with a Vision Transformer.
    """
    if any(name.startswith(CLIP_IN_OVSEG) for name in state):
        state = {
            name.removeprefix(CLIP_IN_OVSEG): tensor
            for name, tensor in state.items()
            if name.startswith(CLIP_IN_OVSEG)
        }
    for prefix, kind in _OTHER_KINDS.items():
        if any(name.startswith(prefix) for name in state):
            raise WeightsError(f"expected a CLIP with a Vision Transformer, got in {source} {kind}")
    canonical: dict[str, Tensor] = {}
    for name, tensor in state.items():
        name = name.removeprefix("text.")  # open_clip's CustomTextCLIP keeps the text tower apart
        if name == "text_projection.weight":  # there a Linear, whose weight is the transpose
            name, tensor = "text_projection", tensor.t().contiguous()
        elif name == "logit_scale":
            tensor = tensor.reshape(())
        if name.rpartition(".")[2] not in _NOT_WEIGHTS:
            canonical[name] = tensor
    missing = [name for name in _REQUIRED if name not in canonical]
    if missing:
        raise WeightsError(
            f"expected a CLIP in {source}, but it has no {', '.join(missing)}; its first names are "
            f"{', '.join(list(state)[:4])}"
        )
    return canonical
