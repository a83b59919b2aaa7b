"""Words for messages."""

from __future__ import annotations

__all__ = ["counted"]


def counted(number: int, one: str, many: str = "") -> str:
    """Say how many there are of something.

    Args:
        number: how many.
        one: what one of them is called; a verb may follow ("label map differs").
        many: what several are called; "" appends an s.

    Returns:
        "1 fault", "2 faults".
    """
    return f"{number} {one if number == 1 else many or one + 's'}"
