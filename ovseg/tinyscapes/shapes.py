"""Primitives from which things are drawn: polygons in a unit frame, and their rasterisation.

A thing lives in the frame x, y in [-1, 1], y pointing down, its foot at y = 1. A part is one or
more closed contours filled by the even-odd rule, so an inner contour is a hole.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

Points = Sequence[tuple[float, float]]

_SUBPIXEL_BITS = 4
_SUBPIXELS = 1 << _SUBPIXEL_BITS

# Colours that do not follow the object's own two colours.
FIXED_COLOURS: dict[str, tuple[int, int, int]] = {
    "black": (28, 28, 30),
    "white": (244, 244, 240),
    "glass": (176, 214, 232),
    "wood": (124, 82, 48),
    "leaf": (58, 140, 56),
    "beak": (240, 150, 30),
    "flame": (250, 190, 40),
    "metal": (150, 154, 160),
}
ROLES: tuple[str, ...] = ("main", "shade", "tint", "second", *FIXED_COLOURS)


@dataclass(frozen=True)
class Part:
    """One filled piece of a thing.

    Args:
        role: which colour fills it, one of ROLES.
        contours: closed polygons in the unit frame.
    """

    role: str
    contours: tuple[Points, ...]


class Outline:
    """A thing's parts packed for drawing: all points in one array.

    Args:
        parts: the parts from back to front.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        contours = [np.asarray(c, np.float32) for p in parts for c in p.contours]
        self.points = np.concatenate(contours)  # (N, 2)
        self.cuts = np.cumsum([len(c) for c in contours])[:-1].tolist()
        self.roles = [p.role for p in parts]
        self.counts = [len(p.contours) for p in parts]

    def place(self, matrix: np.ndarray, offset: tuple[float, float]) -> list[list[np.ndarray]]:
        """Contours of every part in sub-pixel integer coordinates of a picture.

        Args:
            matrix: (2, 2) float map from the unit frame to pixels.
            offset: (x, y) of the unit frame's origin in pixels.

        Returns:
            per part, its contours as (n, 2) int32 arrays scaled by the sub-pixel factor.
        """
        moved = (self.points @ matrix.T + np.asarray(offset, np.float32)) * _SUBPIXELS
        pieces = np.split(np.rint(moved).astype(np.int32), self.cuts)
        placed, start = [], 0
        for count in self.counts:
            placed.append(pieces[start : start + count])
            start += count
        return placed


def fill(
    canvas: np.ndarray, contours: list[np.ndarray], colour: Sequence[int] | int, *, smooth: bool
) -> None:
    """Fills contours on a canvas in place.

    Args:
        canvas: (H, W, 3) or (H, W) uint8.
        contours: sub-pixel contours from `Outline.place`.
        colour: the fill value.
        smooth: anti-aliased when True; label canvases need False.
    """
    line = cv2.LINE_AA if smooth else cv2.LINE_8
    cv2.fillPoly(canvas, contours, colour, lineType=line, shift=_SUBPIXEL_BITS)


def trace(canvas: np.ndarray, contours: list[np.ndarray], colour: Sequence[int]) -> None:
    """Draws the contours as thin anti-aliased lines in place (arguments as `fill`)."""
    cv2.polylines(canvas, contours, True, colour, 1, cv2.LINE_AA, _SUBPIXEL_BITS)


def ellipse(
    cx: float, cy: float, rx: float, ry: float, *, turn: float = 0.0, n: int = 18
) -> list[tuple[float, float]]:
    """A closed ellipse; `turn` in degrees, clockwise on the screen."""
    return arc(cx, cy, rx, ry, 0.0, 360.0 - 360.0 / n, turn=turn, n=n)


def arc(
    cx: float,
    cy: float,
    rx: float,
    ry: float,
    start: float,
    stop: float,
    *,
    turn: float = 0.0,
    n: int = 14,
) -> list[tuple[float, float]]:
    """Points on an elliptic arc; angles in degrees, 0 = right, 90 = down."""
    cos_t, sin_t = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    points = []
    for i in range(n):
        a = math.radians(start + (stop - start) * i / (n - 1))
        x, y = rx * math.cos(a), ry * math.sin(a)
        points.append((cx + x * cos_t - y * sin_t, cy + x * sin_t + y * cos_t))
    return points


def box(x0: float, y0: float, x1: float, y1: float) -> list[tuple[float, float]]:
    """An axis-aligned rectangle."""
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


def stroke(points: Points, width: float) -> list[tuple[float, float]]:
    """A polyline with thickness, as one closed polygon; bends should be mild."""
    left, right = [], []
    last = len(points) - 1
    for i, (x, y) in enumerate(points):
        ax, ay = points[max(i - 1, 0)]
        bx, by = points[min(i + 1, last)]
        length = math.hypot(bx - ax, by - ay) or 1.0
        nx, ny = -(by - ay) / length * width / 2, (bx - ax) / length * width / 2
        left.append((x + nx, y + ny))
        right.append((x - nx, y - ny))
    return left + right[::-1]


def radial(
    cx: float, cy: float, radii: Sequence[float], *, start: float = -90.0
) -> list[tuple[float, float]]:
    """A closed polygon whose corners lie at equal angles and the given radii (stars)."""
    n = len(radii)
    return [
        (
            cx + r * math.cos(math.radians(start + 360.0 * i / n)),
            cy + r * math.sin(math.radians(start + 360.0 * i / n)),
        )
        for i, r in enumerate(radii)
    ]


def mirror(points: Points) -> list[tuple[float, float]]:
    """The polygon mirrored about the vertical axis."""
    return [(-x, y) for x, y in points]


def part(role: str, *contours: Points) -> Part:
    """A part of one or more contours; checks the role's name."""
    if role not in ROLES:
        raise ValueError(f"expected a colour role, got {role!r}; valid: {', '.join(ROLES)}")
    return Part(role, contours)
