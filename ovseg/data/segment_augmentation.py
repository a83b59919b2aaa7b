"""Segments that look like nothing in the training set, so that masks do not depend on classes.

A mask generator that has only seen the segments of its training classes breaks other textures into
pieces. So some segments get other colours or a random texture, and random shapes are pasted; each
is a segment with a mask, but belongs to no class any more. No class list is asked; an ignored pixel
stays ignored, unless a pasted shape covers it.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ovseg.data.transforms import Labelled

__all__ = ["FREE_LABEL", "SegmentAugmentation", "random_shape", "random_texture"]

FREE_LABEL = 100_000
"""Labels from here on are segments without a class, one each."""

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class SegmentAugmentation:
    """Changes the look of some segments and pastes shapes.

    Args:
        changed: chance of each segment to be changed, in [0, 1].
        pasted: shapes that are pasted at most.
        ignore_label: label of pixels that are no segment.

    Raises:
        ValueError: a number is out of range.
    """

    changed: float = 0.3
    pasted: int = 2
    ignore_label: int = 255

    def __post_init__(self) -> None:
        if not 0 <= self.changed <= 1 or self.pasted < 0:
            raise ValueError(
                "INPUT.SEGMENT_AUG: expected CHANGED in [0, 1] and PASTED of at least 0, got "
                f"{self.changed} and {self.pasted}"
            )

    def __call__(self, sample: Labelled, rng: np.random.Generator) -> Labelled:
        """Change a sample at random.

        Args:
            sample: picture and labels, left unchanged.
            rng: source of all choices.

        Returns:
            The changed sample; its labels are those of the input or, from `FREE_LABEL` on, new.
        """
        image, labels = sample.image.copy(), sample.labels.copy()
        fresh = FREE_LABEL
        for label in np.unique(sample.labels).tolist():
            if label == self.ignore_label or rng.random() >= self.changed:
                continue
            segment = sample.labels == label
            if rng.random() < 0.5:
                image[segment] = _other_colours(image[segment], rng)
            else:
                image[segment] = _textured(image, segment, rng)[segment]
            labels[segment] = fresh
            fresh += 1
        for _ in range(int(rng.integers(self.pasted + 1))):
            shape = random_shape((labels.shape[0], labels.shape[1]), rng)
            _paint_object(image, shape, rng)
            labels[shape] = fresh
            fresh += 1
        return Labelled(image, labels)


def random_shape(size: tuple[int, int], rng: np.random.Generator) -> NDArray[np.bool_]:
    """Draw a blob, a star or a box.

    Args:
        size: (height, width).
        rng: source of all choices.

    Returns:
        (height, width) bool with at least one pixel.
    """
    corners = int(rng.integers(3, 13))
    angles = np.sort(rng.uniform(0, 2 * np.pi, corners)) if rng.random() < 0.5 else None
    if angles is None:
        angles = np.arange(corners) * 2 * np.pi / corners
    radius = min(size) * rng.uniform(0.06, 0.25)
    radii = radius * rng.uniform(rng.uniform(0.3, 1.0), 1.0, corners)
    turn, stretch = rng.uniform(0, 2 * np.pi), rng.uniform(0.5, 2.0)
    points = np.stack((radii * np.cos(angles), radii * np.sin(angles) * stretch), axis=1)
    cosine, sine = np.cos(turn), np.sin(turn)
    points = points @ np.array([[cosine, sine], [-sine, cosine]])
    points += rng.uniform(0, 1, 2) * (size[1] - 1, size[0] - 1)
    if rng.random() < 0.5:
        points = _rounded(points)
    mask = np.zeros(size, dtype=np.uint8)
    cv2.fillPoly(mask, [np.round(points).astype(np.int32)], 1)
    x, y = np.clip(np.round(points.mean(0)).astype(int), 0, (size[1] - 1, size[0] - 1))
    mask[y, x] = 1
    return mask.astype(np.bool_)


def random_texture(size: tuple[int, int], rng: np.random.Generator) -> Image:
    """Draw stripes, waves, checks, dots or clouds in two colours, with a little noise.

    Args:
        size: (height, width).
        rng: source of all choices.

    Returns:
        (height, width, 3) uint8.
    """
    y, x = np.mgrid[: size[0], : size[1]].astype(np.float32)
    angle, period = rng.uniform(0, np.pi), rng.uniform(3, 24)
    u = (np.cos(angle) * x + np.sin(angle) * y) * np.float32(2 * np.pi / period)
    v = (-np.sin(angle) * x + np.cos(angle) * y) * np.float32(
        2 * np.pi / (period * rng.uniform(0.5, 2))
    )
    kind = int(rng.integers(6))
    if kind == 0:
        pattern = np.sin(u)  # stripes
    elif kind == 1:
        pattern = np.sin(u + rng.uniform(0.5, 2) * np.sin(v))  # waves
    elif kind == 2:
        pattern = np.sin(u) * np.sin(v)  # checks
    elif kind == 3:
        pattern = np.minimum(np.cos(u), np.cos(v)) + rng.uniform(0, 0.8)  # a grid, or dots
    elif kind == 4:
        pattern = _clouds(size, rng)
    else:
        pattern = np.zeros(size, dtype=np.float32)  # flat
    sharpness = rng.uniform(0.7, 6)
    mix = 0.5 + 0.5 * np.tanh(sharpness * pattern)[..., None]
    first, second = rng.uniform(0, 255, (2, 3)).astype(np.float32)
    second = first + (second - first) * np.float32(rng.uniform(0.1, 1))
    noise = rng.standard_normal(size, dtype=np.float32)[..., None] * np.float32(rng.uniform(0, 14))
    return np.clip(first + (second - first) * mix + noise, 0, 255).astype(np.uint8)


def _paint_object(image: Image, shape: NDArray[np.bool_], rng: np.random.Generator) -> None:
    """Fills a shape in place: one texture, parts in others, at times a dark outline."""
    size = (shape.shape[0], shape.shape[1])
    rows, columns = np.flatnonzero(shape.any(1)), np.flatnonzero(shape.any(0))
    top, left = int(rows[0]), int(columns[0])
    height, width = int(rows[-1]) - top + 1, int(columns[-1]) - left + 1
    image[shape] = random_texture(size, rng)[shape]
    for _ in range(int(rng.integers(4))):
        part = np.zeros(size, dtype=np.bool_)
        detail = random_shape((2 * height, 2 * width), rng)
        y, x = int(rng.integers(height + 1)), int(rng.integers(width + 1))
        part[top : top + height, left : left + width] = detail[y : y + height, x : x + width]
        part &= shape
        image[part] = rng.integers(0, 256, 3)
    if rng.random() < 0.3:
        inner = cv2.erode(shape.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        image[shape & ~inner] = rng.integers(0, 60, 3)


def _clouds(size: tuple[int, int], rng: np.random.Generator) -> NDArray[np.float32]:
    """Smooth noise of two scales, around 0."""
    total = np.zeros(size, dtype=np.float32)
    for cells in (int(rng.integers(3, 10)), int(rng.integers(10, 40))):
        coarse = rng.standard_normal((cells, cells), dtype=np.float32)
        total += cv2.resize(coarse, (size[1], size[0]), interpolation=cv2.INTER_CUBIC)
    return total


def _rounded(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cuts the corners of a closed polygon off, twice (Chaikin 1974)."""
    for _ in range(2):
        following = np.roll(points, -1, axis=0)
        points = np.stack((0.75 * points + 0.25 * following, 0.25 * points + 0.75 * following), 1)
        points = points.reshape(-1, 2)
    return points


def _other_colours(pixels: Image, rng: np.random.Generator) -> Image:
    """Turns the colour space of pixels (N, 3) around their mean, which moves elsewhere."""
    values = pixels.astype(np.float32)
    mean = values.mean(0)
    turn = np.linalg.qr(rng.standard_normal((3, 3)))[0].astype(np.float32)
    moved = (values - mean) @ turn * np.float32(rng.uniform(0.6, 1.6))
    return np.clip(moved + rng.uniform(20, 235, 3), 0, 255).astype(np.uint8)


def _textured(image: Image, segment: NDArray[np.bool_], rng: np.random.Generator) -> Image:
    """A random texture, with or without the light and shade of what it replaces."""
    texture = random_texture((segment.shape[0], segment.shape[1]), rng)
    if rng.random() < 0.5:
        return texture
    grey = image.astype(np.float32).mean(-1, keepdims=True)
    shade = grey / max(float(grey[segment].mean()), 1.0)
    return np.clip(texture * np.clip(shade, 0.3, 2.0), 0, 255).astype(np.uint8)
