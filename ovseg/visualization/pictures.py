"""Pictures for people: overlays, panels, a legend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw

from ovseg.visualization.colors import palette
from ovseg.visualization.labels import blend, check_image, colorize, pixel_counts
from ovseg.visualization.text import font, place_names, shorten, text_size, write_names

MAX_SIDE = 4096  # longer pictures are shown smaller; label maps always keep the full size
MIN_SIDE = 480  # smaller ones are enlarged, or their names could not be read

_ROUNDING = 0.3  # pixels before enlarging; of more, parts of one pixel would vanish
_PAPER = (250, 250, 250)
_INK = (20, 20, 20)
_FAINT = (110, 110, 110)


def overlay(
    image: np.ndarray,
    labels: np.ndarray,
    names: Sequence[str],
    *,
    background: int | None = None,
    alpha: float = 0.5,
    legend: bool = True,
    outlines: bool = True,
    tags: bool = True,
) -> np.ndarray:
    """Show a segmentation over its picture, with names in it and a legend of area shares.

    With a legend the picture is brought to a size people can read (`for_display`); without one it
    keeps its own size.

    Args:
        image: (H, W, 3) uint8 RGB.
        labels: (H, W) integers in [-1, K), -1 where no class claims the pixel.
        names: K class names.
        background: index of the background class, left as photographed.
        alpha: share of the tint, in [0, 1].
        legend: add a strip at the right with the classes found, largest first.
        outlines: draw the borders between classes.
        tags: write each class's name into its largest part, where there is room.

    Returns:
        uint8 RGB picture.
    """
    colors = palette(names, background=background)
    untouched = () if background is None else (background,)
    shown, regions = for_display(image, labels) if legend else (image, labels)
    picture = blend(shown, regions, colors, alpha=alpha, untouched=untouched, outlines=outlines)
    if tags:
        picture = write_names(picture, place_names(regions, names, skip=untouched))
    if not legend:
        return picture
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
    shown, regions = for_display(image, labels, max_side=MAX_SIDE // 2)
    untouched = () if background is None else (background,)
    tinted = blend(shown, regions, colors, untouched=untouched)
    parts = [shown, write_names(tinted, place_names(regions, names, skip=untouched))]
    parts.append(colorize(regions, colors))
    parts.append(legend_strip(labels, names, colors, height=shown.shape[0]))
    picture = parts[0]
    for part in parts[1:]:
        picture = _beside(picture, part, gap=max(2, shown.shape[0] // 120))
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
    size = text_size(height)
    row = int(size * 1.7)
    entries = _legend_entries(labels, names, colors)
    room = max(1, (height - size) // row)
    if len(entries) > room:
        rest = entries[room - 1 :]
        share = sum(e[2] for e in rest)
        entries = [*entries[: room - 1], (f"and {len(rest)} more", None, share)]
    letters = font(size)
    texts = [(shorten(name), f"{share:.1%}") for name, _, share in entries]
    name_width = max(letters.getlength(name) for name, _ in texts)
    share_width = max(letters.getlength(share) for _, share in texts)
    width = int(size * 4 + name_width + share_width)
    strip = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(strip)
    for line, ((name, percent), (_, color, _)) in enumerate(zip(texts, entries, strict=True)):
        top = size // 2 + line * row
        if color is not None:
            box = (size, top, size * 2, top + size)
            draw.rectangle(box, fill=color, outline=_FAINT)
        draw.text((size * 2.5, top + size / 2), name, _INK, letters, anchor="lm")
        draw.text((width - size, top + size / 2), percent, _FAINT, letters, anchor="rm")
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


def for_display(
    image: np.ndarray, labels: np.ndarray, *, max_side: int = MAX_SIDE
) -> tuple[np.ndarray, np.ndarray]:
    """Bring a picture and its labels to a size fit for looking at.

    A picture whose shorter side is well below ``MIN_SIDE`` is enlarged by a whole number, one
    whose longer side is above `max_side` is made smaller. Borders of enlarged labels run straight
    where nearest neighbours would give stairs; every part, of one pixel even, stays to be seen.

    Args:
        image: (H, W, 3) uint8 RGB.
        labels: (H, W) integers in [-1, K).
        max_side: of the result, in pixels.

    Returns:
        Picture and labels of one size; the arguments themselves where nothing is to be done.

    Raises:
        ValueError: sizes differ.
    """
    check_image(image, labels)
    height, width = labels.shape
    longer = max(height, width)
    if longer > max_side:
        size = (max(1, width * max_side // longer), max(1, height * max_side // longer))
        small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        return small, cv2.resize(labels.astype(np.int32), size, interpolation=cv2.INTER_NEAREST)
    factor = min(round(MIN_SIDE / min(height, width)), max_side // longer)
    if factor <= 1:
        return image, labels
    size = (width * factor, height * factor)
    return cv2.resize(image, size, interpolation=cv2.INTER_CUBIC), _enlarge(labels, size)


def _enlarge(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Give each pixel of the (width, height) wanted the label that weighs most around it."""
    values, places = np.unique(labels, return_inverse=True)
    best = np.zeros(size[::-1], np.float32)
    found = np.zeros(size[::-1], np.int32)
    for place in range(len(values)):
        mask = (places.reshape(labels.shape) == place).astype(np.float32)
        weight = cv2.resize(mask, size, interpolation=cv2.INTER_LINEAR)
        weight = cv2.GaussianBlur(weight, (0, 0), _ROUNDING * size[0] / labels.shape[1])
        np.copyto(found, place, where=weight > best)
        np.maximum(best, weight, out=best)
    return values[found].astype(np.int32)


def tiles(pictures: Sequence[np.ndarray], columns: int, *, gap: int = 10) -> np.ndarray:
    """Lay pictures out in rows, each at the top left of its cell.

    Args:
        pictures: (H, W, 3) uint8 RGB, of any sizes.
        columns: pictures in a row.
        gap: pixels between them.

    Returns:
        uint8 RGB picture.
    """
    rows = [pictures[start : start + columns] for start in range(0, len(pictures), columns)]
    widths = [max(row[i].shape[1] for row in rows if i < len(row)) for i in range(len(rows[0]))]
    heights = [max(picture.shape[0] for picture in row) for row in rows]
    size = (sum(heights) + gap * (len(rows) - 1), sum(widths) + gap * (len(widths) - 1))
    sheet = np.full((*size, 3), _PAPER, np.uint8)
    top = 0
    for row, height in zip(rows, heights, strict=True):
        left = 0
        for picture, width in zip(row, widths, strict=False):
            sheet[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
            left += width + gap
        top += height + gap
    return sheet


def titled_rows(rows: Mapping[str, Sequence[np.ndarray]], *, gap: int = 10) -> np.ndarray:
    """Lay out rows of pictures, each below its title: what several methods make of the same scenes.

    Args:
        rows: pictures, (H, W, 3) uint8 RGB, by title.
        gap: pixels between pictures.

    Returns:
        uint8 RGB picture.
    """
    sheets = []
    for title, pictures in rows.items():
        row = tiles(pictures, len(pictures), gap=gap)
        size = text_size(row.shape[0])
        band = Image.new("RGB", (row.shape[1], 2 * size), _PAPER)
        ImageDraw.Draw(band).text((gap, size), title, _INK, font(size), anchor="lm")
        sheets += [np.asarray(band), row]
    return tiles(sheets, 1, gap=gap // 2)


def _beside(left: np.ndarray, right: np.ndarray, *, gap: int = 0) -> np.ndarray:
    height = max(left.shape[0], right.shape[0])
    canvas = np.full((height, left.shape[1] + gap + right.shape[1], 3), _PAPER, np.uint8)
    canvas[: left.shape[0], : left.shape[1]] = left
    canvas[: right.shape[0], left.shape[1] + gap :] = right
    return canvas
