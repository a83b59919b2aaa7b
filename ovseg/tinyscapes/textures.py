"""Stuff: procedural brightness tiles, one family per class, coloured by ramps.

A tile is a (256, 256) uint8 pattern; a picture takes a crop of it, enlarges it a little and maps
brightness through a colour ramp. Every split draws its tiles from its own seeds.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import cache

import cv2
import numpy as np

from .world import COLOURS

TILE_SIZE = 256
TILES_PER_CLASS = 8

Colour = tuple[int, int, int]
_ROWS, _COLS = np.mgrid[0:TILE_SIZE, 0:TILE_SIZE].astype(np.float32)


def _smooth_noise(rng: np.random.Generator, cell_x: float, cell_y: float) -> np.ndarray:
    """Noise in [0, 1] that varies over about (cell_y, cell_x) pixels."""
    shape = (int(TILE_SIZE / cell_y) + 3, int(TILE_SIZE / cell_x) + 3)
    coarse = rng.random(shape, dtype=np.float32)
    return cv2.resize(coarse, (TILE_SIZE, TILE_SIZE), interpolation=cv2.INTER_CUBIC).clip(0, 1)


def _grain(rng: np.random.Generator) -> np.ndarray:
    return rng.random((TILE_SIZE, TILE_SIZE), dtype=np.float32)


def _cells(rng: np.random.Generator, spacing: float) -> tuple[np.ndarray, np.ndarray]:
    """Voronoi cells of jittered points: (distance to the border, random tone of the cell)."""
    n = int(TILE_SIZE / spacing) + 2
    grid = np.stack(np.meshgrid(np.arange(n), np.arange(n)), -1).astype(np.float32)
    seeds = ((grid + rng.random((n, n, 2), dtype=np.float32)) * spacing - spacing / 2).reshape(
        -1, 2
    )
    tones = rng.random(len(seeds), dtype=np.float32)
    first = np.full((TILE_SIZE, TILE_SIZE), 1e9, np.float32)
    second = first.copy()
    tone = np.zeros_like(first)
    reach = int(spacing * 2.5)
    for (x, y), value in zip(seeds, tones, strict=True):
        x0, y0 = max(int(x) - reach, 0), max(int(y) - reach, 0)
        x1, y1 = int(x) + reach, int(y) + reach
        if x1 <= 0 or y1 <= 0:
            continue
        window = np.s_[y0:y1, x0:x1]
        d = np.hypot(_COLS[window] - x, _ROWS[window] - y)
        f, s = first[window], second[window]
        tone[window] = np.where(d < f, value, tone[window])
        second[window] = np.where(d < f, f, np.minimum(s, d))
        first[window] = np.minimum(f, d)
    return second - first, tone


def _sky(rng: np.random.Generator) -> np.ndarray:
    clouds = 0.65 * _smooth_noise(rng, 60, 26) + 0.35 * _smooth_noise(rng, 22, 10)
    return 0.12 + 0.25 * _ROWS / TILE_SIZE + np.clip((clouds - 0.52) * 3.2, 0, 0.63)


def _sea(rng: np.random.Generator) -> np.ndarray:
    period = rng.uniform(8, 13)
    bend = 5.0 * _smooth_noise(rng, 34, 30) + 1.3 * np.sin(_COLS * 2 * np.pi / rng.uniform(20, 34))
    wave = np.sin(_ROWS * 2 * np.pi / period + bend)
    crest = np.clip((wave - 0.72) * 4, 0, 1) * (_smooth_noise(rng, 14, 8) > 0.45)
    return 0.25 + 0.22 * wave + 0.12 * _smooth_noise(rng, 40, 40) + 0.6 * crest


def _grass(rng: np.random.Generator) -> np.ndarray:
    tile = np.full((TILE_SIZE, TILE_SIZE), 0.35, np.float32)
    count = 5200
    xs, ys = rng.integers(-4, TILE_SIZE + 4, (2, count))
    lean, height = rng.integers(-3, 4, count), rng.integers(5, 12, count)
    tones = rng.uniform(0.05, 1.0, count)
    for x, y, dx, h, tone in zip(
        xs.tolist(), ys.tolist(), lean.tolist(), height.tolist(), tones.tolist(), strict=True
    ):
        cv2.line(tile, (x, y), (x + dx, y - h), tone, 1)
    return tile


def _sand(rng: np.random.Generator) -> np.ndarray:
    ripple = np.sin(_ROWS * 2 * np.pi / rng.uniform(22, 36) + 4 * _smooth_noise(rng, 60, 40))
    speck = (_grain(rng) > 0.97).astype(np.float32)
    return 0.5 + 0.16 * ripple + 0.30 * (_grain(rng) - 0.5) - 0.4 * speck


def _road(rng: np.random.Generator) -> np.ndarray:
    tile = 0.18 + 0.22 * _grain(rng) + 0.12 * _smooth_noise(rng, 50, 20)
    pitch = rng.integers(34, 46)
    dash, gap = rng.integers(16, 24), rng.integers(10, 16)
    lane = (_ROWS + rng.integers(0, 40)) % pitch < 3.5
    tile[lane & ((_COLS + rng.integers(0, 40)) % (dash + gap) < dash)] = 1.0
    return tile


def _wall(rng: np.random.Generator) -> np.ndarray:
    high, wide = int(rng.integers(7, 11)), int(rng.integers(15, 22))
    row = (_ROWS // high).astype(int)
    shifted = _COLS + (row % 2) * (wide // 2)
    column = (shifted // wide).astype(int)
    tones = rng.uniform(0.25, 0.85, (row.max() + 1, column.max() + 1)).astype(np.float32)
    joint = (_ROWS % high < 1.6) | (shifted % wide < 1.6)
    return np.where(joint, 0.0, tones[row, column] + 0.12 * (_grain(rng) - 0.5))


def _floor(rng: np.random.Generator) -> np.ndarray:
    side = int(rng.integers(13, 19))
    checker = ((_ROWS // side + _COLS // side) % 2).astype(np.float32)
    seam = (_ROWS % side < 1) | (_COLS % side < 1)
    shine = 0.12 * _smooth_noise(rng, 60, 60)
    return np.where(seam, 0.5, 0.1 + 0.7 * checker + shine)


def _snow(rng: np.random.Generator) -> np.ndarray:
    hills = 1.6 * _smooth_noise(rng, 70, 90) + 0.25 * np.sin(
        _COLS * 2 * np.pi / rng.uniform(45, 70)
    )
    slope = (_ROWS / rng.uniform(26, 36) + hills) % 1.0  # 0 at a drift's crest, 1 at its foot
    sparkle = (_grain(rng) > 0.985).astype(np.float32)
    return 0.95 - 0.75 * slope**1.5 + 0.08 * (_grain(rng) - 0.5) + 0.4 * sparkle


def _fence(rng: np.random.Generator) -> np.ndarray:
    plank = int(rng.integers(10, 15))
    column = (_COLS // plank).astype(int)
    tones = rng.uniform(0.5, 0.9, column.max() + 1).astype(np.float32)[column]
    wood = tones + 0.18 * (_smooth_noise(rng, 3, 40) - 0.5)
    rail = (_ROWS + 10) % 52 < 6
    gap = _COLS % plank < 2.5
    return np.where(gap, np.where(rail, 0.35, 0.0), wood)


def _gravel(rng: np.random.Generator) -> np.ndarray:
    edge, tone = _cells(rng, rng.uniform(7.5, 10.5))
    return np.clip(edge / 3.0, 0, 1) * (0.25 + 0.75 * tone) + 0.05 * _grain(rng)


def _field(rng: np.random.Generator) -> np.ndarray:
    slant = rng.uniform(0.25, 0.7) * rng.choice([-1, 1])
    phase = (_COLS + slant * _ROWS + 3 * _smooth_noise(rng, 20, 20)) * 2 * np.pi
    furrow = np.sin(phase / rng.uniform(13, 18))
    leaves = _smooth_noise(rng, 4, 4)
    return np.where(furrow > -0.15, 0.6 + 0.4 * leaves, 0.1 + 0.2 * _grain(rng))


def _lava(rng: np.random.Generator) -> np.ndarray:
    edge, tone = _cells(rng, rng.uniform(22, 30))
    crust = 0.18 * tone + 0.1 * _smooth_noise(rng, 6, 6)
    return np.where(edge < 7, 1.0 - edge / 9.0, crust)


def _curtain(rng: np.random.Generator) -> np.ndarray:
    sway = 2.2 * _smooth_noise(rng, 26, 120) + 0.012 * rng.choice([-1, 1]) * _ROWS
    fold = np.sin(_COLS * 2 * np.pi / rng.uniform(15, 22) + sway * 2)
    return 0.5 + 0.38 * fold + 0.1 * np.sin(_COLS * 2 * np.pi / 7.0 + sway * 3)


def _carpet(rng: np.random.Generator) -> np.ndarray:
    side = int(rng.integers(20, 29))
    reach = np.abs(_COLS % side - side / 2) + np.abs(_ROWS % side - side / 2)
    rings = np.floor(reach / side * 4.0) % 3 / 2.0
    weave = 0.10 * ((_ROWS + _COLS) % 2) + 0.10 * _grain(rng)
    return 0.08 + 0.75 * rings + weave


_FAMILIES: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    "sky": _sky, "sea": _sea, "grass": _grass, "sand": _sand, "road": _road, "wall": _wall,
    "floor": _floor, "snow": _snow, "fence": _fence, "gravel": _gravel, "field": _field,
    "lava": _lava, "curtain": _curtain, "carpet": _carpet,
}  # fmt: skip

# Colours at brightness 0, 1/2 and 1.
_RAMPS: dict[str, tuple[tuple[Colour, Colour, Colour], ...]] = {
    "sky": (
        ((70, 140, 225), (140, 190, 240), (250, 250, 252)),
        ((110, 175, 235), (165, 205, 240), (255, 255, 255)),
        ((240, 140, 90), (250, 185, 130), (255, 225, 190)),
        ((130, 110, 190), (200, 150, 200), (250, 205, 215)),
        ((150, 165, 185), (185, 195, 208), (230, 235, 240)),
        ((18, 22, 62), (40, 46, 96), (96, 102, 146)),
    ),
    "sea": (
        ((14, 62, 130), (40, 110, 180), (235, 245, 250)),
        ((10, 90, 120), (30, 150, 165), (230, 250, 245)),
        ((20, 70, 90), (50, 115, 125), (220, 235, 230)),
    ),
    "grass": (
        ((22, 78, 24), (66, 142, 46), (150, 205, 90)),
        ((46, 88, 20), (110, 150, 46), (190, 210, 96)),
        ((14, 66, 40), (40, 120, 66), (120, 185, 110)),
    ),
    "sand": (
        ((170, 134, 84), (222, 190, 134), (246, 226, 180)),
        ((186, 140, 70), (232, 190, 106), (250, 224, 152)),
        ((176, 152, 120), (216, 198, 168), (240, 230, 208)),
    ),
    "road": (
        ((38, 38, 42), (100, 100, 104), (244, 244, 238)),
        ((52, 50, 48), (112, 108, 104), (242, 206, 60)),
        ((28, 32, 40), (84, 90, 100), (240, 240, 240)),
    ),
    "wall": (
        ((206, 198, 186), (164, 74, 54), (196, 106, 78)),
        ((190, 184, 176), (140, 92, 64), (188, 138, 98)),
        ((88, 84, 82), (150, 146, 142), (204, 200, 196)),
        ((120, 112, 104), (214, 186, 140), (240, 220, 180)),
    ),
    "snow": (
        ((150, 180, 226), (206, 222, 244), (246, 250, 255)),
        ((166, 172, 216), (214, 216, 240), (248, 248, 255)),
        ((170, 188, 206), (214, 224, 234), (248, 250, 252)),
    ),
    "fence": (
        ((46, 30, 18), (140, 96, 56), (194, 146, 94)),
        ((70, 70, 72), (214, 212, 206), (252, 250, 246)),
        ((24, 44, 36), (70, 124, 100), (126, 178, 148)),
    ),
    "gravel": (
        ((40, 40, 42), (128, 126, 124), (214, 212, 208)),
        ((52, 42, 34), (146, 124, 102), (216, 198, 174)),
        ((34, 40, 50), (110, 122, 138), (190, 202, 214)),
    ),
    "field": (
        ((92, 58, 30), (96, 124, 40), (150, 190, 70)),
        ((110, 74, 40), (196, 158, 54), (238, 208, 100)),
        ((70, 46, 28), (50, 120, 50), (110, 176, 84)),
    ),
    "lava": (
        ((20, 12, 14), (206, 52, 14), (255, 216, 70)),
        ((34, 22, 22), (230, 80, 16), (255, 236, 120)),
        ((12, 10, 16), (180, 28, 20), (255, 170, 50)),
    ),
}  # fmt: skip


@cache
def texture_tile(split: str, name: str, number: int) -> np.ndarray:
    """One brightness tile of a stuff class.

    Args:
        split: "train", "val" or "test"; no two splits share a tile.
        name: the stuff class.
        number: which of the TILES_PER_CLASS tiles.

    Returns:
        (256, 256) uint8, read-only.
    """
    seed = [ord(letter) for letter in f"{split}/{name}/{number}"]
    tile = _FAMILIES[name](np.random.default_rng(seed))
    tile = np.rint(np.clip(tile, 0, 1) * 255).astype(np.uint8)
    tile.flags.writeable = False
    return tile


def colour_ramp(rng: random.Random, name: str) -> np.ndarray:
    """A random colour ramp for a stuff class.

    Args:
        rng: the picture's random stream.
        name: the stuff class; floors, curtains and carpets may have any colour.

    Returns:
        (256, 3) uint8 colours from brightness 0 to 255.
    """
    if name == "curtain":
        main = COLOURS[rng.choice(list(COLOURS))]
        stops = [tuple(int(c * f) for c in main) for f in (0.45, 0.8, 1.15)]
    elif name in ("floor", "carpet"):
        first, second = rng.sample(list(COLOURS.values()), 2)
        middle = COLOURS["white"] if name == "carpet" else COLOURS["grey"]
        stops = [first, middle, second]
    else:
        stops = list(rng.choice(_RAMPS[name]))
    shift = rng.uniform(-14, 14)
    table = np.array([[c + shift + rng.uniform(-10, 10) for c in stop] for stop in stops])
    at = np.arange(256) / 255.0 * 2.0
    ramp = np.stack([np.interp(at, (0, 1, 2), table[:, c]) for c in range(3)], -1)
    return ramp.clip(0, 255).astype(np.uint8)


def paint_texture(
    rng: random.Random, split: str, name: str, size: tuple[int, int], *, zoom: float = 1.0
) -> np.ndarray:
    """A picture full of one stuff.

    Args:
        rng: the picture's random stream.
        split: whose tiles to use.
        name: the stuff class.
        size: (height, width).
        zoom: enlargement of the pattern; a random one of 0.85-1.35 comes on top.

    Returns:
        (height, width, 3) uint8 RGB.
    """
    tile = texture_tile(split, name, rng.randrange(TILES_PER_CLASS))
    zoom *= rng.uniform(0.85, 1.35)
    height, width = (min(max(round(s / zoom), 8), TILE_SIZE) for s in size)
    y, x = rng.randint(0, TILE_SIZE - height), rng.randint(0, TILE_SIZE - width)
    crop = tile[y : y + height, x : x + width]
    if rng.random() < 0.5:
        crop = crop[:, ::-1]
    crop = cv2.resize(np.ascontiguousarray(crop), size[::-1], interpolation=cv2.INTER_LINEAR)
    return colour_ramp(rng, name)[crop]  # (height, width, 3)
