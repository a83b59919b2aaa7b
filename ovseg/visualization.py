"""Pictures of a label map: colours, overlays, outlines, a legend, panels.

Everything here works on ``uint8`` pictures and integer label maps, so that a picture of any size
costs a few bytes per pixel and no per-class planes. Colours belong to class *names*: a name looks
the same in every picture, vocabulary and session (see :func:`palette`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy.spatial.distance import cdist

BLANK = -1  # label of a pixel that no class claims
BLANK_COLOR = (0, 0, 0)
BACKGROUND_COLOR = (128, 128, 128)
MAX_SIDE = 4096  # longer pictures are shown smaller; label maps always keep the full size
MIN_SIDE = 480  # smaller ones are enlarged, or their legend could not be read

_NUM_CANDIDATES = 64  # colours a name may fall back on
_MIN_COLOR_DISTANCE = 30.0  # CIE76 distance below which two colours are hard to tell apart
_MAX_NAME = 32  # characters of a name in the legend
_PAPER = (250, 250, 250)
_INK = (20, 20, 20)
_FAINT = (110, 110, 110)


# -- colours ---------------------------------------------------------------------------------


def palette(names: Sequence[str], *, background: int | None = None) -> np.ndarray:
    """Give every class name a colour of its own.

    A name has a fixed list of colours drawn from its hash and takes the first. Only where two
    names of one vocabulary would look alike does one of them move on in its own list; names are
    served in alphabetical order, so their order in the vocabulary has no influence.

    Args:
        names: K class names; upper and lower case make no difference.
        background: index of the background class, shown in grey.

    Returns:
        (K, 3) uint8 RGB.
    """
    colors = np.zeros((len(names), 3), np.uint8)
    taken = [_to_lab(np.array([BLANK_COLOR, BACKGROUND_COLOR], np.uint8))]
    for index in sorted(range(len(names)), key=lambda i: (_key(names[i]), names[i], i)):
        if index == background:
            colors[index] = BACKGROUND_COLOR
            continue
        candidates, labs = _candidates(_key(names[index]))
        used = np.concatenate(taken)  # (N, 3)
        nearest = cdist(labs, used).min(1)  # (C,)
        free = np.flatnonzero(nearest >= _MIN_COLOR_DISTANCE)
        choice = int(free[0]) if len(free) else int(nearest.argmax())
        colors[index] = candidates[choice]
        taken.append(labs[choice : choice + 1])
    return colors


def _key(name: str) -> str:
    return " ".join(name.lower().split())


@lru_cache(maxsize=4096)
def _candidates(key: str) -> tuple[np.ndarray, np.ndarray]:
    """List a name's colours in order of preference: (C, 3) uint8 RGB and the same in Lab."""
    digests = [hashlib.sha256(f"{key}\0{i}".encode()).digest() for i in range(_NUM_CANDIDATES)]
    hue = np.array([int.from_bytes(d[:2], "big") for d in digests]) / 65536 * 360
    saturation = np.array([0.35 + 0.65 * d[2] / 255 for d in digests])
    value = np.array([0.5 + 0.5 * d[3] / 255 for d in digests])
    hsv = np.stack([hue, saturation, value], -1).astype(np.float32)[None]  # (1, C, 3)
    rgb = np.rint(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0] * 255).astype(np.uint8)
    return rgb, _to_lab(rgb)


def _to_lab(colors: np.ndarray) -> np.ndarray:
    """Convert (N, 3) uint8 RGB to (N, 3) float32 CIE Lab."""
    return cv2.cvtColor(colors[None].astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[0]


# -- label maps to colour --------------------------------------------------------------------


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
        outlines: draw the borders between classes in white.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ValueError: sizes differ, a label is out of range, or alpha is.
    """
    _check_image(image, labels)
    if not 0.0 <= alpha <= 1.0:
        raise ValueError(f"alpha: expected a share in [0, 1], got {alpha}")
    blended = cv2.addWeighted(image, 1.0 - alpha, colorize(labels, colors), alpha, 0.0)
    plain = labels == BLANK
    for label in untouched:
        plain |= labels == label
    blended[plain] = image[plain]
    if outlines:
        blended[borders(labels)] = 255
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


# -- pictures for people ---------------------------------------------------------------------


def overlay(
    image: np.ndarray,
    labels: np.ndarray,
    names: Sequence[str],
    *,
    background: int | None = None,
    alpha: float = 0.5,
    legend: bool = True,
    outlines: bool = True,
) -> np.ndarray:
    """Show a segmentation over its picture, with a legend of names and area shares.

    With a legend the picture is brought to a size people can read (short side at least
    ``MIN_SIDE``, long side at most ``MAX_SIDE``); without one it keeps its own size.

    Args:
        image: (H, W, 3) uint8 RGB.
        labels: (H, W) integers in [-1, K), -1 where no class claims the pixel.
        names: K class names.
        background: index of the background class, left as photographed.
        alpha: share of the tint, in [0, 1].
        legend: add a strip at the right with the classes found, largest first.
        outlines: draw the borders between classes.

    Returns:
        uint8 RGB picture.
    """
    colors = palette(names, background=background)
    untouched = () if background is None else (background,)
    if not legend:
        return blend(image, labels, colors, alpha=alpha, untouched=untouched, outlines=outlines)
    small, small_labels = _for_display(image, labels)
    picture = blend(
        small, small_labels, colors, alpha=alpha, untouched=untouched, outlines=outlines
    )
    return _beside(picture, legend_strip(labels, names, colors, height=picture.shape[0]))


def panels(
    image: np.ndarray,
    labels: np.ndarray,
    names: Sequence[str],
    *,
    background: int | None = None,
) -> np.ndarray:
    """Put the picture, its overlay, its mask and the legend side by side.

    Args:
        image: (H, W, 3) uint8 RGB.
        labels: (H, W) integers in [-1, K).
        names: K class names.
        background: index of the background class, left as photographed.

    Returns:
        uint8 RGB picture.
    """
    colors = palette(names, background=background)
    small, small_labels = _for_display(image, labels, max_side=MAX_SIDE // 2)
    untouched = () if background is None else (background,)
    tinted = blend(small, small_labels, colors, untouched=untouched)
    parts = [small, tinted, colorize(small_labels, colors)]
    parts.append(legend_strip(labels, names, colors, height=small.shape[0]))
    picture = parts[0]
    for part in parts[1:]:
        picture = _beside(picture, part, gap=max(2, small.shape[0] // 120))
    return picture


def legend_strip(
    labels: np.ndarray, names: Sequence[str], colors: np.ndarray, *, height: int
) -> np.ndarray:
    """Draw the classes found, largest first, each with its colour and share of the picture.

    Rows that do not fit are summed up in a last one ("and 12 more").

    Args:
        labels: (H, W) integers in [-1, K).
        names: K class names.
        colors: (K, 3) uint8 RGB.
        height: of the strip in pixels; also sets the size of the text.

    Returns:
        (height, W', 3) uint8 RGB.
    """
    size = int(np.clip(height / 28, 13, 64))
    row = int(size * 1.7)
    entries = _legend_entries(labels, names, colors)
    room = max(1, (height - size) // row)
    if len(entries) > room:
        rest = entries[room - 1 :]
        share = sum(e[2] for e in rest)
        entries = [*entries[: room - 1], (f"and {len(rest)} more", None, share)]
    font = ImageFont.load_default(size)
    texts = [
        (name if len(name) <= _MAX_NAME else name[: _MAX_NAME - 1] + "…", f"{share:.1%}")
        for name, _, share in entries
    ]
    name_width = max(font.getlength(name) for name, _ in texts)
    share_width = max(font.getlength(share) for _, share in texts)
    width = int(size * 4 + name_width + share_width)
    strip = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(strip)
    for line, ((name, percent), (_, color, _)) in enumerate(zip(texts, entries, strict=True)):
        top = size // 2 + line * row
        if color is not None:
            box = (size, top, size * 2, top + size)
            draw.rectangle(box, fill=color, outline=_FAINT)
        draw.text((size * 2.5, top + size / 2), name, _INK, font, anchor="lm")
        draw.text((width - size, top + size / 2), percent, _FAINT, font, anchor="rm")
    return np.asarray(strip)


def _legend_entries(
    labels: np.ndarray, names: Sequence[str], colors: np.ndarray
) -> list[tuple[str, tuple[int, int, int] | None, float]]:
    counts = pixel_counts(labels, len(names))
    order = sorted(np.flatnonzero(counts).tolist(), key=lambda k: (-int(counts[k]), k))
    entries: list[tuple[str, tuple[int, int, int] | None, float]] = []
    for k in order:
        red, green, blue = (int(c) for c in colors[k])
        entries.append((names[k], (red, green, blue), counts[k] / labels.size))
    blank = labels.size - int(counts.sum())
    if blank:
        entries.append(("(no class)", None, blank / labels.size))
    return entries


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


# -- small parts -----------------------------------------------------------------------------


def _for_display(
    image: np.ndarray, labels: np.ndarray, *, max_side: int = MAX_SIDE
) -> tuple[np.ndarray, np.ndarray]:
    """Bring a picture and its labels to a size fit for looking at."""
    _check_image(image, labels)
    height, width = labels.shape
    scale = min(max(1.0, MIN_SIDE / min(height, width)), max_side / max(height, width))
    if scale == 1.0:
        return image, labels
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    smooth = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    small = cv2.resize(image, size, interpolation=smooth)
    nearest = cv2.resize(labels.astype(np.int32), size, interpolation=cv2.INTER_NEAREST)
    return small, nearest


def _beside(left: np.ndarray, right: np.ndarray, *, gap: int = 0) -> np.ndarray:
    height = max(left.shape[0], right.shape[0])
    canvas = np.full((height, left.shape[1] + gap + right.shape[1], 3), _PAPER, np.uint8)
    canvas[: left.shape[0], : left.shape[1]] = left
    canvas[: right.shape[0], left.shape[1] + gap :] = right
    return canvas


def _check_image(image: np.ndarray, labels: np.ndarray) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(
            f"image: expected (H, W, 3) uint8 RGB, got {image.shape} {image.dtype}; "
            "read files with ovseg.utils.images.read_image"
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
