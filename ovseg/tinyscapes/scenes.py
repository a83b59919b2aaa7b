"""Whole scenes: two or three grounds and two to five things, mostly where things usually are."""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np

from .canvas import Canvas
from .captions import scene_caption
from .world import (
    CLASSES,
    CONTEXT_BIAS,
    INDOOR_BOTTOMS,
    INDOOR_TOPS,
    OUTDOOR_BOTTOMS,
    OUTDOOR_MIDDLES,
    OUTDOOR_TOPS,
    SPLITS,
    STUFF_IDS,
    THING_IDS,
    THINGS_OF_GROUND,
)

SCENE_SIZES: tuple[tuple[int, int], ...] = ((128, 128), (128, 160), (160, 128))
CAPTIONS_PER_SCENE = 5
MIN_INSTANCE_PIXELS = 16

_STUFF_NAMES = tuple(CLASSES[i].name for i in STUFF_IDS)


@dataclass(frozen=True)
class Scene:
    """A picture with its full truth.

    Args:
        image: (H, W, 3) uint8 RGB.
        labels: (H, W) uint8 class ids, unseen classes included, no ignore value.
        instances: visible things as (class id, (H, W) bool mask), from back to front.
        captions: sentences that say some of what is there.
    """

    image: np.ndarray
    labels: np.ndarray
    instances: list[tuple[int, np.ndarray]]
    captions: list[str]


def picture_stream(kind: str, split: str, index: int) -> random.Random:
    """The random stream of one picture; equal arguments give equal pictures.

    Raises:
        ValueError: unknown split or negative index.
    """
    if split not in SPLITS:
        raise ValueError(f"expected a split of {', '.join(SPLITS)}, got {split!r}")
    if index < 0:
        raise ValueError(f"expected a picture index >= 0, got {index}")
    return random.Random(f"tinyscapes/{kind}/{split}/{index}")


def choose_grounds(rng: random.Random, wanted: str | None = None) -> list[str]:
    """Names of grounds from top to bottom.

    Args:
        rng: the picture's random stream.
        wanted: a stuff that should be among them.
    """
    grounds = _any_grounds(rng)
    if wanted is None:
        return grounds
    for _ in range(60):
        if wanted in grounds:
            return grounds
        grounds = _any_grounds(rng)
    return [wanted, *[name for name in grounds if name != wanted][:1]]


def _any_grounds(rng: random.Random) -> list[str]:
    kind = rng.random()
    if kind < 0.15:
        return rng.sample(_STUFF_NAMES, rng.choice((2, 2, 3)))
    if kind < 0.40:
        return [rng.choice(INDOOR_TOPS), rng.choice(INDOOR_BOTTOMS)]
    bottom = rng.choice(OUTDOOR_BOTTOMS)
    middle = rng.choice(OUTDOOR_MIDDLES)
    top = rng.choice(OUTDOOR_TOPS)
    if rng.random() < 0.45 or middle == bottom:
        return [top, bottom]
    if rng.random() < 0.15:
        return [middle, bottom]
    return [top, middle, bottom]


def choose_borders(rng: random.Random, count: int) -> list[float]:
    """Mean heights, as shares of the picture, of the borders between `count` grounds."""
    if count == 1:
        return []
    if count == 2:
        return [rng.uniform(0.3, 0.65)]
    return [rng.uniform(0.24, 0.42), rng.uniform(0.56, 0.76)]


def usual_ground(rng: random.Random, class_id: int) -> str | None:
    """One of a thing's usual grounds with probability CONTEXT_BIAS, else None."""
    grounds = CLASSES[class_id].grounds
    return rng.choice(grounds) if rng.random() < CONTEXT_BIAS else None


def compose(rng: random.Random, split: str) -> Canvas:
    """Draws a scene (not yet lit).

    Args:
        rng: the picture's random stream.
        split: whose textures and shapes to use.
    """
    size = rng.choice(SCENE_SIZES)
    lead = rng.choice(THING_IDS)
    wanted = usual_ground(rng, lead)
    grounds = choose_grounds(rng, wanted)
    canvas = Canvas(rng, split, size, grounds, choose_borders(rng, len(grounds)))
    canvas.scatter_clutter(rng.randint(0, 7))
    plan = [(lead, wanted)]
    for _ in range(rng.randint(1, 4)):
        ground = rng.choice(grounds)
        usual = THINGS_OF_GROUND[ground]
        if usual and rng.random() < CONTEXT_BIAS:
            plan.append((rng.choice(usual), ground))
        else:
            plan.append((rng.choice(THING_IDS), None))
    if rng.random() < 0.25:
        plan[-1] = plan[0]  # twins, so that captions can count
    spots = [(_find_spot(canvas, thing, ground), thing) for thing, ground in plan]
    taken: list[tuple[float, float, float]] = []
    for (x, y, radius), thing in sorted(spots, key=lambda s: s[0][1] + s[0][2]):
        x, y = _avoid(rng, canvas, (x, y, radius), taken)
        taken.append((x, y, radius))
        canvas.place_thing(thing, x, y, radius)
    return canvas


def _find_spot(canvas: Canvas, class_id: int, ground: str | None) -> tuple[float, float, float]:
    """(x, y, radius) with the thing's anchor on the wanted ground, if that can be found."""
    rng, (height, width) = canvas.rng, canvas.size
    names = [CLASSES[i].name for i in canvas.classes]
    floats = CLASSES[class_id].floats
    x = y = radius = 0.0
    for _ in range(12):
        x = rng.uniform(0.06 * width, 0.94 * width)
        anchor = rng.uniform(0.08 * height, 0.97 * height)
        radius = rng.uniform(13, 28) * (0.8 + 0.45 * anchor / height)
        y = anchor if floats else anchor - 0.95 * radius
        if y < 0.3 * radius:
            continue
        if ground is None or names[canvas.ground_at(x, anchor)] == ground:
            break
    return x, max(y, 0.3 * radius), radius


def _avoid(
    rng: random.Random,
    canvas: Canvas,
    spot: tuple[float, float, float],
    taken: list[tuple[float, float, float]],
) -> tuple[float, float]:
    """Moves a spot sideways off earlier things, except for some that may overlap."""
    x, y, radius = spot
    reach = 0.75
    if rng.random() < 0.3:
        reach = 0.4
    for _ in range(8):
        close = any(
            abs(x - tx) < reach * (radius + tr) and abs(y - ty) < reach * (radius + tr)
            for tx, ty, tr in taken
        )
        if not close:
            break
        x = rng.uniform(0.06, 0.94) * canvas.size[1]
    return x, y


def render_scene(split: str, index: int) -> Scene:
    """Draws one scene; a pure function of its arguments.

    Args:
        split: "train", "val" or "test".
        index: the scene's number, >= 0.

    Returns:
        the picture with labels, instances and captions.

    Raises:
        ValueError: unknown split or negative index.
    """
    rng = picture_stream("scene", split, index)
    canvas = compose(rng, split)
    image = canvas.develop()
    visible = canvas.visible_pixels()
    instances = [
        (thing.class_id, canvas.owners == thing.number)
        for thing in canvas.things
        if visible[thing.number] >= MIN_INSTANCE_PIXELS
    ]
    captions = [scene_caption(rng, canvas, visible) for _ in range(CAPTIONS_PER_SCENE)]
    return Scene(image, canvas.labels(), instances, captions)
