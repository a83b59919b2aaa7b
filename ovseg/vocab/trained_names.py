"""Which classes of a vocabulary a model was trained on, told by their names.

Names are compared in lower case, a hyphen or underscore as a space. A name with commas, as ADE20K
has them, is each of its parts; a trained one such as "wall-brick", as COCO-Stuff has them, is also
a "wall".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ovseg.vocab.classes import class_list
from ovseg.vocab.vocabulary import Vocabulary

__all__ = ["are_trained", "trained_names"]


def trained_names(list_name: str, further: Sequence[str] = ()) -> frozenset[str]:
    """Collect the names that training on a class list has shown.

    Args:
        list_name: such as "coco_stuff_171"; of a list with unseen classes only the seen ones count.
            "" names none.
        further: names besides those of the list.

    Returns:
        The names as `are_trained` compares them.

    Raises:
        ValueError: there is no such list.
    """
    texts = list(further)
    if list_name:
        classes = class_list(list_name)
        for index in classes.seen:
            texts += (classes.names[index], *classes.synonyms[index])
    return frozenset(form for t in texts for form in (*_forms(t), *_forms(t.split("-")[0])))


def are_trained(vocabulary: Vocabulary, trained: frozenset[str]) -> tuple[bool, ...]:
    """Tell the classes whose name, or one of the strings that stand for it, was trained on.

    Args:
        vocabulary: K classes.
        trained: of `trained_names`.

    Returns:
        K answers.
    """
    return tuple(
        any(form in trained for text in (name, *prompts) for form in _forms(text))
        for name, prompts in zip(vocabulary.names, vocabulary.prompts, strict=True)
    )


def _forms(text: str) -> Iterator[str]:
    for part in text.casefold().replace("-", " ").replace("_", " ").split(","):
        if words := part.split():
            yield " ".join(words)
