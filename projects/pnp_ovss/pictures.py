"""Pictures as the matcher and CLIP take them: squares, whatever the shape was."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

__all__ = ["INTERPOLATIONS", "squash", "to_picture"]

INTERPOLATIONS = ("bicubic", "bilinear")


def to_picture(image: Tensor) -> np.ndarray:
    """Turn a model input into a picture.

    Args:
        image: (3, H, W), 0-255.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    return image.round().clamp(0, 255).byte().permute(1, 2, 0).contiguous().cpu().numpy()


def squash(picture: np.ndarray, side: int, interpolation: str = "bicubic") -> Tensor:
    """Resize a picture to a square, without regard to its shape.

    Args:
        picture: (H, W, 3) uint8 RGB.
        side: of the square.
        interpolation: "bicubic" or "bilinear", antialiased.

    Returns:
        (3, side, side) float32, 0-255.

    Raises:
        ValueError: an unknown interpolation.
    """
    if interpolation not in INTERPOLATIONS:
        raise ValueError(
            f"MODEL.PNP_OVSS.ITM.INTERPOLATION: expected one of {INTERPOLATIONS}, got "
            f"{interpolation!r}"
        )
    method = Image.Resampling[interpolation.upper()]
    resized = np.array(Image.fromarray(picture).resize((side, side), method))
    return torch.from_numpy(resized.transpose(2, 0, 1)).float()
