"""Words for messages."""

from __future__ import annotations

import html

__all__ = ["counted", "markdown_text", "printable"]


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


def printable(text: str) -> str:
    """Replace what steers a terminal instead of being seen on it.

    Args:
        text: any text, for example from a file.

    Returns:
        The text with each control character, line breaks included, as a space.
    """
    return "".join(letter if letter.isprintable() or letter == " " else " " for letter in text)


def markdown_text(text: str) -> str:
    """Write a text from outside into a page of Markdown, where it is only ever text.

    Args:
        text: any text.

    Returns:
        It in one line, without HTML, safe in a cell of a table.
    """
    return html.escape(printable(text), quote=False).replace("|", "\\|")
