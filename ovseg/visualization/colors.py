"""Colours that belong to class names."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np
from scipy.spatial.distance import cdist

BLANK_COLOR = (0, 0, 0)
BACKGROUND_COLOR = (128, 128, 128)

_NUM_CANDIDATES = 64  # colours a name may fall back on
_MIN_COLOR_DISTANCE = 30.0  # CIE76 distance below which two colours are hard to tell apart


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
