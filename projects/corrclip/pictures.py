"""The picture behind an input of the model, and its regions.

An input can be a picture, resized for the network; a mirror image of it; or a tile. Regions are
those of the whole picture at its own size, made once, and cut and mirrored as the input is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ovseg.modeling.views.view import original_image, output_size_of
from ovseg.projects.corrclip.correlation import resize_ids
from ovseg.projects.corrclip.regions import RegionSource
from ovseg.utils.resizing import resize

__all__ = ["InputRegions", "is_tile", "seen_picture"]

Input = Mapping[str, Any]


def is_tile(x: Input) -> bool:
    """Whether an input is a part of a picture that was resized."""
    return tuple(x.get("whole_size", x["image"].shape[1:])) != tuple(x["image"].shape[1:])


def seen_picture(x: Input) -> np.ndarray:
    """What an input shows, as sharply as it can be had.

    Args:
        x: an input of the model.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    if is_tile(x):
        return original_image({"image": x["image"]})
    picture = original_image(x)
    own = "original" in x or "file_name" in x
    return np.ascontiguousarray(picture[:, ::-1]) if own and x.get("mirrored") else picture


class InputRegions:
    """Regions of inputs, from a source of regions of pictures.

    Those of the last picture are kept, by its content, for its other tiles and scales.

    Args:
        source: makes the regions of a whole picture at its own size.
    """

    def __init__(self, source: RegionSource) -> None:
        self.source = source
        self._last: tuple[str, np.ndarray] = ("", np.zeros((0, 0), np.int32))

    def __call__(self, x: Input) -> Tensor:
        """Find the regions of an input.

        Args:
            x: an input of the model.

        Returns:
            (h, w) int32, 0 for no region; of the whole picture's size, or of a tile's.

        Raises:
            RegionError: the source has none for this picture.
        """
        known = "original" in x or "file_name" in x
        size = output_size_of(x)
        if getattr(self.source, "needs_pixels", True) or is_tile(x):
            picture = original_image(x)
            picture = picture if known else resize(picture, size)
        else:
            picture = np.broadcast_to(np.uint8(0), (*size, 3))  # only its size is looked at
        ids = torch.from_numpy(self._of_picture(picture, str(x.get("image_id", ""))))
        if known and x.get("mirrored"):
            ids = ids.flip(1)
        if not known or not is_tile(x):
            return ids
        top, left = x["offset"]
        height, width = x["image"].shape[1:]
        return resize_ids(ids, x["whole_size"])[top : top + height, left : left + width]

    def _of_picture(self, picture: np.ndarray, image_id: str) -> np.ndarray:
        digest = hashlib.sha256(np.ascontiguousarray(picture).data).hexdigest()
        key = f"{picture.shape} {digest} {image_id}"
        if self._last[0] != key:
            self._last = (key, np.ascontiguousarray(self.source(picture, image_id), np.int32))
        return self._last[1]
