"""Which classes are asked for: what PnP-OVSS puts into its caption.

The published numbers come from answers of a language model, read from a file here; nothing calls a
service. A filter of one's own is a function in `CLASS_FILTER_REGISTRY` that takes the full config
and the matcher.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from fvcore.common.registry import Registry
from torch import Tensor, nn

from ovseg.d2.config import CfgNode
from ovseg.readers.documents import read_json
from ovseg.readers.pictures import read_label
from ovseg.vocab import TextBank, Vocabulary, class_list

from .answers import kept_positions
from .matcher import BlipMatcher

__all__ = [
    "CLASS_FILTER_REGISTRY",
    "AllClasses",
    "Asked",
    "CachedAnswers",
    "ClassFilter",
    "PresentClasses",
    "UserList",
    "build_filter",
]

CLASS_FILTER_REGISTRY = Registry("CLASS_FILTER")


@dataclass(frozen=True, eq=False)
class Asked:
    """A question about a picture.

    Args:
        vocabulary: all classes.
        candidates: indices of those to choose from, at least one; the background is none of them.
        words: per candidate the words that stand for it in a caption.
        image_id: the picture's name, "" where it has none.
        features: (1 + N, D) of the matcher's image encoder.
        seen: what the filter kept of the picture.
    """

    vocabulary: Vocabulary
    candidates: Sequence[int]
    words: Sequence[tuple[str, ...]]
    image_id: str
    features: Tensor
    seen: Mapping[str, Tensor]


class ClassFilter(nn.Module, ABC):
    """Chooses the classes that are looked for in a picture.

    Attributes:
        name: as configs have it.
        prompts: what the method is given, as the leaderboard tells it: "all classes", or "present
            classes" where something that has seen the picture says which they are.
    """

    name: ClassVar[str]
    prompts: ClassVar[str] = "all classes"

    def look(self, inputs: Mapping[str, Any]) -> dict[str, Tensor]:
        """Keep of a picture what choosing takes, without any words.

        Args:
            inputs: the model's, see `Segmentor.forward`; `image` (3, h, w) is on the device.

        Returns:
            Tensors by name.
        """
        return {}

    @abstractmethod
    def choose(self, asked: Asked) -> list[int]:
        """Choose classes.

        Args:
            asked: the question.

        Returns:
            Positions in `asked.candidates`, at least one, each once.
        """

    def text_banks(self) -> Sequence[TextBank]:
        """Lists what it keeps features of texts in; see `SegmentationModel.text_banks`."""
        return ()

    def protocol(self) -> dict[str, str | int | float | bool]:
        """States what decides the choice, by name."""
        return {"class_filter": self.name, "classes_asked_for": self.prompts}


def build_filter(cfg: CfgNode, matcher: BlipMatcher) -> ClassFilter:
    """Build the filter that MODEL.PNP_OVSS.FILTER.NAME names.

    Args:
        cfg: a full config.
        matcher: the method's.

    Returns:
        The filter.

    Raises:
        ValueError: there is none of that name, or it lacks a setting.
    """
    name = cfg.MODEL.PNP_OVSS.FILTER.NAME
    if name not in CLASS_FILTER_REGISTRY:
        known = sorted(each for each, _ in CLASS_FILTER_REGISTRY)
        raise ValueError(f"MODEL.PNP_OVSS.FILTER.NAME: expected one of {known}, got {name!r}")
    return CLASS_FILTER_REGISTRY.get(name)(cfg, matcher)


class AllClasses(ClassFilter):
    """Asks for every class."""

    name = "all"

    def choose(self, asked: Asked) -> list[int]:
        """Keep all; see `ClassFilter.choose`."""
        return list(range(len(asked.candidates)))


@CLASS_FILTER_REGISTRY.register()
def all(cfg: CfgNode, matcher: BlipMatcher) -> ClassFilter:
    """Builds the filter that asks for every class."""
    return AllClasses()


class UserList(ClassFilter):
    """Asks for the classes of a fixed list.

    Args:
        names: class names.

    Raises:
        ValueError: the list is empty.
    """

    name = "user_list"

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        if not names:
            raise ValueError("MODEL.PNP_OVSS.FILTER.NAMES: expected class names, got none")
        self.names = tuple(names)

    def choose(self, asked: Asked) -> list[int]:
        """Keep those on the list; see `ClassFilter.choose`."""
        names = [asked.vocabulary.names[index] for index in asked.candidates]
        kept = [position for position, name in enumerate(names) if name in self.names]
        if not kept:
            raise ValueError(
                f"MODEL.PNP_OVSS.FILTER.NAMES: expected some of {names[:20]}, got "
                f"{list(self.names)}"
            )
        return kept


@CLASS_FILTER_REGISTRY.register()
def user_list(cfg: CfgNode, matcher: BlipMatcher) -> ClassFilter:
    """Builds the filter of FILTER.NAMES."""
    return UserList(cfg.MODEL.PNP_OVSS.FILTER.NAMES)


class CachedAnswers(ClassFilter):
    """Asks for the classes that a file lists for each picture.

    Args:
        path: JSON, by image id either an answer as `ovseg.projects.pnp_ovss.answers` reads it, or
            a list of class names.
        min_probability: percentages of answers must exceed this.
        ids: "position": the classes are numbered from 1 in the vocabulary's order, the background
            left out; "coco": by COCO's category ids.

    Raises:
        ValueError: no file is named, or it is not such a file, or the ids are neither.
    """

    name, prompts = "cached_json", "present classes"

    def __init__(
        self, path: str | Path, *, min_probability: float = 70.0, ids: str = "position"
    ) -> None:
        super().__init__()
        if not path:
            raise ValueError(
                "MODEL.PNP_OVSS.FILTER.PATH: expected a JSON file of classes by image id, got ''; "
                "give one, or another filter: MODEL.PNP_OVSS.FILTER.NAME itm"
            )
        if ids not in ("position", "coco"):
            raise ValueError(
                f"MODEL.PNP_OVSS.FILTER.IDS: expected 'position' or 'coco', got {ids!r}"
            )
        try:
            self.answers = read_json(path)
        except (OSError, ValueError) as error:
            raise ValueError(
                f"MODEL.PNP_OVSS.FILTER.PATH: expected a JSON file, got {path}: {error}"
            ) from error
        if not isinstance(self.answers, dict):
            raise ValueError(f"{path}: expected an object with a text or a list by image id")
        self.path, self.ids, self.min_probability = str(path), ids, min_probability

    def choose(self, asked: Asked) -> list[int]:
        """Keep what the file lists; see `ClassFilter.choose`."""
        answer = self.answers.get(asked.image_id)
        names = [asked.vocabulary.names[index] for index in asked.candidates]
        if answer is None:
            raise ValueError(
                f"{self.path}: expected an entry for the picture {asked.image_id!r}, got none of "
                f"this name among {len(self.answers)}"
            )
        if isinstance(answer, list):
            kept = [position for position, name in enumerate(names) if name in answer]
            return kept or [0]
        ids = range(1, len(names) + 1) if self.ids == "position" else _coco_ids(names)
        return list(kept_positions(answer, ids, min_probability=self.min_probability))

    def protocol(self) -> dict[str, str | int | float | bool]:
        """States the file and the least probability."""
        return super().protocol() | {
            "filter_file": Path(self.path).name,
            "filter_min_prob": self.min_probability,
        }


def _coco_ids(names: Sequence[str]) -> list[int]:
    """COCO's category ids of classes; "people", as some lists say, is its "person"."""
    listed = class_list("coco_stuff_171")
    known = dict(zip(listed.names, listed.ids or (), strict=True))
    known["people"] = known["person"]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(
            f"MODEL.PNP_OVSS.FILTER.IDS coco: expected classes of COCO, got {unknown[:6]}"
        )
    return [known[name] for name in names]


@CLASS_FILTER_REGISTRY.register()
def cached_json(cfg: CfgNode, matcher: BlipMatcher) -> ClassFilter:
    """Builds the filter of FILTER.PATH, MIN_PROB and IDS."""
    node = cfg.MODEL.PNP_OVSS.FILTER
    return CachedAnswers(node.PATH, min_probability=node.MIN_PROB, ids=node.IDS)


class PresentClasses(ClassFilter):
    """Asks for the classes that are in the picture's label map: no result without labels."""

    name, prompts = "oracle", "present classes"

    def look(self, inputs: Mapping[str, Any]) -> dict[str, Tensor]:
        """Read which labels there are; see `ClassFilter.look`."""
        if "sem_seg_file_name" not in inputs:
            raise ValueError(
                "MODEL.PNP_OVSS.FILTER.NAME oracle: expected a picture of a dataset with label "
                "maps, got one without sem_seg_file_name; choose another filter, such as all or itm"
            )
        labels = np.unique(read_label(inputs["sem_seg_file_name"]))
        return {"present": torch.from_numpy(labels.astype(np.int64))}

    def choose(self, asked: Asked) -> list[int]:
        """Keep the candidates that are there; see `ClassFilter.choose`."""
        present = set(asked.seen["present"].tolist())
        return [p for p, index in enumerate(asked.candidates) if index in present] or [0]


@CLASS_FILTER_REGISTRY.register()
def oracle(cfg: CfgNode, matcher: BlipMatcher) -> ClassFilter:
    """Builds the filter that knows the picture's classes from its labels."""
    return PresentClasses()
