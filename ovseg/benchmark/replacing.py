"""Another function in the place of one, for as long as something is measured."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["replaced"]


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Set an attribute of an object or a class, and what it had itself again afterwards.

    Args:
        owner: the object.
        name: of the attribute; one that comes from the object's class is uncovered again.
        value: for the block.
    """
    own = vars(owner)
    before = {name: own[name]} if name in own else {}
    setattr(owner, name, value)
    try:
        yield
    finally:
        delattr(owner, name)
        for known, previous in before.items():
            setattr(owner, known, previous)
