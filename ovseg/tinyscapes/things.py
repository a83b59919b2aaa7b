"""All things' outlines, each in a fixed number of variations per split."""

from __future__ import annotations

import random
from functools import cache

from . import things_seen, things_unseen
from .shapes import Outline

VARIANTS_PER_CLASS = 24

_PAINTERS = {**things_seen.PAINTERS, **things_unseen.PAINTERS}


@cache
def thing_outline(split: str, name: str, number: int) -> Outline:
    """One variation of a thing's shape.

    Args:
        split: whose variations to use; every split has its own.
        name: the thing's class name.
        number: which of the VARIANTS_PER_CLASS variations.
    """
    return Outline(_PAINTERS[name](random.Random(f"tinyscapes/shape/{split}/{name}/{number}")))
