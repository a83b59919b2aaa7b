"""Class lists of the benchmarks: one JSON file per list, in the order of the label ids.

A file has `names`, and where the benchmark has them `ids` (the raw ids of its annotation files),
`synonyms` (per class the strings that stand for it), `background` (an index), `unseen` (names of
classes that training labels do not show) and `stuff` (names of uncountable classes). `about` says
what the list is. The strings are exactly those of the released class lists, spaces included.
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
        unseen: ids of the classes that training labels do not show.
        stuff: ids of the uncountable classes, or None where the list does not say.
    """

    names: tuple[str, ...]
    ids: tuple[int, ...] | None
    train_ids: tuple[int, ...]
    synonyms: tuple[tuple[str, ...], ...]
    background: int | None
    about: str
    unseen: tuple[int, ...] = ()
    stuff: tuple[int, ...] | None = None

    def __len__(self) -> int:
        return len(self.names)

    @property
    def seen(self) -> tuple[int, ...]:
        """Ids of the classes that training labels show."""
        return tuple(index for index in self.train_ids if index not in self.unseen)

    @property
    def groups(self) -> dict[str, tuple[int, ...]]:
        """Ids of seen and unseen things and stuff, by "seen_things" and so on.

        Empty where the list does not tell them apart.
        """
        if self.stuff is None or not self.unseen:
            return {}
        things = tuple(index for index in self.train_ids if index not in self.stuff)
        return {
            f"{word}_{kind}": tuple(index for index in ids if index in of_kind)
            for kind, of_kind in (("things", things), ("stuff", self.stuff))
            for word, ids in (("seen", self.seen), ("unseen", self.unseen))
        }


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
        unseen=tuple(names.index(class_name) for class_name in data.get("unseen", [])),
        stuff=tuple(map(names.index, data["stuff"])) if "stuff" in data else None,
    )
