"""A picture in the making: grounds, things, clutter, light, and who owns each pixel."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np

from .shapes import FIXED_COLOURS, fill, trace
from .textures import paint_texture
from .things import VARIANTS_PER_CLASS, thing_outline
from .world import CLASS_ID, CLASSES, COLOURS

_NOISE_SIZE = 400
_COLOUR_NAMES = tuple(COLOURS)


@dataclass(frozen=True)
class PlacedThing:
    """One thing in a picture, as captions need it.

    Args:
        class_id: its class.
        colour: the word for its main colour.
        x: horizontal middle in pixels.
        y: vertical middle in pixels.
        radius: half its height in pixels.
        ground: class id of the stuff at its foot (at its middle, if it floats).
        number: its value in `Canvas.owners`.
    """

    class_id: int
    colour: str
    x: float
    y: float
    radius: float
    ground: int
    number: int


class Canvas:
    """A picture of grounds in rows on which things are placed one after the other.

    Args:
        rng: the picture's random stream.
        split: whose textures and shapes to use.
        size: (height, width).
        grounds: stuff names from top to bottom, at least one.
        borders: for each boundary between grounds, its mean height as a share of the picture.
    """

    def __init__(
        self,
        rng: random.Random,
        split: str,
        size: tuple[int, int],
        grounds: Sequence[str],
        borders: Sequence[float],
    ) -> None:
        self.rng, self.split, self.size = rng, split, size
        self.things: list[PlacedThing] = []
        self.classes = [CLASS_ID[name] for name in grounds]  # class of each owner number
        self.owners = np.zeros(size, np.uint8)  # (H, W), 0..len(grounds)-1 are the grounds
        self.image = paint_texture(rng, split, grounds[0], size)
        for number, (name, border) in enumerate(zip(grounds[1:], borders, strict=True), 1):
            self._lay_ground(number, name, border * size[0], grounds[number - 1])
        self.ground = self.owners.copy()  # (H, W) as it was before any thing covered it

    def _lay_ground(self, number: int, name: str, y: float, above: str) -> None:
        rng, (height, width) = self.rng, self.size
        flat = name in ("floor", "carpet", "sea") or above in ("wall", "curtain", "sea")
        swing = rng.uniform(0, 1.5) if flat else rng.uniform(0, 6)
        tilt = rng.uniform(-2, 2) if flat else rng.uniform(-9, 9)
        period, phase = rng.uniform(25, 90), rng.uniform(0, 6.3)
        edge = [
            (x, round(y + tilt * (x / width - 0.5) + swing * math.sin(x / period * 6.3 + phase)))
            for x in range(0, width + 6, 6)
        ]
        outline = np.array([*edge, (width, height), (0, height)], np.int32)
        mask = np.zeros(self.size, np.uint8)
        cv2.fillPoly(mask, [outline], 255)
        cv2.copyTo(paint_texture(rng, self.split, name, self.size), mask, self.image)
        self.owners[mask > 0] = number

    def ground_at(self, x: float, y: float) -> int:
        """Number of the ground at a pixel; points outside are moved to the edge."""
        height, width = self.size
        return int(self.ground[min(max(int(y), 0), height - 1), min(max(int(x), 0), width - 1)])

    def scatter_clutter(self, count: int) -> None:
        """Draws small nameless bits (stones, sticks, scraps) that keep the ground's label."""
        rng, (height, width) = self.rng, self.size
        for _ in range(count):
            x, y, r = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(1.2, 3.6)
            corners = rng.choice((3, 4, 4, 8))
            start, squeeze = rng.uniform(0, 6.3), rng.uniform(0.25, 1.0)
            points = [
                (
                    x + r * math.cos(start + 6.2832 * i / corners),
                    y + r * squeeze * math.sin(start + 6.2832 * i / corners),
                )
                for i in range(corners)
            ]
            fill(
                self.image,
                [np.rint(np.array(points) * 16).astype(np.int32)],
                _jitter(rng, COLOURS[rng.choice(_COLOUR_NAMES)], 25),
                smooth=True,
            )

    def place_thing(self, class_id: int, x: float, y: float, radius: float) -> PlacedThing:
        """Draws one thing over all earlier ones.

        Args:
            class_id: a thing's class id.
            x: horizontal middle in pixels.
            y: vertical middle in pixels.
            radius: half its height in pixels.
        """
        rng, thing = self.rng, CLASSES[class_id]
        number = len(self.classes)
        foot = y if thing.floats else y + 0.95 * radius
        ground = self.classes[self.ground_at(x, foot)]
        under = self.image[
            min(max(int(y), 0), self.size[0] - 1), min(max(int(x), 0), self.size[1] - 1)
        ].tolist()
        colour, roles = _choose_colours(rng, under)
        outline = thing_outline(self.split, thing.name, rng.randrange(VARIANTS_PER_CLASS))
        parts = outline.place(_pose(rng, radius, floats=thing.floats), (x, y))
        traced = rng.random() < 0.4
        rim = tuple(int(c * 0.4) for c in roles["main"])
        for role, contours in zip(outline.roles, parts, strict=True):
            fill(self.image, contours, roles[role], smooth=True)
            if traced:
                trace(self.image, contours, rim)
            fill(self.owners, contours, number, smooth=False)
        self.classes.append(class_id)
        placed = PlacedThing(class_id, colour, x, y, radius, ground, number)
        self.things.append(placed)
        return placed

    def develop(self) -> np.ndarray:
        """Applies light, blur and noise.

        Returns:
            (H, W, 3) uint8 RGB.
        """
        rng, (height, width) = self.rng, self.size
        image = self.image
        if rng.random() < 0.25:
            image = cv2.GaussianBlur(image, (3, 3), 0)
        gain, slant_x, slant_y = (
            rng.uniform(0.74, 1.04),
            rng.uniform(-0.17, 0.17),
            rng.uniform(-0.17, 0.17),
        )
        warm = rng.uniform(-0.07, 0.07)
        across = np.linspace(gain - slant_x, gain + slant_x, width, dtype=np.float32)
        down = np.linspace(-slant_y, slant_y, height, dtype=np.float32)
        light = across[None, :] + down[:, None]  # (H, W)
        tinted = cv2.merge([light * (1 + warm), light, light * (1 - warm)])  # (H, W, 3)
        lit = cv2.multiply(image, tinted, dtype=cv2.CV_16S)
        strength = rng.choice((2, 4, 6, 9))
        oy, ox = rng.randint(0, _NOISE_SIZE - height), rng.randint(0, _NOISE_SIZE - width)
        noise = _noise_bank(strength)[oy : oy + height, ox : ox + width]
        return cv2.add(lit, noise, dtype=cv2.CV_8U)

    def labels(self) -> np.ndarray:
        """(H, W) uint8 class ids."""
        return np.array(self.classes, np.uint8)[self.owners]

    def visible_pixels(self) -> list[int]:
        """Number of visible pixels of each owner."""
        return np.bincount(self.owners.ravel(), minlength=len(self.classes)).tolist()


@cache
def _noise_bank(strength: int) -> np.ndarray:
    noise = np.random.default_rng(20_240 + strength).normal(size=(_NOISE_SIZE, _NOISE_SIZE, 3))
    return np.rint(noise * strength).astype(np.int16)


def _jitter(rng: random.Random, colour: Sequence[int], amount: int) -> tuple[int, int, int]:
    shift = rng.uniform(-amount, amount)
    r, g, b = (min(max(int(c + shift + rng.uniform(-amount, amount) / 2), 0), 255) for c in colour)
    return r, g, b


def _choose_colours(
    rng: random.Random, under: Sequence[int]
) -> tuple[str, dict[str, tuple[int, int, int]]]:
    """A main colour that stands out from what lies under the thing, and the colour of each role."""

    def contrast(name: str) -> int:
        return sum(abs(a - b) for a, b in zip(COLOURS[name], under, strict=True))

    first, other, second_name = rng.sample(_COLOUR_NAMES, 3)
    name = first if contrast(first) > 110 or contrast(first) >= contrast(other) else other
    main = _jitter(rng, COLOURS[name], 16)
    r, g, b = main
    roles = {
        "main": main,
        "shade": (int(r * 0.7), int(g * 0.7), int(b * 0.7)),
        "tint": (int(r * 0.6 + 100), int(g * 0.6 + 100), int(b * 0.6 + 100)),
        "second": _jitter(rng, COLOURS[second_name], 16),
    }
    for role, colour in FIXED_COLOURS.items():
        roles[role] = colour
    return name, roles


def _pose(rng: random.Random, radius: float, *, floats: bool) -> np.ndarray:
    """A (2, 2) map from the unit frame to pixels: mirror, squeeze, tilt and size."""
    reach = 28 if floats else 9
    angle = math.radians(rng.uniform(-reach, reach))
    if rng.random() < 0.04:
        angle = rng.uniform(-math.pi, math.pi)
    sx, sy = radius * rng.uniform(0.84, 1.16), radius * rng.uniform(0.9, 1.1)
    if rng.random() < 0.5:
        sx = -sx
    shear = rng.uniform(-0.1, 0.1)
    cos_a, sin_a = math.cos(angle), math.sin(angle)
    return np.array(
        [
            [cos_a * sx, (cos_a * shear - sin_a) * sy],
            [sin_a * sx, (sin_a * shear + cos_a) * sy],
        ],
        np.float32,
    )
