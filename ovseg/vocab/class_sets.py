"""Named sets of classes that get scores of their own, and what the rest of the classes is called.

A score of a set is named after it, as in `mIoU-seen`, `mIoU-gt-seen`, `pAcc-seen` and `hIoU-seen`,
so a set must not be called what another score is called.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

__all__ = ["ClassSets"]

# mIoU and hIoU of the other convention are mIoU-gt and hIoU-gt.
_RESERVED = "gt"
_OPPOSITES = {"seen": "unseen", "unseen": "seen"}


@dataclass(frozen=True)
class ClassSets:
    """Sets of classes, each against the rest, and groups for themselves.

    Make one with `ClassSets.make`, which completes and checks them.

    Args:
        compared: ids by name of the sets that are given, each followed by its counterpart.
        pairs: names of a set and its counterpart, between which a harmonic mean is taken.
        groups: ids by name of the groups without a counterpart.
    """

    compared: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    pairs: Sequence[tuple[str, str]] = ()
    groups: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def all(self) -> dict[str, tuple[int, ...]]:
        """Ids of all of them by name."""
        return {**self.compared, **self.groups}

    @classmethod
    def make(
        cls,
        evaluation_set: Mapping[str, Sequence[int]] | None,
        class_groups: Mapping[str, Sequence[int]] | None,
        num_classes: int,
    ) -> ClassSets:
        """Complete and check what the metadata of a dataset say.

        The counterpart of a set is the one of the opposite name (`unseen` of `seen`), or the one of
        all other classes, where such a set is given; else it is made of all other classes, and
        called `unseen`, `seen`, or `not-` and the set's name. A harmonic mean has the name of the
        one of the two that is given first.

        Args:
            evaluation_set: class ids by name of sets that are compared with their counterparts.
            class_groups: class ids by name of groups without a counterpart.
            num_classes: number of classes K.

        Returns:
            All sets, ids in ascending order.

        Raises:
            ValueError: an id is none of 0..K-1, a name is reserved, or it stands for two sets.
        """
        given, groups = (
            {name: _checked(name, ids, num_classes) for name, ids in (sets or {}).items()}
            for sets in (evaluation_set, class_groups)
        )
        compared: dict[str, tuple[int, ...]] = {}
        pairs: list[tuple[str, str]] = []
        for name, ids in given.items():
            rest = tuple(index for index in range(num_classes) if index not in ids)
            opposite = _OPPOSITES.get(name, f"not-{name}")
            if opposite not in given:
                opposite = next((other for other, ids in given.items() if ids == rest), opposite)
            compared |= {name: ids, opposite: given.get(opposite, rest)}
            if (opposite, name) not in pairs:
                pairs.append((name, opposite))
        for name in compared.keys() & groups.keys():
            if compared[name] != groups[name]:
                raise ValueError(
                    f"expected a name for one set of classes, got {name!r} for {compared[name]} "
                    f"and, in class_groups, for {groups[name]}; rename one"
                )
        return cls(compared=compared, pairs=pairs, groups=groups)


def _checked(name: str, ids: Sequence[int], num_classes: int) -> tuple[int, ...]:
    if not name or name == _RESERVED or name.startswith(f"{_RESERVED}-"):
        raise ValueError(
            f"expected a set of classes with a name of its own, got {name!r}; the names "
            f"{_RESERVED!r} and '{_RESERVED}-...' are taken by scores of the other convention "
            "(mIoU-gt): rename the set"
        )
    for index in ids:
        if not 0 <= index < num_classes:
            raise ValueError(
                f"expected class ids in 0..{num_classes - 1} in the set {name!r}, got {index}"
            )
    return tuple(sorted(set(ids)))
