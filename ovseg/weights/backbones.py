"""Names of pretrained backbones, from the files in circulation to the model's.

Each function maps names one by one; a name that it does not know is an error, not a guess.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from ovseg.weights.load import WeightsError

BACKBONE = "backbone."
# The classifier and its norm are not part of the backbone; the mask is computed.
_SWIN_DROPPED = re.compile(r"norm\.|head\.|.*\.attn_mask$")
_SWIN_KNOWN = re.compile(r"patch_embed\.|absolute_pos_embed$|layers\.\d+\.(blocks|downsample)\.")
_RESNET_DROPPED = re.compile(r"(stem\.)?(fc|linear)\.|.*\.num_batches_tracked$")
_RESNET_KNOWN = re.compile(
    r"(stem|res[2-5]\.\d+)\.(conv[123]|shortcut)"
    r"\.(weight|norm\.(weight|bias|running_mean|running_var))$"
)
_TORCHVISION_RENAMES = (
    (re.compile(r"^(?=conv|bn|fc)"), "stem."),
    (re.compile(r"^layer(\d)\."), lambda match: f"res{int(match[1]) + 1}."),
    (re.compile(r"\bbn(\d)\."), r"conv\1.norm."),
    (re.compile(r"\bdownsample\.0\."), "shortcut."),
    (re.compile(r"\bdownsample\.1\."), "shortcut.norm."),
)


@dataclass(frozen=True)
class Conversion:
    """Renamed tensors, and the names that were left out.

    Args:
        state: tensors under the model's names.
        dropped: names of the file that the model has no place for.
    """

    state: dict[str, Tensor]
    dropped: tuple[str, ...]


def convert_swin(state: Mapping[str, Tensor]) -> Conversion:
    """Map the names of an official Swin Transformer checkpoint.

    Args:
        state: tensors by the names of the Swin release.

    Returns:
        The tensors under "backbone."; the norms of the four outputs (norm0..norm3) are not in such
        a file and stay as initialised.

    Raises:
        WeightsError: if a name does not belong to a Swin Transformer.
    """
    return _convert(state, _SWIN_KNOWN, _SWIN_DROPPED, kind="Swin Transformer")


def convert_resnet(state: Mapping[str, Tensor]) -> Conversion:
    """Map the names of a ResNet, in Detectron2's naming (R-103.pkl) or torchvision's.

    Args:
        state: tensors by either naming.

    Returns:
        The tensors under "backbone." in Detectron2's naming.

    Raises:
        WeightsError: if a name does not belong to a ResNet.
    """
    return _convert(state, _RESNET_KNOWN, _RESNET_DROPPED, kind="ResNet", rename=_from_torchvision)


def _from_torchvision(name: str) -> str:
    for pattern, replacement in _TORCHVISION_RENAMES:
        name = pattern.sub(replacement, name)
    return name


def _convert(
    state: Mapping[str, Tensor],
    known: re.Pattern[str],
    dropped: re.Pattern[str],
    *,
    kind: str,
    rename: Callable[[str], str] = str,
) -> Conversion:
    names = {name: rename(name) for name in state}
    kept = [name for name in state if not dropped.match(names[name])]
    strange = [name for name in kept if not known.match(names[name])]
    if strange or not kept:
        raise WeightsError(
            f"expected the weights of a {kind}, got {len(strange)} of {len(state)} names that are "
            f"none of it: {', '.join(strange[:6])}"
        )
    return Conversion(
        state={BACKBONE + names[name]: state[name] for name in kept},
        dropped=tuple(name for name in state if dropped.match(names[name])),
    )
