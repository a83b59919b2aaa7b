"""Captions that list class names, and from the maps of their tokens to maps of the classes."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["WORD_RULES", "Caption", "Wording", "class_maps", "make_captions", "rows_of_classes"]

WORD_RULES = ("mean", "last", "join")
_SPECIAL = 2  # [ENC] and [SEP]


@dataclass(frozen=True)
class Caption:
    """A prompt with the names of some classes.

    Args:
        words: of the whole caption, in order.
        classes: per class the positions of its words.
    """

    words: tuple[str, ...]
    classes: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Wording:
    """How classes become a caption.

    Args:
        prefix: what it begins with.
        rule: for names of several words: "join" makes one word of them, without spaces and
            hyphens; "mean" and "last" keep them, and say whose maps count (`class_maps`).
        separator: a name ends where this begins; "" keeps all of it.
        rename: pairs of a name and what is asked for in its place.
        max_tokens: of a caption.

    Raises:
        ValueError: an unknown rule.
    """

    prefix: str = "A picture of"
    rule: str = "mean"
    separator: str = ""
    rename: tuple[tuple[str, str], ...] = ()
    max_tokens: int = 500

    def __post_init__(self) -> None:
        if self.rule not in WORD_RULES:
            raise ValueError(
                f"MODEL.PNP_OVSS.PROMPT.WORDS: expected one of {WORD_RULES}, got {self.rule!r}"
            )

    def words(self, name: str) -> tuple[str, ...]:
        """Choose the words that a caption has for a class.

        Args:
            name: of the class.

        Returns:
            The words.

        Raises:
            ValueError: nothing is left of the name.
        """
        asked = dict(self.rename).get(name, name)
        asked = asked.split(self.separator)[0] if self.separator else asked
        joined = re.sub(r"[\s-]+", "", asked)
        if not joined:
            raise ValueError(f"expected a class name with a word in it, got {name!r}")
        return (joined,) if self.rule == "join" else tuple(asked.split())


def make_captions(
    names: Sequence[Sequence[str]],
    *,
    prefix: str,
    pieces: Callable[[str], int],
    max_tokens: int,
) -> list[Caption]:
    """List classes in as few captions as hold them, in order.

    Args:
        names: per class its words.
        prefix: what each caption begins with.
        pieces: counts the word pieces of a word.
        max_tokens: of a caption, two special ones included.

    Returns:
        The captions; together they have all classes, none twice.

    Raises:
        ValueError: no class, or one whose name does not fit into a caption.
    """
    if not names:
        raise ValueError("expected at least one class to ask for, got none")
    start = tuple(prefix.split())
    room = max_tokens - _SPECIAL - sum(map(pieces, start))
    captions, left = [], room
    words: list[str] = list(start)
    classes: list[tuple[int, ...]] = []
    for name in names:
        size = sum(map(pieces, name))
        if not 0 < size <= room:
            raise ValueError(
                f"expected class names of 1 to {room} word pieces (captions have {max_tokens} "
                f"tokens), got {size} for {' '.join(name)!r}; give a shorter name"
            )
        if size > left:
            captions.append(Caption(tuple(words), tuple(classes)))
            words, classes, left = list(start), [], room
        classes.append(tuple(range(len(words), len(words) + len(name))))
        words += name
        left -= size
    return [*captions, Caption(tuple(words), tuple(classes))]


def rows_of_classes(words: Sequence[int | None], caption: Caption) -> Tensor:
    """Tell which tokens are part of a class name.

    Args:
        words: per token after [ENC] the index of its word.
        caption: what the tokens are of.

    Returns:
        (T - 1,) bool.
    """
    named = {position for positions in caption.classes for position in positions}
    return torch.tensor([word in named for word in words])


def class_maps(
    maps: Tensor, words: Sequence[int | None], caption: Caption, *, rule: str = "mean"
) -> Tensor:
    """Merge the maps of word pieces: a word's is the mean of its pieces', a class's of its words'.

    Args:
        maps: (T - 1, h, w) of the tokens after [ENC].
        words: per token the index of its word, None for special tokens.
        caption: what the tokens are of.
        rule: "last" takes a class's last word alone, other rules all of them.

    Returns:
        (K, h, w).
    """
    rows: dict[int, list[int]] = {}
    for row, word in enumerate(words):
        if word is not None:
            rows.setdefault(word, []).append(row)
    found = []
    for positions in caption.classes:
        counted = positions[-1:] if rule == "last" else positions
        of_words = [maps[rows[position]].mean(0) for position in counted if position in rows]
        found.append(torch.stack(of_words).mean(0))
    return torch.stack(found)  # (K, h, w)
