"""From embedded patches to scores per pixel: framing, placing, background.

Source: Mukhoti et al., CVPR 2023, section 5 and appendix: patches that overlap at inference only
(stride 4), bilinear upsampling, pixels of high entropy as background.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ovseg.d2.config import CfgNode
from ovseg.modeling import DensePrediction

__all__ = ["BACKGROUNDS", "InferenceSettings", "PatchGrid", "class_entropy", "score_pixels"]

BACKGROUNDS = ("ignore", "entropy")
_BAND_ROWS = 64


@dataclass(frozen=True)
class PatchGrid:
    """Where the patches of a picture lie in what the encoder saw.

    Args:
        size: (h, w) of the picture in it, pixels.
        padded_size: (h, w) of what the encoder saw, with padding at the bottom and right.
        patch_size: side of a patch, pixels.
        stride: step between patches, pixels.
        exact: put each patch's value at the patch's centre. Else the grid is stretched over the
            whole, which moves values by up to half of a patch less half of a stride.
    """

    size: tuple[int, int]
    padded_size: tuple[int, int]
    patch_size: int
    stride: int
    exact: bool = False

    def place(self, maps: Tensor) -> Tensor:
        """Brings maps of the patches onto the picture.

        Args:
            maps: (K, h', w'), one value per patch.

        Returns:
            (K, h, w) of any resolution that, resized, covers the picture exactly: the grid itself
            where it is stretched and nothing was padded, else one value per pixel.
        """
        if self.exact:
            return self._place_exactly(maps)
        if self.size == self.padded_size:
            return maps
        resized = F.interpolate(maps[None], self.padded_size, mode="bilinear")[0]
        return resized[:, : self.size[0], : self.size[1]]

    def _place_exactly(self, maps: Tensor) -> Tensor:
        axes = []
        for pixels, count in zip(self.size, maps.shape[1:], strict=True):
            centres = torch.arange(pixels, device=maps.device) + 0.5
            patch = (centres - self.patch_size / 2) / self.stride  # in [.., count - 1], fractional
            axes.append(2 * patch / max(count - 1, 1) - 1)
        rows, columns = torch.meshgrid(*axes, indexing="ij")
        points = torch.stack([columns, rows], dim=-1)[None].to(maps.dtype)  # (1, h, w, 2)
        return F.grid_sample(maps[None], points, padding_mode="border", align_corners=True)[0]


@dataclass(frozen=True)
class InferenceSettings:
    """How pictures are segmented.

    Args:
        input_size: side of the square that a picture becomes; None keeps its size.
        stride: step between patches in pixels; None for the encoder's own.
        exact_placement: see `PatchGrid`.
        background: "ignore" gives every pixel a class. "entropy" gives those above the threshold
            the background class of the vocabulary, which is then not compared with, or no class.
        entropy_threshold: in nats.
        logit_scale: on cosines before the softmax over classes; None takes the trained one.

    Raises:
        ValueError: a value is out of range.
    """

    input_size: int | None = 224
    stride: int | None = 4
    exact_placement: bool = False
    background: str = "ignore"
    entropy_threshold: float = 1.5
    logit_scale: float | None = 100.0

    def __post_init__(self) -> None:
        if self.background not in BACKGROUNDS:
            raise ValueError(
                f"MODEL.PACL.TEST.BACKGROUND: expected one of {BACKGROUNDS}, got "
                f"{self.background!r}"
            )
        numbers = {
            "INPUT_SIZE": self.input_size,
            "PATCH_STRIDE": self.stride,
            "LOGIT_SCALE": self.logit_scale,
        }
        for name, value in numbers.items():
            if value is not None and value <= 0:
                raise ValueError(f"MODEL.PACL.TEST.{name}: expected at least 0, got {value}")

    @classmethod
    def from_config(cls, cfg: CfgNode) -> InferenceSettings:
        """Reads MODEL.PACL.TEST.

        Args:
            cfg: full configuration.

        Returns:
            The settings.
        """
        test = cfg.MODEL.PACL.TEST
        return cls(
            input_size=test.INPUT_SIZE or None,
            stride=test.PATCH_STRIDE or None,
            exact_placement=test.EXACT_PLACEMENT,
            background=test.BACKGROUND,
            entropy_threshold=test.ENTROPY_THR,
            logit_scale=test.LOGIT_SCALE or None,
        )

    def protocol(self) -> dict[str, str | int | float | bool]:
        """States them for the protocol of a result."""
        stated: dict[str, str | int | float | bool] = {
            "input_size": self.input_size or "as it is",
            "patch_stride": self.stride or "patch size",
            "exact_placement": self.exact_placement,
            "background": self.background,
        }
        if self.background == "entropy":
            stated["entropy_threshold"] = float(self.entropy_threshold)
            stated["logit_scale"] = self.logit_scale or "trained"
        return stated

    def frame(self, image: Tensor, patch_size: int) -> tuple[Tensor, PatchGrid]:
        """Makes of a picture what the encoder sees.

        Args:
            image: (3, h, w) float, normalised.
            patch_size: side of a patch, pixels.

        Returns:
            (3, H, W): the square, by bicubic interpolation with antialiasing, or the picture
            itself, padded with the mean colour to whole patches; and where its patches lie.
        """
        size = (image.shape[1], image.shape[2])
        if self.input_size is not None:
            size = (self.input_size, self.input_size)
            if image.shape[1:] != size:
                image = F.interpolate(image[None], size, mode="bicubic", antialias=True)[0]
        bottom, right = -size[0] % patch_size, -size[1] % patch_size
        if self.input_size is None:
            image = F.pad(image, (0, right, 0, bottom))
        # What lies beyond the last whole patch is not seen; it counts as covered by its neighbours.
        grid = PatchGrid(
            size=size,
            padded_size=(image.shape[1], image.shape[2]),
            patch_size=patch_size,
            stride=self.stride or patch_size,
            exact=self.exact_placement,
        )
        return image, grid


def class_entropy(scores: Tensor) -> Tensor:
    """Computes the entropy of the softmax over classes.

    Args:
        scores: (..., K) logits.

    Returns:
        (...) in nats, from 0 to ln K.
    """
    logs = scores.log_softmax(-1)
    return -(logs.exp() * logs).sum(-1)


def score_pixels(
    cosines: Tensor,
    output_size: tuple[int, int],
    *,
    settings: InferenceSettings,
    scale: float,
    background: int | None = None,
) -> DensePrediction:
    """Makes a prediction of the cosines of patches and classes.

    Args:
        cosines: (K, h, w).
        output_size: the requested (H, W).
        settings: say what becomes of pixels at which no class stands out.
        scale: what makes logits of cosines.
        background: index of the class for everything else, if the vocabulary has one.

    Returns:
        The prediction.
    """
    plain = DensePrediction(cosines, output_size, logit_scale=scale)
    if settings.background == "ignore":
        return plain
    others = [k for k in range(len(cosines)) if k != background]
    blank = torch.empty(output_size, dtype=torch.bool, device=cosines.device)
    full = replace(plain, scores=cosines[others])
    for band, values in full.bands(_BAND_ROWS):
        blank[band] = class_entropy(scale * values) > settings.entropy_threshold
    if background is None:
        return replace(plain, blank=blank)
    # The background beats every cosine where it is, and is beaten elsewhere: at full size, so that
    # no resizing moves its edge.
    scores = torch.empty(len(cosines), *output_size, device=cosines.device)
    scores[others] = full.sem_seg()
    scores[background] = blank.float() * 2 - 1
    return replace(plain, scores=scores)
