"""Class lists of the benchmarks: one JSON file per list, in the order of the label ids.

A file has `names`, and where the benchmark has them `ids` (the raw ids of its annotation files),
`synonyms` (per class the strings that stand for it) and `background` (an index). `about` says what
the list is. The strings are exactly those of the released class lists, spaces included.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources


@dataclass(frozen=True)
class ClassList:
    """The classes of a benchmark.

    Args:
        names: K names as released, not stripped.
        ids: per class the id in the raw annotation files, or None where they equal `train_ids`.
        train_ids: per class the id used in training and evaluation: 0..K-1.
        synonyms: per class the strings that stand for it; `(name,)` where the list gives none.
        background: index of the class for "none of the others", if the benchmark has one.
        about: one sentence on what the list is.
    """

    names: tuple[str, ...]
    ids: tuple[int, ...] | None
    train_ids: tuple[int, ...]
    synonyms: tuple[tuple[str, ...], ...]
    background: int | None
    about: str

    def __len__(self) -> int:
        return len(self.names)


def class_list_names() -> tuple[str, ...]:
    """Return the names of the class lists that are shipped, sorted."""
    files = resources.files(__name__).iterdir()
    return tuple(sorted(f.name[: -len(".json")] for f in files if f.name.endswith(".json")))


@cache
def class_list(name: str) -> ClassList:
    """Read a class list.

    Args:
        name: such as "coco_stuff_171".

    Returns:
        The list.

    Raises:
        ValueError: if there is no such list.
    """
    if name not in class_list_names():
        raise ValueError(
            f"expected the name of a class list, got {name!r}; valid: "
            f"{', '.join(class_list_names())}. Pass your own names to Vocabulary.make."
        )
    text = resources.files(__name__).joinpath(f"{name}.json").read_text(encoding="utf-8")
    data = json.loads(text)
    names = tuple(data["names"])
    synonyms = data.get("synonyms", {})
    return ClassList(
        names=names,
        ids=tuple(data["ids"]) if "ids" in data else None,
        train_ids=tuple(range(len(names))),
        synonyms=tuple(tuple(synonyms.get(class_name, [class_name])) for class_name in names),
        background=data.get("background"),
        about=data["about"],
    )
