"""A memory bank without models: vectors follow from the regions' colours."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
from PIL import Image

from ovseg.projects.corrclip.bank.work import BankParts
from ovseg.projects.corrclip.regions.plain import GridRegions


class ToyDescriber:
    """Keys are mean colours, values their differences."""

    features = "toy/colours"
    encoders = ("toy/one", "two")

    def __init__(self, factor=1.0, pause=0.0):
        self.settings = {"factor": factor}
        self.factor, self.pause = factor, pause

    def __call__(self, image, regions):
        time.sleep(self.pause)
        ids = np.unique(regions[regions > 0])
        colours = np.stack([image[regions == one].mean(axis=0) for one in ids])
        keys = (colours / 64 * self.factor).astype(np.float32)
        values = np.concatenate([keys, keys[:, ::-1] - 1], axis=1)
        values /= np.linalg.norm(values, axis=1, keepdims=True)
        return keys, {"toy/one": values, "two": values[:, :4]}


class ToyRegions(GridRegions):
    """Two by two cells; dark pictures have none, bright ones cannot be cut."""

    name = "toy regions"

    def __init__(self):
        super().__init__(2, 2)
        self.name = "toy regions"

    def __call__(self, image, image_id):
        if image.mean() > 250:
            raise ValueError("too bright")
        regions = super().__call__(image, image_id)
        return regions if image.mean() > 5 else np.zeros_like(regions)


def make_parts():
    return BankParts(ToyRegions(), ToyDescriber())


def make_slow_parts():
    return BankParts(ToyRegions(), ToyDescriber(pause=0.02))


def make_other_parts():
    return BankParts(ToyRegions(), ToyDescriber(factor=2.0))


class DyingDescriber(ToyDescriber):
    """Ends its process, as a kill would, at its third picture."""

    left = 3

    def __call__(self, image, regions):
        self.left -= 1
        if self.left < 0:
            os._exit(9)
        return super().__call__(image, regions)


def make_dying_parts():
    return BankParts(ToyRegions(), DyingDescriber())


def write_pictures(folder: Path, count: int, *, first: int = 0) -> Path:
    """Write pictures of 2 x 2 colours with names that are not in the order of their numbers."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + count):
        colours = np.random.default_rng(number).integers(20, 230, (2, 2, 3), np.uint8)
        name = f"{(number * 7) % 97:02d}.png"
        Image.fromarray(colours.repeat(6, 0).repeat(8, 1)).save(folder / name)
    return folder
