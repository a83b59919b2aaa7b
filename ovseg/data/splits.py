"""What the splits of datasets are for, and which of them settings may be chosen on."""

from __future__ import annotations

import re
from typing import Literal

from ovseg.d2.data import DatasetCatalog, MetadataCatalog

__all__ = ["TEST_SPLIT_FLAG", "TUNABLE", "Role", "SplitError", "require_tunable", "split_role"]

TEST_SPLIT_FLAG = "--i-know-this-is-the-test-split"

Role = Literal["train", "validation", "test", "unknown"]
TUNABLE: tuple[Role, ...] = ("train", "validation")
_ROLES: dict[str, Role] = {"train": "train", "validation": "validation", "test": "test"}


class SplitError(ValueError):
    """Settings were to be chosen on the split that results are reported on."""


def split_role(dataset_name: str) -> Role:
    """Tell what a split is for.

    The dataset's metadata say so where they have a `split`; else its name does. A "val" is often
    what papers report, because the test labels are not public: it counts as a test split unless
    there is a test split beside it.

    Args:
        dataset_name: a registered dataset.

    Returns:
        "train", "validation", "test", or "unknown".
    """
    stated = MetadataCatalog.get(dataset_name).get("split")
    if stated is not None:
        return _ROLES.get(str(stated), "unknown")
    words = re.split(r"[^a-z0-9]+", dataset_name.lower())
    if any(word.startswith("test") for word in words):
        return "test"
    if any(re.fullmatch(r"train(ing)?\d*", word) for word in words):
        return "train"
    validation = [word for word in words if re.fullmatch(r"val(idation)?\d*", word)]
    if not validation:
        return "unknown"
    sibling = re.sub(r"val(idation)?", "test", dataset_name, count=1, flags=re.IGNORECASE)
    return "validation" if sibling in DatasetCatalog.list() else "test"


def require_tunable(dataset_name: str, *, known_as_test: bool = False) -> Role:
    """Refuse to tune on a split that results are reported on.

    Args:
        dataset_name: a registered dataset.
        known_as_test: whether the user said that it is one, and wants it all the same.

    Returns:
        The split's role.

    Raises:
        KeyError: no such dataset.
        SplitError: it is no training or validation split, and the user did not say so.
    """
    if dataset_name not in DatasetCatalog.list():
        names = ", ".join(sorted(DatasetCatalog.list()))
        raise KeyError(f"expected a registered dataset, got {dataset_name!r}; valid: {names}")
    role = split_role(dataset_name)
    if role in ("train", "validation") or known_as_test:
        return role
    tunable = [name for name in DatasetCatalog.list() if split_role(name) in TUNABLE]
    what = "a test split" if role == "test" else "a split of unknown purpose"
    raise SplitError(
        f"expected a training or validation split to tune on, got {dataset_name!r}, {what}: "
        "scores reported on it would be those of settings that were chosen on it. Choose them on "
        f"one of {sorted(tunable)}, state what a dataset of your own is for "
        "(`split: train` or `split: validation` in its YAML file; "
        "MetadataCatalog.get(name).set(split=...) in Python), or say "
        f"{TEST_SPLIT_FLAG}, which is then kept in every manifest"
    )
