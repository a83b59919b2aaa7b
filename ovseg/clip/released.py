"""Weights that open_clip knows by a tag, and the activation that they were trained with."""

from __future__ import annotations

from pathlib import Path

from open_clip import download_pretrained, get_pretrained_cfg, list_pretrained_tags_by_model

from ovseg.clip.build import OPENAI_NAMES, clip_config
from ovseg.d2.utils import comm

__all__ = ["OPEN_CLIP", "released_weights"]

OPEN_CLIP = "open_clip:"  # before a tag, in place of a file


def released_weights(name: str, tag: str) -> Path:
    """Find the weights that open_clip releases for a model; one process downloads them.

    Args:
        name: of the CLIP, as for `build_clip`.
        tag: one of `open_clip.list_pretrained_tags_by_model`, such as "metaclip_fullcc".

    Returns:
        The local file.

    Raises:
        ValueError: there is no such tag, or the model of this name has another activation than the
            weights were trained with (QuickGELU or GELU): it would answer, but worse.
    """
    known = OPENAI_NAMES.get(name, name)
    released = get_pretrained_cfg(known, tag)
    if not released:
        tags = ", ".join(list_pretrained_tags_by_model(known)) or "none"
        raise ValueError(
            f"expected a tag of {known} after {OPEN_CLIP!r}, got {tag!r}; open_clip has: {tags}"
        )
    needed = bool(released.get("quick_gelu", False))
    if needed != bool(clip_config(name).get("quick_gelu", False)):
        plain = known.removesuffix("-quickgelu")
        kind, other = ("QuickGELU", f"{plain}-quickgelu") if needed else ("GELU", plain)
        raise ValueError(
            f"expected a model with {kind}, which {tag} was trained with, got {name!r}; "
            f"write {other!r}"
        )
    if comm.is_main_process():
        download_pretrained(released)
    comm.synchronize()
    return Path(download_pretrained(released))
