"""Lists of present classes that a language model wrote, as text."""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["kept_positions"]

_ID = re.compile(r"(\d+)\s*:")
# "5: 71%", "5: 71" or a bare "71%"; ids before a colon are no numbers of their own.
_PERCENTAGE = re.compile(r"(?:\d+\s*:\s*)?(\d+(?:\.\d+)?)\s*%?\s*(?=[,\]\s]|$)")


def kept_positions(
    answer: str, ids: Sequence[int], *, min_probability: float = 70.0
) -> tuple[int, ...]:
    """Read which classes an answer lists with a high enough probability.

    An answer is a list of `id: name`, then a list of percentages, in any of the ways in which these
    were written: names quoted or not, percentages with their id or without, with "%" or without.
    Without the second list every class of the first counts as sure.

    Args:
        answer: the text; "" lists none.
        ids: per class of the vocabulary the id that stands for it.
        min_probability: percentages must exceed this.

    Returns:
        Positions in the vocabulary, in the order of the answer, each once; the first class where
        nothing is kept.
    """
    named, _, rest = answer.partition("]")
    listed = [int(found) for found in _ID.findall(named)]
    percentages = [float(found) for found in _PERCENTAGE.findall(rest.partition("[")[2])]
    if not percentages:
        percentages = [100.0] * len(listed)
    places = {number: position for position, number in enumerate(ids)}
    kept = [
        places[number]
        for number, percentage in zip(listed, percentages, strict=False)
        if percentage > min_probability and number in places
    ]
    return tuple(dict.fromkeys(kept)) or (0,)
