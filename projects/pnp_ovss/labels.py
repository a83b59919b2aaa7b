"""From maps of classes on the patches to scores of channels at the picture's pixels.

Source: Luo et al., arXiv 2311.17095, section 3.4, in the order of the released code. A channel that
is constant comes out of scaling as zeros; in the released code it becomes NaN.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from torch import Tensor

from ovseg.modeling.views.dense_crf import (
    CRFSettings,
    has_dense_crf,
    refine_by_mean_field,
    refine_scores,
)

__all__ = [
    "BACKGROUND_POLICIES",
    "PNP_CRF",
    "POST_MODES",
    "LabelRules",
    "add_background",
    "blur",
    "crf_backend",
    "keep_salient",
    "min_max",
    "refine",
    "score_channels",
    "upsample",
]

BACKGROUND_POLICIES = ("always", "if_few", "never")
POST_MODES = ("none", "blur", "crf", "blur+crf")
PNP_CRF = CRFSettings(
    iterations=10, smooth_xy=3, smooth_weight=7, colour_xy=50, colour_rgb=5, colour_weight=10
)


@dataclass(frozen=True)
class LabelRules:
    """How maps become scores.

    Args:
        threshold: cells below it, of a map scaled from 0 to 1, are no part of the class.
        scale_01: scale each class's map after upsampling, where there are at least two.
        background: "always", "if_few" classes, or "never".
        few: "if_few" means fewer classes than this.
        post: "none", "blur", "crf" or "blur+crf".
        blur: standard deviation of the blur, over the longer side.
        crf: constants of the CRF.

    Raises:
        ValueError: an unknown policy or mode.
    """

    threshold: float = 0.15
    scale_01: bool = False
    background: str = "always"
    few: int = 3
    post: str = "blur+crf"
    blur: float = 0.05
    crf: CRFSettings = field(default=PNP_CRF)

    def __post_init__(self) -> None:
        for key, value, known in (
            ("BACKGROUND.POLICY", self.background, BACKGROUND_POLICIES),
            ("POST.MODE", self.post, POST_MODES),
        ):
            if value not in known:
                raise ValueError(f"MODEL.PNP_OVSS.{key}: expected one of {known}, got {value!r}")

    def has_background(self, classes: int) -> bool:
        """Tell whether there is a channel for the pixels that no class has."""
        return self.background == "always" or (self.background == "if_few" and classes < self.few)


def score_channels(maps: Tensor, image: np.ndarray, rules: LabelRules) -> Tensor:
    """Turn maps into scores; the largest channel of a pixel is its label.

    Args:
        maps: (K, h, w), at least 0.
        image: (H, W, 3) uint8 RGB.
        rules: how.

    Returns:
        (K, H, W) float32, or (1 + K, H, W) with the background first, where the rules have one.
    """
    kept = upsample(keep_salient(maps, rules.threshold), image.shape[:2])  # (K, H, W)
    if rules.scale_01 and len(kept) >= 2:
        kept = min_max(kept)
    channels = add_background(kept) if rules.has_background(len(kept)) else kept
    return refine(channels, image, rules)


def keep_salient(maps: Tensor, threshold: float) -> Tensor:
    """Set the cells to 0 that are low for their class; the others keep their values.

    Args:
        maps: (K, h, w).
        threshold: in [0, 1], on a scale from the map's least to its largest value.

    Returns:
        (K, h, w); nothing is kept of a constant map.
    """
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    return torch.where((maps - low) / (high - low) >= threshold, maps, 0.0)


def upsample(maps: Tensor, size: tuple[int, ...]) -> Tensor:
    """Resize maps bilinearly, corners on corners, to (H, W)."""
    return F.interpolate(maps[None], size=size, mode="bilinear", align_corners=True)[0]


def min_max(maps: Tensor) -> Tensor:
    """Scale each map from 0 to 1; a constant one becomes zeros."""
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    return torch.where(high > low, (maps - low) / (high - low), 0.0)


def add_background(maps: Tensor) -> Tensor:
    """Put a channel first that is 1 where all classes are 0, (1 + K, H, W)."""
    return torch.cat(((maps.amax(0, keepdim=True) == 0).to(maps), maps))


def blur(channels: Tensor, sigma: float) -> Tensor:
    """Blur each channel, then scale it from 0 to 1.

    Args:
        channels: (C, H, W).
        sigma: standard deviation in pixels.

    Returns:
        (C, H, W).
    """
    blurred = gaussian_filter(channels.cpu().numpy(), (0, sigma, sigma))
    return min_max(torch.from_numpy(blurred).to(channels))


def refine(channels: Tensor, image: np.ndarray, rules: LabelRules) -> Tensor:
    """Blur channels and let the picture's colours correct them, as the rules say.

    Args:
        channels: (C, H, W).
        image: (H, W, 3) uint8 RGB.
        rules: how.

    Returns:
        (C, H, W); with the CRF a distribution at every pixel.
    """
    if "blur" in rules.post:
        channels = blur(channels, rules.blur * max(image.shape[:2]))
    if "crf" in rules.post:
        infer = refine_scores if has_dense_crf() else refine_by_mean_field
        channels = infer(image, channels, rules.crf).to(channels)
    return channels


def crf_backend(rules: LabelRules) -> str:
    """Say what the CRF is computed with; "none" where there is none."""
    if "crf" not in rules.post:
        return "none"
    return "pydensecrf" if has_dense_crf() else "own"
