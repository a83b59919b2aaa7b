"""Label maps in colour: painted, blended with the picture, outlined, counted."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from ovseg.visualization.colors import BLANK_COLOR

BLANK = -1  # label of a pixel that no class claims

_LINES_PER_SIDE = 480  # lines of this many widths fill a picture's shorter side


def colorize(labels: np.ndarray, colors: np.ndarray) -> np.ndarray:
    """Paint a label map in its classes' colours.

    Args:
        labels: (H, W) integers in [-1, K); -1 is blank and painted black.
        colors: (K, 3) uint8 RGB.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ValueError: a label lies outside the range.
    """
    _check_labels(labels, len(colors))
    table = np.concatenate([colors, np.array([BLANK_COLOR], np.uint8)])  # index -1 is the last row
    return table[labels]


def blend(
    image: np.ndarray,
    labels: np.ndarray,
    colors: np.ndarray,
    *,
    alpha: float = 0.5,
    untouched: Sequence[int] = (),
    outlines: bool = True,
) -> np.ndarray:
    """Tint a picture with the colours of its label map, at the picture's own size.

    Args:
        image: (H, W, 3) uint8 RGB.
        labels: (H, W) integers in [-1, K).
        colors: (K, 3) uint8 RGB.
        alpha: share of the tint, in [0, 1].
        untouched: labels that are left as photographed; blank pixels always are.
        outlines: draw the borders between classes, white and smooth.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ValueError: sizes differ, a label is out of range, or alpha is.
    """
    check_image(image, labels)
    if not 0.0 <= alpha <= 1.0:
        raise ValueError(f"alpha: expected a share in [0, 1], got {alpha}")
    blended = cv2.addWeighted(image, 1.0 - alpha, colorize(labels, colors), alpha, 0.0)
    plain = labels == BLANK
    for label in untouched:
        plain |= labels == label
    blended[plain] = image[plain]
    if outlines:
        _draw_lines(blended, borders(labels))
    return blended


def borders(labels: np.ndarray) -> np.ndarray:
    """Mark the pixels whose right or lower neighbour carries another label.

    Args:
        labels: (H, W) integers.

    Returns:
        (H, W) bool.
    """
    edge = np.zeros(labels.shape, bool)
    edge[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    edge[:-1] |= labels[:-1] != labels[1:]
    return edge


def _draw_lines(picture: np.ndarray, pixels: np.ndarray) -> None:
    """Draw pixels as smooth lines, white on a dark rim, of a width that suits the picture's size.

    Args:
        picture: (H, W, 3) uint8 RGB, changed in place.
        pixels: (H, W) bool.
    """
    width = max(1.0, min(pixels.shape) / _LINES_PER_SIDE)
    drawn = pixels.astype(np.float32)
    for strength, spread, color in ((0.4, 1.3, 0), (0.95, 0.6, 255)):
        sigma = spread * width
        # A line of one pixel has its peak at 1 / (sigma * sqrt(2 pi)) after the blur.
        cover = cv2.GaussianBlur(drawn, (0, 0), sigma) * (1.3 * sigma * np.sqrt(2 * np.pi))
        touched = cover > 0.02
        share = strength * np.minimum(cover[touched], 1.0)[:, None]  # (N, 1)
        picture[touched] = np.rint(picture[touched] * (1 - share) + color * share)


def pixel_counts(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Count each class's pixels.

    Args:
        labels: (H, W) integers in [-1, K); blank pixels are not counted.
        num_classes: K.

    Returns:
        (K,) int64.
    """
    _check_labels(labels, num_classes)
    counts = np.zeros(num_classes + 1, np.int64)
    for band in np.array_split(labels, max(1, labels.size >> 24)):  # bincount widens to int64
        counts += np.bincount(band.ravel() + 1, minlength=num_classes + 1)
    return counts[1:]


def check_image(image: np.ndarray, labels: np.ndarray) -> None:
    """Refuse a picture that is not (H, W, 3) uint8 or not of its labels' size (ValueError)."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(
            f"image: expected (H, W, 3) uint8 RGB, got {image.shape} {image.dtype}; "
            "read files with ovseg.readers.pictures.read_image"
        )
    if image.shape[:2] != labels.shape:
        raise ValueError(
            f"labels: expected the picture's size {image.shape[:2]}, got {labels.shape}"
        )


def _check_labels(labels: np.ndarray, num_classes: int) -> None:
    if not np.issubdtype(labels.dtype, np.signedinteger):
        raise ValueError(
            f"labels: expected signed integers (-1 is blank), got {labels.dtype}; "
            "convert with labels.astype(np.int32)"
        )
    if labels.size and (labels.min() < BLANK or labels.max() >= num_classes):
        raise ValueError(
            f"labels: expected values in [-1, {num_classes}), got {labels.min()} to {labels.max()}"
        )
