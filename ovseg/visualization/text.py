"""Names of classes in the picture, each inside the largest part of its class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import ceil

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ovseg.visualization.labels import pixel_counts

_LINES = 24  # of text to a picture's shorter side
_SMALLEST = 13  # pixels; below, text cannot be read
_SHRINK = 0.75  # what is tried where a name does not fit
_LONGEST_NAME = 32  # characters
_GRID = 240  # cells to the shorter side at which places are looked for


@dataclass(frozen=True)
class PlacedName:
    """A name and where it is written.

    Attributes:
        label: class index.
        text: the name, shortened if it is long.
        size: of the font, in pixels.
        box: x0, y0, x1, y1 in pixels; inside the picture, and apart from all other boxes.
    """

    label: int
    text: str
    size: int
    box: tuple[int, int, int, int]


def text_size(side: int) -> int:
    """Choose the size of text, in pixels, for a picture whose shorter side has `side` pixels."""
    return max(_SMALLEST, side // _LINES)


def shorten(name: str) -> str:
    """Cut a name to what a picture has room for."""
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"


@lru_cache(maxsize=32)
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Load the font of all pictures at a size in pixels."""
    return ImageFont.load_default(size)


def place_names(
    labels: np.ndarray, names: Sequence[str], *, skip: Sequence[int] = ()
) -> list[PlacedName]:
    """Find a place for the name of each class, inside the largest connected part of it.

    Classes are served by size, the largest first. One whose part has no room for its name, even
    in smaller letters, goes without.

    Args:
        labels: (H, W) integers in [-1, K), at the size at which the picture is shown.
        names: K class names.
        skip: labels that get no name.

    Returns:
        The names that have a place.
    """
    counts = pixel_counts(labels, len(names))
    step = max(1, min(labels.shape) // _GRID)
    grid = labels[step // 2 :: step, step // 2 :: step]
    free = np.ones(grid.shape, np.uint8)
    full = text_size(min(labels.shape))
    placed = []
    for label in sorted(np.flatnonzero(counts).tolist(), key=lambda k: (-int(counts[k]), k)):
        if label in skip:
            continue
        part = _largest_part(grid == label)
        depth = cv2.distanceTransform(np.pad(part, 1), cv2.DIST_L2, 5)[1:-1, 1:-1]
        for size in sorted({full, max(_SMALLEST, int(full * _SHRINK))}, reverse=True):
            text = shorten(names[label])
            left, top, right, bottom = font(size).getbbox(text, stroke_width=_stroke(size))
            margin = size // 4
            columns = ceil((right - left + 2 * margin) / step) + 1
            rows = ceil((bottom - top + 2 * margin) / step) + 1
            spot = _best_spot(part & free, depth, rows, columns)
            if spot is None:
                continue
            y, x = spot
            free[y : y + rows, x : x + columns] = 0
            box = (x * step, y * step, (x + columns) * step, (y + rows) * step)
            placed.append(PlacedName(label, text, size, box))
            break
    return placed


def _largest_part(mask: np.ndarray) -> np.ndarray:
    """Keep the largest connected part of (H, W) bool, as uint8 of 0 and 1."""
    _, parts, stats, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8), connectivity=4)
    areas = stats[1:, cv2.CC_STAT_AREA]
    return (parts == 1 + areas.argmax()).astype(np.uint8) if len(areas) else mask.view(np.uint8)


def _best_spot(
    room: np.ndarray, depth: np.ndarray, rows: int, columns: int
) -> tuple[int, int] | None:
    """Find the top left corner of a box inside `room` whose middle lies deepest, the first one."""
    if rows > room.shape[0] or columns > room.shape[1]:
        return None
    middle = (columns // 2, rows // 2)
    kernel = np.ones((rows, columns), np.uint8)
    fits = cv2.erode(room, kernel, anchor=middle, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    if not fits.any():
        return None
    y, x = np.unravel_index(np.where(fits > 0, depth, -1.0).argmax(), room.shape)
    return int(y) - middle[1], int(x) - middle[0]


def _stroke(size: int) -> int:
    return max(1, round(size / 12))


def write_names(picture: np.ndarray, placed: Sequence[PlacedName]) -> np.ndarray:
    """Write names into a picture, light letters with a dark rim.

    Args:
        picture: (H, W, 3) uint8 RGB.
        placed: what `place_names` found.

    Returns:
        (H, W, 3) uint8 RGB, a new one.
    """
    canvas = Image.fromarray(picture)
    draw = ImageDraw.Draw(canvas)
    for name in placed:
        left, top, right, bottom = name.box
        draw.text(
            ((left + right) / 2, (top + bottom) / 2),
            name.text,
            (255, 255, 255),
            font(name.size),
            anchor="mm",
            stroke_width=_stroke(name.size),
            stroke_fill=(20, 20, 20),
        )
    return np.array(canvas)
