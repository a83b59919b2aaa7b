"""Resizing, cropping, colour, flipping and padding of pictures and their label maps.

The training recipe is MaskFormer's: shortest edge to a random size, crop, the colour changes of
SSD (Liu et al., "SSD: Single Shot MultiBox Detector", ECCV 2016), flip, pad. Every random step
takes its own numpy generator, so a sample is a function of its data and that generator alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import cv2
import numpy as np

from ovseg.utils.resizing import resize, resized_shape

__all__ = [
    "PAD_VALUE",
    "ColorAugSSD",
    "Labelled",
    "TrainTransform",
    "crop",
    "flip_horizontally",
    "pad_to_multiple",
    "random_crop",
    "random_resized_box",
]

PAD_VALUE = 128
"""Grey value of padding in training pictures."""

_MAX_CROP_ATTEMPTS = 10


class Labelled(NamedTuple):
    """A picture with its label map.

    Args:
        image: (H, W, 3) uint8 RGB.
        labels: (H, W) int32.
    """

    image: np.ndarray
    labels: np.ndarray


def crop(sample: Labelled, top: int, left: int, size: tuple[int, int]) -> Labelled:
    """Cut a window out of a picture and its labels.

    Args:
        sample: picture and labels.
        top, left: corner of the window, pixels.
        size: (height, width); the part inside the picture is returned.

    Returns:
        The window.
    """
    window = (slice(top, top + size[0]), slice(left, left + size[1]))
    return Labelled(sample.image[window], sample.labels[window])


def random_crop(
    sample: Labelled,
    size: tuple[int, int],
    rng: np.random.Generator,
    *,
    max_area: float = 1.0,
    ignore_label: int = 255,
) -> Labelled:
    """Cut a window at a uniformly random place.

    Args:
        sample: picture and labels.
        size: (height, width) of the window; it shrinks to the picture where that is smaller.
        rng: source of the place.
        max_area: below 1, draw again (up to 10 times) while one class covers more than this
            part of the labelled window.
        ignore_label: label that does not count as a class.

    Returns:
        The window.
    """
    height, width = sample.labels.shape
    size = (min(size[0], height), min(size[1], width))
    for _ in range(_MAX_CROP_ATTEMPTS):
        top = int(rng.integers(height - size[0] + 1))
        left = int(rng.integers(width - size[1] + 1))
        window = crop(sample, top, left, size)
        if max_area >= 1.0:
            break
        values, counts = np.unique(window.labels, return_counts=True)
        counts = counts[values != ignore_label]
        if len(counts) > 1 and counts.max() < counts.sum() * max_area:
            break
    return window


def random_resized_box(
    size: tuple[int, int],
    rng: np.random.Generator,
    *,
    scale: tuple[float, float],
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> tuple[int, int, int, int]:
    """Draw the part of a picture that torchvision's RandomResizedCrop would cut out.

    Args:
        size: (height, width) of the picture.
        rng: source of the choices.
        scale: (least, largest) share of the picture's area.
        ratio: (least, largest) width over height, drawn on a logarithmic scale.

    Returns:
        (left, top, right, bottom) in pixels; after ten draws that do not fit, the largest centred
        part of an allowed ratio.

    Raises:
        ValueError: a range is empty or not above 0.
    """
    for name, (low, high) in (("scale", scale), ("ratio", ratio)):
        if not 0 < low <= high:
            raise ValueError(f"expected a {name} of (least, largest) above 0, got {(low, high)}")
    height, width = size
    for _ in range(_MAX_CROP_ATTEMPTS):
        area = height * width * rng.uniform(*scale)
        aspect = np.exp(rng.uniform(np.log(ratio[0]), np.log(ratio[1])))
        w, h = round(float(np.sqrt(area * aspect))), round(float(np.sqrt(area / aspect)))
        if 0 < w <= width and 0 < h <= height:
            top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
            return left, top, left + w, top + h
    w = min(width, max(1, round(height * ratio[1])))
    h = min(height, max(1, round(width / ratio[0])))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def flip_horizontally(sample: Labelled) -> Labelled:
    """Mirror a picture and its labels left to right.

    Args:
        sample: picture and labels.

    Returns:
        The mirror image, contiguous in memory.
    """
    return Labelled(
        np.ascontiguousarray(sample.image[:, ::-1]), np.ascontiguousarray(sample.labels[:, ::-1])
    )


def pad_to_multiple(sample: Labelled, divisor: int, ignore_label: int) -> Labelled:
    """Pad at the bottom and right to the next multiple of a size.

    Args:
        sample: picture and labels.
        divisor: padded edges are multiples of this; below 2 nothing is padded.
        ignore_label: label of the padding; its colour is `PAD_VALUE`.

    Returns:
        The padded sample.
    """
    if divisor < 2:
        return sample
    height, width = sample.labels.shape
    bottom, right = -height % divisor, -width % divisor
    image = np.pad(
        sample.image, ((0, bottom), (0, right), (0, 0)), constant_values=PAD_VALUE
    )  # (H', W', 3)
    labels = np.pad(sample.labels, ((0, bottom), (0, right)), constant_values=ignore_label)
    return Labelled(image, labels)


@dataclass(frozen=True)
class ColorAugSSD:
    """Random brightness, contrast, saturation and hue, each with probability one half.

    Contrast comes either before or after saturation and hue. The ranges are those of SSD's
    released training code.

    Args:
        brightness: largest shift of all channels, in 0-255.
        contrast: (low, high) factor on all channels.
        saturation: (low, high) factor on the saturation.
        hue: largest turn of the hue, in OpenCV's half degrees (a full turn is 180).
    """

    brightness: float = 32.0
    contrast: tuple[float, float] = (0.5, 1.5)
    saturation: tuple[float, float] = (0.5, 1.5)
    hue: int = 18

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Change the colours of a picture.

        Args:
            image: (H, W, 3) uint8 RGB, left unchanged.
            rng: source of the choices.

        Returns:
            (H, W, 3) uint8 RGB.
        """
        if rng.integers(2):
            image = _affine(image, 1.0, rng.uniform(-self.brightness, self.brightness))
        contrast_first = bool(rng.integers(2))
        if contrast_first:
            image = self._contrast(image, rng)
        image = self._saturation_and_hue(image, rng)
        return image if contrast_first else self._contrast(image, rng)

    def _contrast(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return _affine(image, rng.uniform(*self.contrast), 0.0) if rng.integers(2) else image

    def _saturation_and_hue(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        factor = rng.uniform(*self.saturation) if rng.integers(2) else None
        turn = int(rng.integers(-self.hue, self.hue + 1)) if rng.integers(2) else None
        if factor is None and turn is None:
            return image
        hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)  # (H, W, 3), hue in 0..179
        if factor is not None:
            hsv[..., 1] = _affine(hsv[..., 1], factor, 0.0)
        if turn is not None:
            hsv[..., 0] = (hsv[..., 0].astype(np.int16) + turn) % 180
        return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), dtype=np.uint8)


@dataclass(frozen=True)
class TrainTransform:
    """The random changes of a training sample, in MaskFormer's order.

    Args:
        short_edges: lengths to choose the shorter edge from; with `sampling` "range" the two
            ends (both included) of the lengths.
        max_size: longest allowed edge.
        sampling: "choice" or "range".
        crop_size: (height, width) of the crop, or None for no crop.
        max_area: see `random_crop`.
        color: colour change, or None.
        flip: mirror every other sample.
        size_divisibility: see `pad_to_multiple`.
        ignore_label: label of pixels without a class.
    """

    short_edges: Sequence[int]
    max_size: int
    sampling: Literal["choice", "range"] = "choice"
    crop_size: tuple[int, int] | None = None
    max_area: float = 1.0
    color: ColorAugSSD | None = None
    flip: bool = True
    size_divisibility: int = -1
    ignore_label: int = 255

    def __post_init__(self) -> None:
        if self.sampling not in ("choice", "range"):
            raise ValueError(
                f"expected a sampling of 'choice' or 'range', got {self.sampling!r}; "
                "set INPUT.MIN_SIZE_TRAIN_SAMPLING"
            )
        wanted = 2 if self.sampling == "range" else 1
        if len(self.short_edges) < wanted or (wanted == 2 and len(self.short_edges) != 2):
            raise ValueError(
                f"expected {'two ends' if wanted == 2 else 'at least one length'} of the shorter "
                f"edge, got {tuple(self.short_edges)}; set INPUT.MIN_SIZE_TRAIN"
            )

    def __call__(self, sample: Labelled, rng: np.random.Generator) -> Labelled:
        """Change a sample at random.

        Args:
            sample: picture and labels, left unchanged.
            rng: source of all choices.

        Returns:
            The changed sample.
        """
        image, labels = sample
        height, width = labels.shape
        size = resized_shape(height, width, self._short_edge(rng), self.max_size)
        sample = Labelled(resize(image, size), resize(labels, size))
        if self.crop_size is not None:
            sample = random_crop(
                sample,
                self.crop_size,
                rng,
                max_area=self.max_area,
                ignore_label=self.ignore_label,
            )
        if self.color is not None:
            sample = sample._replace(image=self.color(np.ascontiguousarray(sample.image), rng))
        if self.flip and rng.integers(2):
            sample = flip_horizontally(sample)
        return pad_to_multiple(sample, self.size_divisibility, self.ignore_label)

    def _short_edge(self, rng: np.random.Generator) -> int:
        if self.sampling == "range":
            low, high = self.short_edges
            return int(rng.integers(low, high + 1))
        return int(self.short_edges[int(rng.integers(len(self.short_edges)))])


def _affine(values: np.ndarray, factor: float, shift: float) -> np.ndarray:
    changed = values.astype(np.float32) * np.float32(factor) + np.float32(shift)
    return np.clip(changed, 0, 255).astype(np.uint8)
