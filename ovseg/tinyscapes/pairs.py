"""Image-text pairs for pre-training a CLIP: close-ups and whole scenes, never masked crops."""

from __future__ import annotations

import random

import cv2
import numpy as np

from .canvas import Canvas
from .captions import close_up_caption, scene_caption, stuff_caption
from .scenes import choose_grounds, compose, picture_stream, usual_ground
from .world import CLASSES, STUFF_IDS, THING_IDS, THINGS_OF_GROUND

CLOSE_UP_SHARE = 0.72
STUFF_SHARE = 0.35


def render_pair(index: int, *, split: str = "train", size: int = 64) -> tuple[np.ndarray, str]:
    """Draws one picture with one caption; a pure function of its arguments.

    Args:
        index: the pair's number, >= 0.
        split: whose textures and shapes to use.
        size: side of the square picture in pixels.

    Returns:
        (size, size, 3) uint8 RGB, and the caption.

    Raises:
        ValueError: unknown split or negative index.
    """
    rng = picture_stream("pair", split, index)
    if rng.random() >= CLOSE_UP_SHARE:
        canvas = compose(rng, split)
        caption = scene_caption(rng, canvas, canvas.visible_pixels())
    elif rng.random() < STUFF_SHARE:
        canvas, caption = _stuff_patch(rng, split)
    else:
        canvas, caption = _thing_close_up(rng, split)
    return _to_square(canvas.develop(), size), caption


def _to_square(image: np.ndarray, size: int) -> np.ndarray:
    shrinks = image.shape[0] > size or image.shape[1] > size
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(image, (size, size), interpolation=method)


def _thing_close_up(rng: random.Random, split: str) -> tuple[Canvas, str]:
    """A loose frame around one thing, with the ground it stands on or in."""
    side = rng.randint(34, 88)
    frame = (side, round(side * rng.uniform(0.8, 1.25)))
    class_id = rng.choice(THING_IDS)
    wanted = usual_ground(rng, class_id)
    grounds = choose_grounds(rng, wanted)
    keep = wanted if wanted else rng.choice(grounds)
    radius = side * rng.uniform(0.27, 0.47)
    x = frame[1] * rng.uniform(0.4, 0.6)
    y = side * rng.uniform(0.42, 0.58)
    at = grounds.index(keep)
    if rng.random() < 0.5 or len(grounds) == 1:
        canvas = Canvas(rng, split, frame, [keep], [])
    else:
        foot = (y if CLASSES[class_id].floats else y + 0.95 * radius) / side
        if at > 0:
            canvas = Canvas(rng, split, frame, grounds[at - 1 : at + 1], [rng.uniform(0.2, foot)])
        else:
            canvas = Canvas(rng, split, frame, grounds[:2], [rng.uniform(min(foot, 0.9), 1.05)])
    canvas.scatter_clutter(rng.randint(0, 2))
    if rng.random() < 0.15:
        edge = rng.choice((-0.15, 1.15)) * frame[1]
        canvas.place_thing(rng.choice(THING_IDS), edge, side * rng.uniform(0.3, 0.7), radius)
    thing = canvas.place_thing(class_id, x, y, radius)
    return canvas, close_up_caption(rng, thing)


def _stuff_patch(rng: random.Random, split: str) -> tuple[Canvas, str]:
    """A patch of one stuff, sometimes with a neighbour or with small unnamed things on it."""
    height = rng.randint(36, 96)
    frame = (height, min(round(height * rng.uniform(0.8, 2.0)), 160))
    class_id = rng.choice(STUFF_IDS)
    name = CLASSES[class_id].name
    other = None
    if rng.random() < 0.35:
        grounds = choose_grounds(rng, name)
        at = grounds.index(name)
        pair = grounds[at - 1 : at + 1] if at > 0 else grounds[:2]
        border = rng.uniform(0.08, 0.35) if at > 0 else rng.uniform(0.65, 0.92)
        canvas = Canvas(rng, split, frame, pair, [border])
        other = canvas.classes[0 if at > 0 else 1]
    else:
        canvas = Canvas(rng, split, frame, [name], [])
    canvas.scatter_clutter(rng.randint(0, 4))
    if rng.random() < 0.35:
        usual = THINGS_OF_GROUND[name]
        for _ in range(rng.randint(1, 2)):
            thing = rng.choice(usual if usual and rng.random() < 0.5 else THING_IDS)
            x, y = rng.uniform(0, 1) * frame[1], rng.uniform(0, 1) * height
            canvas.place_thing(thing, x, y, height * rng.uniform(0.12, 0.26))
    return canvas, stuff_caption(rng, class_id, other)
