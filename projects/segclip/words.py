"""Which words SegCLIP asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ovseg.vocab import Vocabulary


def read_words(pairs: Sequence[str]) -> dict[str, str]:
    """Read MODEL.SEGCLIP.TEST.WORDS.

    Args:
        pairs: "name=word" each, what is asked in the place of a class's name.

    Returns:
        Word by name.

    Raises:
        ValueError: one of them has another form.
    """
    wrong = [pair for pair in pairs if not all(part.strip() for part in pair.partition("="))]
    if wrong:
        raise ValueError(
            f"MODEL.SEGCLIP.TEST.WORDS: expected 'name=word' of each entry, got {wrong[0]!r}"
        )
    return {name.strip(): word.strip() for name, word in (pair.split("=", 1) for pair in pairs)}


def without_background(vocabulary: Vocabulary) -> Vocabulary:
    """Leave out the background, which SegCLIP never asks for.

    Args:
        vocabulary: with or without one.

    Returns:
        The other classes.

    Raises:
        ValueError: there are none.
    """
    if vocabulary.background is None:
        return vocabulary
    named = [k for k in range(len(vocabulary)) if k != vocabulary.background]
    if not named:
        raise ValueError(
            "expected at least one class besides the background, got only "
            f"{vocabulary.names[vocabulary.background]!r}; name what is to be found"
        )
    return replace(
        vocabulary,
        names=tuple(vocabulary.names[k] for k in named),
        prompts=tuple(vocabulary.prompts[k] for k in named),
        background=None,
    )
