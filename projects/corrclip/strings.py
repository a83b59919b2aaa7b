"""Several strings for a class in one line, as CorrCLIP's class files have them."""

from __future__ import annotations

from dataclasses import replace

from ovseg.vocab import Vocabulary


def with_strings(vocabulary: Vocabulary, separator: str = "; ") -> Vocabulary:
    """Split the strings that stand for a class where they hold several.

    Args:
        vocabulary: K classes.
        separator: between strings; "" splits nothing.

    Returns:
        The same classes; each has its strings, stripped, in their order.
    """
    if not separator:
        return vocabulary
    prompts = []
    for texts in vocabulary.prompts:
        parts = (part.strip() for text in texts for part in text.split(separator))
        prompts.append(tuple(part for part in parts if part) or texts)
    return replace(vocabulary, prompts=tuple(prompts))
